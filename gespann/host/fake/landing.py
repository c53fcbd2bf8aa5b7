"""Fake machines that move between fake hosts of one process: where they are expected, by ticket, and their memory on
its way."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gespann.seams.host_agent import DomainSpec
from gespann.seams.json_lines import SeamError

if TYPE_CHECKING:
    from gespann.host.fake.hypervisor import FakeHypervisor


@dataclass(frozen=True)
class Expected:
    hypervisor: "FakeHypervisor"
    spec: DomainSpec


_expected: dict[str, Expected] = {}


def expect(ticket: str, given: Expected) -> None:
    _expected[ticket] = given


def expected(ticket: str) -> Expected | None:
    return _expected.get(ticket)


def forget(ticket: str) -> None:
    _expected.pop(ticket, None)


STOOD_STILL_S = 0.02  # of which each machine says so


class Sending:
    """Machines that a host is sending."""

    def __init__(self) -> None:
        self._aborted: dict[str, asyncio.Event] = {}

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._aborted

    async def take(self, uuid: str, send_s: float) -> None:
        """HYPERVISOR if it is aborted before its time is over."""
        if not send_s:
            return
        aborted = self._aborted[uuid] = asyncio.Event()
        try:
            async with asyncio.timeout(send_s):
                await aborted.wait()
        except TimeoutError:
            return  # all of it is over there
        finally:
            del self._aborted[uuid]
        raise SeamError("HYPERVISOR", "the migration was aborted")

    def progress(self, uuid: str) -> float:
        return 0.5 if uuid in self else 0.0

    def abort(self, uuid: str) -> None:
        if uuid in self:
            self._aborted[uuid].set()
