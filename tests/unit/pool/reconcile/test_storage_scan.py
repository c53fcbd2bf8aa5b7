"""A scan takes its time: what operations made and took away meanwhile is neither found nor lost by it."""

import asyncio
from typing import Any

import pytest

from tests.unit.pool.world import World


class LateScan:
    """The storage's answer, as things were at ``look``, comes at ``go_on``."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.look, self.looked, self.go_on = (asyncio.Event() for _ in range(4))
        driver = world.reconciler.pool.drivers["memory"]
        scan = driver.scan

        async def late(*words: Any) -> Any:
            self.asked.set()
            await self.look.wait()
            answer = await scan(*words)
            self.looked.set()
            await self.go_on.wait()
            return answer

        monkeypatch.setattr(driver, "scan", late)


@pytest.fixture
async def scanned(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[str, LateScan, "asyncio.Task[None]"]:
    """An SR, and a scan of it that waits to be told to look."""
    sr = await world.make_sr()
    late = LateScan(world, monkeypatch)
    task = asyncio.create_task(world.call("SR.scan", sr))
    await late.asked.wait()
    return sr, late, task


async def test_a_disk_that_came_and_went_meanwhile_is_not_found(world: World, scanned: Any) -> None:
    sr, late, scanning = scanned
    vdi = await world.make_vdi(sr)
    late.look.set()
    await late.looked.wait()
    await world.call("VDI.destroy", vdi)
    late.go_on.set()
    await scanning
    assert world.get("SR", sr)["VDIs"] == []


async def test_a_disk_made_after_the_storage_has_looked_is_not_lost(world: World, scanned: Any) -> None:
    sr, late, scanning = scanned
    late.look.set()
    await late.looked.wait()
    vdi = await world.make_vdi(sr)
    late.go_on.set()
    await scanning
    assert world.get("SR", sr)["VDIs"] == [vdi]
    assert not world.get("VDI", vdi)["missing"]
