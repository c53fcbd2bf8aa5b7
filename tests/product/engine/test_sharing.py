"""Snapshots, rolling back, differences and what is shared: the same promises of the real engine and of the fake one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.seams import engine_socket as seam
from gespann.seams.json_lines import SeamError
from tests.product.engine.engine_process import EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine

CHUNK = 64 * 1024
SIZE = 16 << 20
A, B, SNAP_A, SNAP_B, THIRD = (f"6090a028a030f846d8d6546fbd0130c{digit}" for digit in "01234")


class Fake:
    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.call(seam.Configure(targets=[], chap_users=[]))

    def call(self, request: seam.Request) -> Any:
        return asyncio.run(self.engine.call(request))

    def write(self, volume: str, chunk: int, chunks: int = 1) -> None:
        self.engine.write(volume, chunk * CHUNK, chunks * CHUNK)


class Real:
    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        self.control = process.start()
        self.call(seam.Configure(targets=[], chap_users=[]))

    def call(self, request: seam.Request) -> Any:
        return self.control.call(request)

    def write(self, volume: str, chunk: int, chunks: int = 1) -> None:
        """Through a session of its own, so that none is left."""
        self.call(seam.TargetPut(target=target(volume, online=True)))
        initiator = Initiator(self.process.port).login(target(volume).name)
        for at in range(chunk, chunk + chunks):
            assert initiator.write10(at * CHUNK // 512, bytes([at % 255 + 1]) * CHUNK).header[3] == 0
        initiator.close()
        self.call(seam.TargetRemove(volume=volume))
        self.call(seam.VolumeDrain(volume=volume))


def target(volume: str, online: bool = False) -> seam.Target:
    return seam.Target(volume=volume, name=f"iqn.2026-01.test:{volume}", online=online, access=[seam.Access()])


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest, engine_path: Path, tmp_path: Path) -> Iterator[Fake | Real]:
    if request.param == "fake":
        made: Fake | Real = Fake()
        make_volumes(made)
        yield made
        return
    process = EngineProcess(engine_path, tmp_path)
    made = Real(process)
    make_volumes(made)
    yield made
    made.control.close()
    process.stop()


def make_volumes(either: Fake | Real) -> None:
    for volume in (A, B):
        either.call(seam.VolumeCreate(volume=volume, size_bytes=SIZE))
    either.write(A, 0, 10)


def snapshot(**pairs: str) -> seam.VolumeSnapshot:
    wanted = pairs or {A: SNAP_A, B: SNAP_B}
    return seam.VolumeSnapshot(pairs=[seam.SharePair(source=source, volume=new) for source, new in wanted.items()])


def refused(either: Fake | Real, request: seam.Request) -> str:
    with pytest.raises(SeamError) as caught:
        either.call(request)
    return caught.value.code


def added(either: Fake | Real, volume: str, *than: str) -> int:
    return int(either.call(seam.VolumeAdded(volume=volume, than=list(than))).added_bytes) // CHUNK


def usage(either: Fake | Real, volume: str) -> tuple[int, int]:
    reply = either.call(seam.VolumeUsage(volume=volume))
    return reply.mapped_bytes // CHUNK, reply.exclusive_bytes // CHUNK


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def differences(either: Fake | Real, older: str, newer: str) -> list[tuple[int, int]]:
    reply = either.call(seam.VolumeDiff(older=older, newer=newer))
    assert reply.next_offset is None
    return [(extent.offset // CHUNK, extent.length // CHUNK) for extent in reply.extents]


def test_all_of_them_or_none_and_repeatable(either):
    reply = either.call(snapshot())
    assert [(info.volume, info.origin, info.size_bytes) for info in reply.volumes] == [
        (SNAP_A, A, SIZE),
        (SNAP_B, B, SIZE),
    ]
    either.write(A, 0)
    again = either.call(snapshot())
    assert [info.volume for info in again.volumes] == [SNAP_A, SNAP_B]
    assert differences(either, SNAP_A, A) == [(0, 1)]
    either.call(seam.VolumeDelete(volume=SNAP_B))
    assert refused(either, snapshot()) == "EXISTS"
    assert refused(either, seam.VolumeList(volume=SNAP_B)) == "NOT_FOUND"
    assert refused(either, snapshot(**{A: THIRD, "6090a028a030f846d8d6546fbd0130cf": SNAP_B})) == "NOT_FOUND"
    assert refused(either, seam.VolumeList(volume=THIRD)) == "NOT_FOUND"


def test_nonsense_is_refused(either):
    twice = [seam.SharePair(source=A, volume=SNAP_A), seam.SharePair(source=B, volume=SNAP_A)]
    assert refused(either, seam.VolumeSnapshot(pairs=twice)) == "BAD_REQUEST"
    assert refused(either, seam.VolumeSnapshot(pairs=[])) == "BAD_REQUEST"
    assert refused(either, snapshot(**{A: B, B: SNAP_B})) == "BAD_REQUEST"
    assert refused(either, seam.VolumeDiff(older=A, newer=B, limit=0)) == "BAD_REQUEST"
    assert refused(either, seam.VolumeUsage(volume=THIRD)) == "NOT_FOUND"
    assert refused(either, seam.VolumeAdded(volume=A, than=[THIRD])) == "NOT_FOUND"
    assert refused(either, seam.VolumeRollback(volume=THIRD, source=A)) == "NOT_FOUND"
    assert refused(either, seam.VolumeLimit(volume=THIRD, max_in_use_bytes=1)) == "NOT_FOUND"


def test_what_each_has_of_its_own(either):
    either.call(snapshot())
    assert (added(either, A), added(either, A, SNAP_A)) == (10, 0)
    either.write(A, 5, 10)
    assert (added(either, A), added(either, A, SNAP_A), added(either, SNAP_A, A)) == (15, 10, 5)
    either.call(snapshot(**{A: THIRD}))
    either.write(A, 0, 2)
    assert added(either, A, SNAP_A, THIRD) == 2
    assert added(either, A, THIRD, SNAP_A) == 2
    either.write(SNAP_A, 14, 3)
    assert added(either, SNAP_A, THIRD) == 5 + 3
    until(lambda: usage(either, SNAP_A) == (13, 8))  # what A has let go is given up in the background


def test_differences_in_pages(either):
    either.call(snapshot())
    for chunk in (3, 4, 20, 255):
        either.write(A, chunk)
    first = either.call(seam.VolumeDiff(older=SNAP_A, newer=A, limit=2))
    assert len(first.extents) == 2
    rest = either.call(seam.VolumeDiff(older=SNAP_A, newer=A, offset=first.next_offset, limit=100))
    runs = [(extent.offset // CHUNK, extent.length // CHUNK) for extent in first.extents + rest.extents]
    assert runs == [(3, 2), (20, 1), (255, 1)]
    assert rest.next_offset is None


def test_rolled_back_only_while_nobody_can_write(either):
    either.call(snapshot())
    either.write(A, 0, 20)
    either.call(seam.VolumeResize(volume=A, size_bytes=2 * SIZE))
    either.call(seam.TargetPut(target=target(A, online=True)))
    assert refused(either, seam.VolumeRollback(volume=A, source=SNAP_A)) == "BUSY"
    either.call(seam.TargetPut(target=target(A)))
    for _ in range(2):
        info = either.call(seam.VolumeRollback(volume=A, source=SNAP_A))
        assert (info.size_bytes, info.origin) == (SIZE, None)
        assert differences(either, SNAP_A, A) == []
    assert refused(either, seam.VolumeRollback(volume=A, source=THIRD)) == "NOT_FOUND"
    either.call(seam.TargetRemove(volume=A))
    either.write(A, 1)
    assert differences(either, SNAP_A, A) == [(1, 1)]


def test_space_counts_once_what_is_shared(either):
    before = either.call(seam.Space()).used_bytes
    either.call(snapshot())
    assert abs(either.call(seam.Space()).used_bytes - before) < CHUNK
    either.call(seam.SpaceLimit(limit_bytes=1 << 40, warn_percent=80))
    assert either.call(seam.Space()).limit_bytes == 1 << 40
    either.call(seam.SpaceLimit())
    assert either.call(seam.Space()).limit_bytes is None
