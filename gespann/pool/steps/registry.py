"""The steps that operations are made of, by name."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gespann.pool.model.database import Transaction
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.api.tasks import Task
    from gespann.pool.pool import Pool

T = TypeVar("T")


class Refused(XenApiError):
    """A step's word that nothing has happened, and that asking again would not help."""


@dataclass
class Run:
    """One operation on its way, as a step sees it.

    ``args``: of this step. ``notes``: shared by all steps of the operation, JSON, durable before the next step begins.
    ``memory``: shared too but gone with the process; the only place for secrets and open files. A step that needs
    something of it must be one that recovery undoes rather than repeats.
    """

    pool: "Pool"
    operation_id: str
    args: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict, repr=False)
    task: "Task | None" = None
    share: tuple[float, float] = (0.0, 1.0)  # the part of the task's progress that is this step's
    cut_short: asyncio.Event | None = None  # set: stop waiting, if that is what this step does

    async def unless_cut_short(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Waits for what only takes time; TASK_CANCELLED when somebody wants it ended."""
        job = asyncio.ensure_future(waiting)
        if self.cut_short is None:
            return await job
        alarm = asyncio.ensure_future(self.cut_short.wait())
        try:
            await asyncio.wait([job, alarm], return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise XenApiError("TASK_CANCELLED", [(self.task.ref if self.task else "") or self.operation_id])
            return job.result()
        finally:
            alarm.cancel()
            job.cancel()

    def progress(self, fraction: float) -> None:
        low, high = self.share
        if self.task is not None:
            self.task.set_progress(low + (high - low) * min(max(fraction, 0.0), 1.0))


class Step:
    """Base: every part may be left out, and every part may be repeated.

    ``do`` and ``undo`` change the world outside. ``commit`` changes records, in the transaction that journals that
    ``do`` is done; ``revert`` takes that back, in the transaction that journals that ``undo`` is done. ``undo`` and
    ``revert`` are also called for a step of which nobody knows how far it came.
    """

    name = ""
    weight = 1  # its part of the task's progress, beside those of the other steps
    point_of_no_return = False  # once begun, a crash is answered by finishing; once done, so is a failure
    too_late_to_cancel = False  # once done, nobody can cancel the rest; a crash is still answered by undoing

    async def do(self, run: Run) -> None:
        return None

    async def undo(self, run: Run) -> None:
        return None

    def commit(self, run: Run, tx: Transaction) -> None:
        return None

    def revert(self, run: Run, tx: Transaction) -> None:
        return None


STEPS: dict[str, Step] = {}
S = TypeVar("S", bound=type[Step])


def step(cls: S) -> S:
    if not cls.name or cls.name in STEPS:
        raise ValueError(f"a step needs a name of its own: {cls.__name__} has {cls.name!r}")
    STEPS[cls.name] = cls()
    return cls
