"""Snapshots: what the pool may count on from every driver that says it can make them."""

import asyncio
from dataclasses import replace

import pytest

from gespann.seams.sr_driver import SnapshotSpec, Sr, SrError, Volume, VolumeSpec
from tests.product.sr.arrays import Bench
from tests.product.sr.test_conformance import COPY, DISK, MIB, SPEC, opening, refusal

OTHER, MONDAY, TUESDAY, KEPT, SECOND = (f"{n}2267eb7-23c0-4479-a063-f5c34916727d" for n in (4, 5, 6, 7, 8))
SMALL = replace(SPEC, size_bytes=30 * MIB)


def wanted(vdi_uuid: str, source: str = DISK, name: str = "monday") -> SnapshotSpec:
    return SnapshotSpec(source, VolumeSpec(vdi_uuid, 0, name, "before the update"))


async def with_disk(bench: Bench, sr: Sr) -> Volume:
    return await bench.driver.volume_create(sr, SMALL)


async def test_a_snapshot_says_what_it_is_of(bench: Bench, sr: Sr) -> None:
    disk = await with_disk(bench, sr)
    (made,) = await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)])
    assert (made.vdi_uuid, made.name_label, made.name_description) == (MONDAY, "monday", "before the update")
    assert (made.is_a_snapshot, made.snapshot_of, made.virtual_size_bytes) == (True, DISK, disk.virtual_size_bytes)
    assert made.sm_config["snapshot-of"] == DISK
    assert len(made.snapshot_time) == len("20260101T00:00:00Z")
    assert await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)]) == [made]
    for driver in (bench.driver, bench.fresh_driver()):
        assert {one.vdi_uuid: one for one in await driver.scan(sr)} == {DISK: disk, MONDAY: made}
        assert await driver.volumes_gone(sr, [DISK, MONDAY, OTHER]) == [OTHER]
    await bench.driver.volume_destroy(sr, MONDAY)
    assert await bench.driver.volumes_gone(sr, [DISK, MONDAY]) == [MONDAY]


async def test_several_volumes_at_one_instant(bench: Bench, sr: Sr) -> None:
    disks = [DISK, OTHER, COPY]
    for disk in disks:
        await bench.driver.volume_create(sr, replace(SMALL, vdi_uuid=disk))
    await bench.driver.open(sr, DISK, opening("a"))
    snapshots = [wanted(uuid, disk) for uuid, disk in zip((MONDAY, TUESDAY, KEPT), disks, strict=True)]
    made = await bench.driver.volumes_snapshot(sr, snapshots)
    assert [(one.vdi_uuid, one.snapshot_of) for one in made] == [(MONDAY, DISK), (TUESDAY, OTHER), (KEPT, COPY)]
    assert await bench.driver.volumes_snapshot(sr, snapshots) == made
    assert len(await bench.driver.scan(sr)) == 6
    await bench.driver.volumes_snapshot_undo(sr, snapshots)
    await bench.driver.volumes_snapshot_undo(sr, snapshots)
    assert sorted(one.vdi_uuid for one in await bench.driver.scan(sr)) == sorted(disks)
    assert await bench.driver.openings(sr, DISK) == ["a"]


async def test_all_of_them_or_none(bench: Bench, sr: Sr) -> None:
    await with_disk(bench, sr)
    before = await bench.left()
    error = await refusal(bench.driver.volumes_snapshot(sr, [wanted(MONDAY), wanted(TUESDAY, OTHER)]))
    assert error.number == 144
    assert [one.vdi_uuid for one in await bench.driver.scan(sr)] == [DISK]
    assert await bench.left() == before


async def test_no_snapshot_of_a_snapshot(bench: Bench, sr: Sr) -> None:
    await with_disk(bench, sr)
    await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)])
    assert (await refusal(bench.driver.volumes_snapshot(sr, [wanted(TUESDAY, MONDAY)]))).number == 168
    assert (await refusal(bench.driver.volume_resize(sr, MONDAY, 2**30))).number == 110


@pytest.mark.parametrize("mode", ["RW", "RO"])
async def test_a_snapshot_is_opened_beside_its_volume(bench: Bench, sr: Sr, mode: str) -> None:
    await with_disk(bench, sr)
    await bench.driver.volumes_snapshot(
        sr,
        [
            wanted(MONDAY),
        ],
    )
    await bench.driver.volumes_snapshot(sr, [wanted(TUESDAY)])
    disk = await bench.driver.open(sr, DISK, opening("a"))
    snapshot = await bench.driver.open(sr, MONDAY, opening("b", mode))
    assert await bench.log_in(disk)
    assert await bench.log_in(snapshot)
    assert await bench.fresh_driver().openings(sr, MONDAY) == ["b"]
    assert await bench.driver.openings(sr, TUESDAY) == []
    assert await bench.driver.openings(sr, DISK) == ["a"]
    assert (await refusal(bench.driver.open(sr, MONDAY, opening("c")))).number == 24
    await bench.driver.close(sr, MONDAY, "b")
    await bench.driver.close(sr, MONDAY, "b")
    assert not await bench.log_in(snapshot)
    assert await bench.connections() == 1


async def test_readers_share_a_snapshot(bench: Bench, sr: Sr) -> None:
    await with_disk(bench, sr)
    await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)])
    sources = [await bench.driver.open(sr, MONDAY, opening(name, "RO")) for name in ("a", "b")]
    for source in sources:
        assert await bench.log_in(source)
    await bench.driver.close(sr, MONDAY, "a")
    assert not await bench.log_in(sources[0])
    assert await bench.log_in(sources[1])


async def test_snapshots_are_renamed_and_cloned(bench: Bench, sr: Sr) -> None:
    disk = await with_disk(bench, sr)
    await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)])
    changed = await bench.driver.volume_update(sr, VolumeSpec(MONDAY, 0, "mon", ""))
    assert (changed.name_label, changed.is_a_snapshot) == ("mon", True)
    assert changed in await bench.driver.scan(sr)
    copied = await bench.driver.volume_clone(sr, MONDAY, VolumeSpec(COPY, 0, "copy"))
    assert (copied.is_a_snapshot, copied.virtual_size_bytes) == (False, disk.virtual_size_bytes)
    assert await bench.driver.volume_clone(sr, MONDAY, VolumeSpec(COPY, 0, "copy")) == copied
    await bench.driver.volume_destroy(sr, MONDAY)
    assert {one.vdi_uuid for one in await bench.driver.scan(sr)} == {DISK, COPY}


async def test_snapshots_outlive_their_volume(bench: Bench, sr: Sr) -> None:
    before = await bench.left()
    await with_disk(bench, sr)
    for uuid in (MONDAY, TUESDAY):
        await bench.driver.volumes_snapshot(sr, [wanted(uuid)])
    opened = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(opened)
    snapshot = await bench.driver.open(sr, MONDAY, opening("b"))
    await bench.driver.volume_destroy(sr, DISK)
    await bench.driver.volume_destroy(sr, DISK)
    assert not await bench.log_in(opened)
    assert await bench.log_in(snapshot)
    for driver in (bench.driver, bench.fresh_driver()):
        assert {one.vdi_uuid for one in await driver.scan(sr)} == {MONDAY, TUESDAY}
        assert (await refusal(driver.open(sr, DISK, opening("c")))).number == 144
        assert (await refusal(driver.volume_clone(sr, DISK, VolumeSpec(COPY, 0)))).number == 144
        assert (await refusal(driver.volumes_snapshot(sr, [wanted(KEPT)]))).number == 144
    assert (await refusal(bench.driver.destroy(sr))).number == 39
    await bench.driver.volume_clone(sr, TUESDAY, VolumeSpec(COPY, 0, "copy"))
    for uuid in (COPY, MONDAY, MONDAY, TUESDAY):
        await bench.driver.volume_destroy(sr, uuid)
    assert await bench.driver.scan(sr) == []
    assert await bench.left() == before
    assert await bench.connections() == 0


async def test_back_to_a_snapshot_and_forth_again(bench: Bench, sr: Sr) -> None:
    disk = await with_disk(bench, sr)
    await bench.driver.volumes_snapshot(sr, [wanted(MONDAY)])
    grown = await bench.driver.volume_resize(sr, DISK, 60 * MIB)
    kept = VolumeSpec(KEPT, 0, "kept")
    for _ in range(2):
        assert (await bench.driver.volume_restore(sr, DISK, MONDAY, kept)).virtual_size_bytes == 30 * MIB
        found = {one.vdi_uuid: one.virtual_size_bytes for one in await bench.driver.scan(sr)}
        assert found == {DISK: 30 * MIB, MONDAY: 30 * MIB, KEPT: 60 * MIB}
    for _ in range(2):
        await bench.driver.volume_restore_undo(sr, DISK, KEPT)
        found = {one.vdi_uuid: one.virtual_size_bytes for one in await bench.driver.scan(sr)}
        assert found == {DISK: grown.virtual_size_bytes, MONDAY: disk.virtual_size_bytes}


async def test_what_cannot_be_restored(bench: Bench, sr: Sr) -> None:
    await with_disk(bench, sr)
    await bench.driver.volume_create(sr, replace(SMALL, vdi_uuid=OTHER))
    await bench.driver.volumes_snapshot(sr, [wanted(MONDAY, OTHER)])
    await bench.driver.volumes_snapshot(sr, [wanted(TUESDAY)])
    kept = VolumeSpec(KEPT, 0, "kept")
    assert (await refusal(bench.driver.volume_restore(sr, DISK, MONDAY, kept))).number == 144
    assert (await refusal(bench.driver.volume_restore(sr, DISK, SECOND, kept))).number == 144
    source = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(source)
    assert (await refusal(bench.driver.volume_restore(sr, DISK, TUESDAY, kept))).number == 24
    assert await bench.connections() == 1
    assert len(await bench.driver.scan(sr)) == 4


async def test_two_at_once(bench: Bench, sr: Sr) -> None:
    await with_disk(bench, sr)
    both = await asyncio.gather(*(bench.driver.volumes_snapshot(sr, [wanted(one)]) for one in (MONDAY, TUESDAY)))
    assert {one.vdi_uuid for (one,) in both} == {MONDAY, TUESDAY}
    assert len(await bench.driver.scan(sr)) == 3


async def test_more_volumes_than_go_together(bench: Bench, sr: Sr) -> None:
    most = bench.driver.info.snapshots_together
    disks = [f"{n:08x}-23c0-4479-a063-f5c34916727d" for n in range(most + 1)]
    for disk in disks:
        await bench.driver.volume_create(sr, replace(SMALL, vdi_uuid=disk))
    before = await bench.left()
    snapshots = [wanted(f"{n:08x}-aaaa-4479-a063-f5c34916727d", disk) for n, disk in enumerate(disks)]
    error = await refusal(bench.driver.volumes_snapshot(sr, snapshots))
    assert isinstance(error, SrError)
    assert error.number == 82
    assert await bench.left() == before
    assert len(await bench.driver.volumes_snapshot(sr, snapshots[:most])) == most
