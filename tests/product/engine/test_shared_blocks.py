"""What copies inside the array take, and which blocks a volume says it has: over iSCSI, and on the disk below."""

import secrets
import struct
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import (
    Access,
    Configure,
    SharePair,
    Space,
    Target,
    VolumeCreate,
    VolumeSnapshot,
    VolumeUsage,
)
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.extended_copy import copy_list, extended_copy, send
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
OTHER, OTHER_NAME = "6090a028a030f846d8d6546fbd0130c6", "iqn.2026-01.test:other"
SYNCHRONIZE_CACHE = b"\x35" + bytes(9)
SIZE = 64 * MIB
CHUNK = 128  # blocks: what volumes share is counted in 64 KiB
PAGE = 8  # blocks: what a file system keeps is counted in 4 KiB
COPIED = 16 * MIB
MAPPED, DEALLOCATED = 0, 1


def configure(control: Control) -> None:
    names = {VOLUME: NAME, OTHER: OTHER_NAME}
    targets = [Target(volume=volume, name=name, online=True, access=[Access()]) for volume, name in names.items()]
    control.call(Configure(targets=targets, chap_users=[]))


@pytest.fixture
def pair(control: Control, connect: Connect) -> tuple[Initiator, Initiator]:
    """Sessions of one initiator on both volumes, the first of which has data."""
    control.call(VolumeCreate(volume=OTHER, size_bytes=SIZE))
    configure(control)
    one = connect().login(NAME)
    return one, connect(name=one.name).login(OTHER_NAME)


def flush(*sessions: Initiator) -> None:
    for session in sessions:
        assert session.status_of(SYNCHRONIZE_CACHE) == (0, "")


def on_disk(engine: EngineProcess) -> int:
    """What the volumes' files occupy, in bytes, as ``du`` counts."""
    return sum(file.stat().st_blocks * 512 for file in (engine.data / "volumes").iterdir())


def usage(control: Control, volume: str) -> tuple[int, int]:
    reply = control.call(VolumeUsage(volume=volume))
    return reply.mapped_bytes, reply.exclusive_bytes


def copy(session: Initiator, target_lba: int = 0) -> None:
    """16 MiB of the first volume onto the other one, in two segments: a segment has room for 65,535 blocks."""
    half = COPIED // 2 // 512
    for at in (0, half):
        parameters = copy_list(VOLUME, OTHER, half, at, target_lba + at)
        assert extended_copy(session, parameters) == (0, "")


def test_a_copy_of_whole_chunks_takes_no_space(
    engine: EngineProcess, control: Control, pair: tuple[Initiator, Initiator]
) -> None:
    one, other = pair
    data = secrets.token_bytes(COPIED)
    for at in range(0, COPIED, MIB):
        assert one.write10(at // 512, data[at : at + MIB]).header[3] == 0
    flush(one, other)
    used, space = on_disk(engine), control.call(Space()).used_bytes
    assert COPIED <= used < COPIED + MIB
    assert (usage(control, VOLUME), usage(control, OTHER)) == ((COPIED, COPIED), (0, 0))
    copy(one)
    flush(one, other)
    assert (on_disk(engine), control.call(Space()).used_bytes) == (used, space), "not a byte more"
    assert (usage(control, VOLUME), usage(control, OTHER)) == ((COPIED, 0), (COPIED, 0)), "all of it is both's"
    # What one of them changes is its own from then on, and no more than that is taken.
    assert other.write10(0, b"\x11" * 4096).header[3] == 0
    flush(other)
    assert 4096 <= on_disk(engine) - used <= 65536
    assert other.read10(0, 128) == b"\x11" * 4096 + data[4096:65536]
    assert one.read10(0, 128) == data[:65536]
    # Copied to a place that does not lie alike within its chunks it is written, and takes what it is.
    copy(one, target_lba=COPIED // 512 + PAGE)
    flush(other)
    assert on_disk(engine) - used >= COPIED
    assert other.read10(COPIED // 512 + PAGE, 2048) == data[:MIB]


def provisioning(session: Initiator, blocks: int) -> list[tuple[int, int]]:
    """All that GET LBA STATUS (SBC-3 5.6) tells: where each run ends and what it is, neighbours put together."""
    runs: list[tuple[int, int]] = []
    at = 0
    while at < blocks:
        session.command(struct.pack(">BBQIBB", 0x9E, 0x12, at, 8 + 3 * 16, 0, 0), read=8 + 3 * 16)
        answer = session.receive().data
        assert int.from_bytes(answer[:4], "big") == len(answer) - 4
        for start in range(8, len(answer), 16):
            lba, count, status = struct.unpack(">QIB", answer[start : start + 13])
            assert (lba, count > 0) == (at, True), "the runs follow each other without a gap"
            at = lba + count
            if runs and runs[-1][1] == status:
                runs.pop()
            runs.append((at, status))
    return runs


def unmap(session: Initiator, lba: int, blocks: int) -> None:
    parameters = struct.pack(">HHIQII", 22, 16, 0, lba, blocks, 0)
    assert send(session, struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(parameters), 0), parameters) == (0, "")


def mapped(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    """As ``provisioning`` tells it: these ranges of blocks, rising and apart, and nothing else."""
    runs: list[tuple[int, int]] = []
    for start, end in ranges:
        runs += [(start, DEALLOCATED)] * (start > 0) + [(end, MAPPED)]
    return [*runs, (SIZE // 512, DEALLOCATED)]


def test_which_blocks_are_mapped_is_told_truly(control: Control, pair: tuple[Initiator, Initiator]) -> None:
    one, _ = pair
    blocks = SIZE // 512
    assert provisioning(one, blocks) == [(blocks, DEALLOCATED)]
    one.write10(2 * CHUNK, b"\x01" * 3 * CHUNK * 512)
    one.write10(10 * CHUNK + PAGE, b"\x02" * PAGE * 512)
    page = (10 * CHUNK + PAGE, 10 * CHUNK + 2 * PAGE)
    assert provisioning(one, blocks) == mapped((2 * CHUNK, 5 * CHUNK), page)
    unmap(one, 3 * CHUNK, CHUNK // 2)
    holed = mapped((2 * CHUNK, 3 * CHUNK), (3 * CHUNK + CHUNK // 2, 5 * CHUNK), page)
    assert provisioning(one, blocks) == holed
    flush(one)
    assert provisioning(one, blocks) == holed


def test_which_blocks_are_mapped_is_told_truly_after_a_snapshot(
    control: Control, pair: tuple[Initiator, Initiator], connect: Connect
) -> None:
    one, _ = pair
    blocks = SIZE // 512
    one.write10(2 * CHUNK, b"\x01" * 3 * CHUNK * 512)
    snapshot = "6090a028a030f846d8d6546fbd0130c7"
    control.call(VolumeSnapshot(pairs=[SharePair(source=VOLUME, volume=snapshot)]))
    served = Target(volume=snapshot, name="iqn.2026-01.test:snapshot", online=True, read_only=True, access=[Access()])
    targets = [Target(volume=VOLUME, name=NAME, online=True, access=[Access()]), served]
    control.call(Configure(targets=targets, chap_users=[]))
    of_snapshot = connect().login(served.name)
    before = mapped((2 * CHUNK, 5 * CHUNK))
    assert provisioning(one, blocks) == provisioning(of_snapshot, blocks) == before
    one.write10(2 * CHUNK + PAGE, b"\x03" * PAGE * 512)  # of a shared chunk one page elsewhere: no hole in between
    assert provisioning(one, blocks) == before
    one.write10(20 * CHUNK, b"\x04" * PAGE * 512)
    unmap(one, 3 * CHUNK, CHUNK)
    now = mapped((2 * CHUNK, 3 * CHUNK), (4 * CHUNK, 5 * CHUNK), (20 * CHUNK, 20 * CHUNK + PAGE))
    assert provisioning(one, blocks) == now
    flush(one)
    assert provisioning(one, blocks) == now
    assert provisioning(of_snapshot, blocks) == before, "the snapshot has what it had"
    # What is said to be a hole reads as zeroes, and what is not zero is not said to be one.
    start = 0
    for end, status in now:
        for at in range(start, end, 2048):
            data = one.read10(at, min(2048, end - at))
            assert (status == DEALLOCATED) == (data == bytes(len(data)))
        start = end
