"""No snapshot that the pool has made goes without its say. What used to push one out, on our own group: the disk is
written anew as a whole, is trimmed, goes back to what it was."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.group import Group
from gespann.seams.sr_driver import SnapshotSpec, Sr, Volume, VolumeSpec
from gespann.sr.equal import EqualDriver
from tests.product.sr.arrays import drivers, group_over
from tests.product.sr.test_changes import made_sr
from tests.product.sr.test_conformance import MIB, refusal

SIZE = 150 * MIB
OLD_WAYS = {"snap-depletion": "delete-oldest"}


def vdi(number: int) -> str:
    return f"{number:08x}-23c0-4479-a063-f5c34916727d"


@dataclass
class Setting:
    driver: EqualDriver
    sr: Sr
    engine: FakeEngine
    group: Group

    async def disk(self, disk: str, **sm_config: str) -> Volume:
        spec = VolumeSpec(disk, SIZE, "d", sm_config={"allocation": "thin"} | sm_config)
        return await self.driver.volume_create(self.sr, spec)

    async def snapshot(self, disk: str, uuid: str) -> None:
        await self.driver.volumes_snapshot(self.sr, [SnapshotSpec(disk, VolumeSpec(uuid, 0, uuid[:8]))])

    def naa(self, disk: str) -> str:
        (volume,) = [one for one in self.group.control.volumes.all() if one.description.startswith(disk)]
        return volume.naa

    def write(self, disk: str) -> None:
        self.engine.write(self.naa(disk), 0, 120 * MIB)

    def trim(self, disk: str) -> None:
        self.engine.unmap(self.naa(disk), 0, SIZE)

    async def there(self) -> set[str]:
        """After the group has looked, as it does by itself every ten seconds."""
        await self.group.control.look_at_snapshots()
        return {one.vdi_uuid for one in await self.driver.scan(self.sr)}

    async def gone(self, *vdis: str) -> list[str]:
        await self.group.control.look_at_snapshots()
        return await self.driver.volumes_gone(self.sr, list(vdis))

    def told(self, code: str) -> list[str]:
        return [event.text for event in self.group.control.events.recent(100) if event.code == code]


@asynccontextmanager
async def setting(tmp_path: Path, total_bytes: int = 2**40) -> AsyncIterator[Setting]:
    engine = FakeEngine(total_bytes=total_bytes)
    async with group_over(engine, tmp_path) as (group, config), drivers() as make:
        driver = make()
        yield Setting(driver, await made_sr(driver, config), engine, group)


@pytest.mark.parametrize("old", [True, False])
async def test_a_snapshot_stays_whatever_becomes_of_its_disk(tmp_path: Path, old: bool) -> None:
    """``old``: as volumes of a PS group are by themselves, and as the pool's own once were."""
    busy, trimmed, back = vdi(1), vdi(2), vdi(3)
    monday, tuesday, only, start, kept = (vdi(number) for number in range(11, 16))
    async with setting(tmp_path) as one:
        made = [await one.disk(disk, **(OLD_WAYS if old else {})) for disk in (busy, trimmed, back)]
        policies = {volume.sm_config["snap-depletion"] for volume in made}
        assert policies == {"delete-oldest" if old else "stop-snapshots"}
        for snapshot in (monday, tuesday):
            one.write(busy)
            await one.snapshot(busy, snapshot)
        one.write(busy)
        one.write(trimmed)
        await one.snapshot(trimmed, only)
        one.trim(trimmed)  # the reserve is a share of what the volume occupies, which is little then
        await one.snapshot(back, start)
        one.write(back)
        await one.driver.volume_restore(one.sr, back, start, VolumeSpec(kept, 0, "kept"))
        disks = {busy, trimmed, back}
        assert await one.there() - disks == ({tuesday} if old else {monday, tuesday, only, start, kept})


async def test_it_warns_once_when_snapshots_hold_more_than_the_reserve(tmp_path: Path) -> None:
    disk, monday, tuesday = vdi(1), vdi(11), vdi(12)
    async with setting(tmp_path) as one:
        await one.disk(disk)
        for snapshot in (monday, tuesday):
            one.write(disk)
            await one.snapshot(disk, snapshot)
        assert await one.there() == {disk, monday, tuesday}
        assert one.told("8.9.4") == []
        one.write(disk)
        await one.there()
        await one.there()
        (text,) = one.told("8.9.4")
        assert "hold 240MB, more than their reserve of 120MB" in text
        (warning,) = await one.driver.warnings(one.sr, 0) or []
        assert (warning.text, warning.vdi_uuid_begins) == (text, disk[:23])
        await one.driver.volume_destroy(one.sr, monday)
        await one.there()
        await one.snapshot(disk, monday)
        one.write(disk)
        await one.there()
        assert len(one.told("8.9.4")) == 2


async def test_without_room_a_new_one_is_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    """Of 1000 MB five percent have to be free, unless the disk holds less."""
    disk, filler, monday, tuesday, kept = vdi(1), vdi(2), vdi(11), vdi(12), vdi(13)
    async with setting(tmp_path, total_bytes=1000 * MIB) as one:
        await one.disk(disk)
        one.write(disk)
        await one.snapshot(disk, monday)
        thick = VolumeSpec(filler, 810 * MIB, "filler", sm_config={"allocation": "thick"})
        await one.driver.volume_create(one.sr, thick)
        error = await refusal(one.snapshot(disk, tuesday))
        assert (error.number, error.description) == (167, "The storage pool has not enough free space for this")
        assert "Storage pool default has not enough free space for a snapshot: 50MB needed, " in error.detail
        assert await one.there() == {disk, filler, monday}
        await one.driver.volume_restore(one.sr, disk, monday, VolumeSpec(kept, 0, "kept"))
        assert await one.there() == {disk, filler, monday, kept}
        await one.driver.volume_destroy(one.sr, kept)
        await one.driver.volume_destroy(one.sr, filler)
        await one.snapshot(disk, tuesday)
        assert await one.there() == {disk, monday, tuesday}


async def test_what_an_administrator_lets_go_is_found(tmp_path: Path) -> None:
    disk, monday, tuesday = vdi(1), vdi(11), vdi(12)
    async with setting(tmp_path) as one:
        lifecycle = one.group.control.lifecycle
        own = await lifecycle.create(lifecycle.draft("own", SIZE, 1))
        assert (own.snap_depletion, own.snap_reserve) == ("delete-oldest", 100)
        await one.disk(disk)
        one.write(disk)
        await one.snapshot(disk, monday)
        assert await one.gone(disk, monday, tuesday) == [tuesday]
        await one.snapshot(disk, tuesday)
        one.trim(disk)
        assert await one.gone(disk, monday, tuesday) == []
        changed = await one.driver.volume_update(one.sr, VolumeSpec(disk, 0, "d", sm_config=OLD_WAYS))
        assert changed.sm_config["snap-depletion"] == "delete-oldest"
        assert await one.gone(disk, monday, tuesday) == [monday, tuesday]
        assert (await refusal(one.driver.volume_clone(one.sr, monday, VolumeSpec(vdi(2), 0, "c")))).number == 144
