"""The fake engine shares as the seam says: one instant, independent at once, counted exactly."""

import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.data_plane.fake_volumes import CHUNK_BYTES, SpaceExhausted
from gespann.seams import engine_socket as seam
from gespann.seams.json_lines import SeamError

A, B, SNAP_A, SNAP_B = (f"6090a028a030f846d8d6546fbd0130c{digit}" for digit in "0123")
CHUNKS = 100


@pytest.fixture
async def engine():
    engine = FakeEngine(total_bytes=1000 * CHUNK_BYTES)
    for name in (A, B):
        await engine.call(seam.VolumeCreate(volume=name, size_bytes=CHUNKS * CHUNK_BYTES))
    engine.write(A, 0, 10 * CHUNK_BYTES)
    return engine


def both(**changed: str) -> seam.VolumeSnapshot:
    pairs = {A: SNAP_A, B: SNAP_B} | changed
    return seam.VolumeSnapshot(pairs=[seam.SharePair(source=s, volume=v) for s, v in pairs.items()])


async def refused(engine: FakeEngine, request: seam.Request) -> str:
    with pytest.raises(SeamError) as caught:
        await engine.call(request)
    return caught.value.code


async def mapped_and_own(engine: FakeEngine, name: str) -> tuple[int, int]:
    usage = await engine.call(seam.VolumeUsage(volume=name))
    return usage.mapped_bytes // CHUNK_BYTES, usage.exclusive_bytes // CHUNK_BYTES


async def test_a_snapshot_keeps_what_was_and_says_where_it_came_from(engine):
    reply = await engine.call(both())
    assert [(info.volume, info.origin) for info in reply.volumes] == [(SNAP_A, A), (SNAP_B, B)]
    assert await mapped_and_own(engine, A) == (10, 0)
    engine.write(A, 5 * CHUNK_BYTES, 10 * CHUNK_BYTES)
    assert await mapped_and_own(engine, A) == (15, 10)
    assert await mapped_and_own(engine, SNAP_A) == (10, 5)
    assert (await engine.call(seam.Space())).used_bytes == 20 * CHUNK_BYTES
    await engine.call(seam.VolumeDelete(volume=A))
    assert await mapped_and_own(engine, SNAP_A) == (10, 10)


async def test_a_repeat_changes_nothing_and_half_of_it_is_refused(engine):
    await engine.call(both())
    engine.write(A, 0, CHUNK_BYTES)
    await engine.call(both())
    assert await mapped_and_own(engine, SNAP_A) == (10, 1)
    await engine.call(seam.VolumeDelete(volume=SNAP_B))
    assert await refused(engine, both()) == "EXISTS"
    assert SNAP_B not in engine.volumes
    assert await refused(engine, both(**{B: SNAP_A})) == "BAD_REQUEST"
    assert await refused(engine, both(**{B: A})) == "BAD_REQUEST"
    assert await refused(engine, seam.VolumeSnapshot(pairs=[])) == "BAD_REQUEST"


async def test_rolling_back_needs_the_volume_offline(engine):
    await engine.call(both())
    engine.write(A, 0, 20 * CHUNK_BYTES)
    await engine.call(seam.VolumeResize(volume=A, size_bytes=2 * CHUNKS * CHUNK_BYTES))
    target = seam.Target(volume=A, name="iqn.2026-01.test:a", online=True)
    await engine.call(seam.TargetPut(target=target))
    assert await refused(engine, seam.VolumeRollback(volume=A, source=SNAP_A)) == "BUSY"
    await engine.call(seam.TargetPut(target=seam.Target(volume=A, name="iqn.2026-01.test:a")))
    info = await engine.call(seam.VolumeRollback(volume=A, source=SNAP_A))
    assert (info.size_bytes, info.origin) == (CHUNKS * CHUNK_BYTES, None)
    assert await mapped_and_own(engine, A) == (10, 0)


async def test_differences_come_in_pages(engine):
    await engine.call(both())
    for chunk in (3, 4, 20, 99):
        engine.write(A, chunk * CHUNK_BYTES, CHUNK_BYTES)
    engine.unmap(A, 0, CHUNK_BYTES)
    first = await engine.call(seam.VolumeDiff(older=SNAP_A, newer=A, limit=2))
    rest = await engine.call(seam.VolumeDiff(older=SNAP_A, newer=A, offset=first.next_offset, limit=2))
    runs = [(e.offset // CHUNK_BYTES, e.length // CHUNK_BYTES) for e in first.extents + rest.extents]
    assert runs == [(0, 1), (3, 2), (20, 1), (99, 1)]
    assert rest.next_offset is None


async def test_limits_stop_writes_that_need_space_and_no_others(engine):
    await engine.call(seam.VolumeLimit(volume=A, max_in_use_bytes=12 * CHUNK_BYTES))
    engine.write(A, 10 * CHUNK_BYTES, 2 * CHUNK_BYTES)
    with pytest.raises(SpaceExhausted):
        engine.write(A, 12 * CHUNK_BYTES, CHUNK_BYTES)
    engine.write(A, 0, 12 * CHUNK_BYTES)
    await engine.call(seam.VolumeLimit(volume=A))
    await engine.call(seam.SpaceLimit(limit_bytes=13 * CHUNK_BYTES))
    engine.write(B, 0, CHUNK_BYTES)
    with pytest.raises(SpaceExhausted):
        engine.write(A, 12 * CHUNK_BYTES, CHUNK_BYTES)
    await engine.call(both())
    with pytest.raises(SpaceExhausted):
        engine.write(A, 0, CHUNK_BYTES)  # it is shared now: it needs space of its own
