"""Our own group below the driver loses its engine at each request of each operation, before or after the request took
effect. The driver hears a clear error or succeeds, the repeat works, and undoing leaves nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.group import Group
from gespann.seams.json_lines import SeamLost
from gespann.seams.sr_driver import Opening, Sr, SrError, VolumeSpec
from gespann.sr.equal import EqualDriver
from tests.product.sr.arrays import TIMING, drivers, group_over, left_in

DISK, COPY = "22267eb7-23c0-4479-a063-f5c34916727d", "33367eb7-23c0-4479-a063-f5c34916727d"
SPEC = VolumeSpec(DISK, 100 * 2**20, "web1 0", sm_config={"allocation": "thin"})
COPY_SPEC = VolumeSpec(COPY, 0, "web2 0")
OPENING = Opening("start-7", "RW", "iqn.2026-11.org.example:start-7", "", "s3cretS3cret16ch")
MOST_REQUESTS = 60

Step = Callable[[EqualDriver, Sr], Awaitable[object]]


async def nothing(driver: EqualDriver, sr: Sr) -> None:
    """The repository is all there is."""


async def with_disk(driver: EqualDriver, sr: Sr) -> None:
    await driver.volume_create(sr, SPEC)


async def with_open_disk(driver: EqualDriver, sr: Sr) -> None:
    await driver.volume_create(sr, SPEC)
    await driver.open(sr, DISK, OPENING)


OPERATIONS: dict[str, tuple[Step, Step]] = {
    "volume_create": (nothing, lambda d, sr: d.volume_create(sr, SPEC)),
    "volume_clone": (with_disk, lambda d, sr: d.volume_clone(sr, DISK, COPY_SPEC)),
    "volume_resize": (with_disk, lambda d, sr: d.volume_resize(sr, DISK, 200 * 2**20)),
    "open": (with_disk, lambda d, sr: d.open(sr, DISK, OPENING)),
    "close": (with_open_disk, lambda d, sr: d.close(sr, DISK, OPENING.opening_id)),
    "volume_destroy": (with_open_disk, lambda d, sr: d.volume_destroy(sr, DISK)),
}


class Losing(FakeEngine):
    """Dies at request number ``at``, and is back at once."""

    at = -1
    after = False
    seen = 0

    async def call(self, request: object, timeout_s: float | None = None) -> object:
        number, self.seen = self.seen, self.seen + 1
        if number == self.at:
            if self.after:
                await super().call(request, timeout_s)  # type: ignore[arg-type]
            self.lose()
            asyncio.get_running_loop().call_soon(self.come_back)
            raise SeamLost("engine killed")
        return await super().call(request, timeout_s)  # type: ignore[arg-type]

    def arm(self, at: int, after: bool) -> None:
        self.seen, self.at, self.after = 0, at, after


@contextlib.asynccontextmanager
async def a_repository(path: Path) -> AsyncIterator[tuple[Losing, Group, EqualDriver, Sr]]:
    engine = Losing(total_bytes=2**40)
    async with group_over(engine, path) as (group, config), drivers() as make:
        driver, sr = make(), Sr("0ff867ef-3121-0e7c-5497-f5c34916727d", config)
        await driver.create(sr, 0)
        yield engine, group, driver, sr


async def clean(driver: EqualDriver, sr: Sr) -> None:
    """As the pool undoes: close what may be open, destroy what may be there."""
    for disk in (DISK, COPY):
        await driver.close(sr, disk, OPENING.opening_id)
        await driver.volume_destroy(sr, disk)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_engine_dies_at_each_request(tmp_path: Path, name: str, after: bool) -> None:
    prepare, run = OPERATIONS[name]
    async with a_repository(tmp_path) as (engine, group, driver, sr):
        empty = await left_in(group)
        failed = 0
        for at in range(MOST_REQUESTS):
            await prepare(driver, sr)
            engine.arm(at, after)
            try:
                await run(driver, sr)
            except SrError:
                failed += 1
            reached, engine.at = engine.seen > at, -1
            await asyncio.wait_for(group.control.data_plane.current.wait(), TIMING.connect_timeout_s)
            await run(driver, sr)
            opened = await driver.openings(sr, DISK) if name not in ("volume_destroy",) else []
            assert opened == ([OPENING.opening_id] if name == "open" else []), at
            await clean(driver, sr)
            assert await left_in(group) == empty, at
            if not reached:
                break
        assert 0 < at < MOST_REQUESTS - 1
        assert failed, "no loss was ever felt"
