"""Faults that a test asks for, before or after the effect of a call of the memory driver."""

from dataclasses import dataclass, field
from typing import Literal

from gespann.seams.sr_driver import SrError

Moment = Literal["before", "after"]


class Crash(BaseException):
    """The coordinator died here. A ``BaseException``, so that no ``except Exception`` of the pool tidies up after it:
    the test makes a new pool over the old database and the same ``MemoryStorage``."""


@dataclass
class Planned:
    call: str
    moment: Moment
    error: BaseException
    times: int  # -1: for ever


@dataclass
class Faults:
    """``calls`` is the log of what was asked: (call, "before") when it begins and (call, "after") once it has taken
    effect. A generic test first runs through without faults, then fails each entry of the log in turn."""

    planned: list[Planned] = field(default_factory=list)
    calls: list[tuple[str, Moment]] = field(default_factory=list)
    fail_at: dict[int, BaseException] = field(default_factory=dict)

    def fail(self, call: str, moment: Moment = "before", error: BaseException | None = None, times: int = 1) -> None:
        """The next ``times`` times that ``call`` ("volume_create", "open", or "*") comes by, raise ``error``."""
        self.planned.append(Planned(call, moment, error or SrError(202, "Injected failure", call), times))

    def crash(self, call: str, moment: Moment = "before") -> None:
        self.fail(call, moment, Crash(f"{moment} {call}"))

    def fail_nth(self, index: int, error: BaseException | None = None) -> None:
        """Raises at entry ``index`` of the log, counted from 0."""
        self.fail_at[index] = error or SrError(202, "Injected failure", f"call {index}")

    def reach(self, call: str, moment: Moment) -> None:
        self.calls.append((call, moment))
        index = len(self.calls) - 1
        if index in self.fail_at:
            raise self.fail_at.pop(index)
        for plan in self.planned:
            if plan.call in (call, "*") and plan.moment == moment and plan.times != 0:
                plan.times -= 1 if plan.times > 0 else 0
                raise plan.error
