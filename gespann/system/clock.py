"""The door to time. Code that decides takes a Clock, so that a test can say what time it is."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, aware, UTC: for people and records, never for measuring."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some start, never going back: for measuring and deadlines."""
        ...

    async def sleep(self, delay_s: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class ManualClock:
    """Time that moves only when told: ``advance`` wakes the sleepers whose time has come, in order."""

    def __init__(self, start: datetime = datetime(2010, 2, 16, 9, 30, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now.timestamp() + self._elapsed_s, UTC)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    @property
    def sleepers(self) -> int:
        return sum(not future.done() for _, future in self._sleepers)

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed_s + delay_s, future))
        await future

    def advance(self, delta_s: float) -> None:
        self._elapsed_s += delta_s
        due = sorted((item for item in self._sleepers if item[0] <= self._elapsed_s), key=lambda item: item[0])
        self._sleepers = [item for item in self._sleepers if item[0] > self._elapsed_s]
        for _, future in due:
            if not future.done():
                future.set_result(None)


async def sleep_unless(event: asyncio.Event, clock: Clock, delay_s: float) -> None:
    """Returns after so long, or as soon as the event is set."""
    waits = [asyncio.ensure_future(one) for one in (clock.sleep(delay_s), event.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
