"""Reads and writes of many pages: they take other ways through the engine than short ones, with the same result."""

import contextlib
import secrets
import struct
import threading
from collections.abc import Callable

import msgspec
import pytest

from gespann.seams.engine_socket import SessionList, Target, TargetPut, TargetRemove
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control
from tests.product.engine.initiator import TASK_MANAGEMENT, Initiator

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
BLOCKS = MIB // 512
LONG = {
    "InitialR2T": "No",
    "MaxRecvDataSegmentLength": "262144",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "65536",
}


@pytest.mark.parametrize("header_digest", ["None", "CRC32C"])
@pytest.mark.parametrize("data_digest", ["None", "CRC32C"])
def test_a_megabyte_comes_back_as_it_was_written(
    connect: Connect, serve: Serve, header_digest: str, data_digest: str
) -> None:
    serve()
    initiator = connect().login(NAME, keys=LONG | {"HeaderDigest": header_digest, "DataDigest": data_digest})
    # The digests of the test are slow: less of it then.
    blocks = BLOCKS if data_digest == "None" else BLOCKS // 4
    data = secrets.token_bytes(blocks * 512)
    assert initiator.write10(5, data, immediate=65536).header[3] == 0
    assert initiator.read10(5, blocks) == data
    assert initiator.read10(4, 128) == bytes(512) + data[: 127 * 512]


@pytest.mark.parametrize("segment", ["512", "8192", "65536", "262144", "1048576"])
def test_long_reads_keep_to_the_segment_length_of_the_initiator(connect: Connect, serve: Serve, segment: str) -> None:
    serve()
    initiator = connect().login(NAME, keys=LONG | {"MaxRecvDataSegmentLength": segment})
    data = secrets.token_bytes(MIB)
    initiator.write10(0, data)
    initiator.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, BLOCKS, 0), read=MIB)
    received, numbers = b"", []
    while len(received) < MIB:
        answer = initiator.receive()
        assert len(answer.data) <= int(segment)
        numbers.append(answer.word(36))
        assert (answer.word(40), answer.header[1] & 1) == (len(received), len(received) + len(answer.data) == MIB)
        received += answer.data
    assert received == data
    assert numbers == list(range(len(numbers)))


def test_what_was_never_written_reads_as_zeroes(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys=LONG)
    assert initiator.read10(0, BLOCKS) == bytes(MIB)
    initiator.write10(300, b"\xaa" * 512, immediate=512)
    expected = bytearray(MIB)
    expected[300 * 512 : 301 * 512] = b"\xaa" * 512
    assert initiator.read10(0, BLOCKS) == expected
    end = 64 * BLOCKS
    assert initiator.read10(end - BLOCKS, BLOCKS) == bytes(MIB)
    assert initiator.status_of(struct.pack(">BBIBHB", 0x28, 0, end - BLOCKS + 1, 0, BLOCKS, 0), read=MIB) == (
        2,
        "5/21/00",
    )


def test_residuals_of_long_reads(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys=LONG)
    data = secrets.token_bytes(128 * 512)
    initiator.write10(0, data)
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 128, 0)
    for expected in (65535, 40001, 40000, 65536 + 512):
        initiator.command(cdb, read=expected)
        answer = initiator.receive()
        flag = 0x02 if expected > 65536 else 0x04
        assert answer.opcode == 0x25, answer.header.hex()
        assert answer.data == data[:expected], expected
        assert (answer.header[1] & 0x06, answer.word(44)) == (flag, abs(65536 - expected))


def test_long_and_short_commands_are_answered_in_order(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys=LONG)
    data = secrets.token_bytes(MIB)
    initiator.write10(0, data)
    sizes = [1, 8, 512, 1, 128, 2048, 3, 64]
    tags = [initiator.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, blocks, 0), read=blocks * 512) for blocks in sizes]
    numbers = []
    for tag, blocks in zip(tags, sizes, strict=True):
        received = b""
        while len(received) < blocks * 512:
            answer = initiator.receive()
            assert answer.word(16) == tag
            received += answer.data
        assert received == data[: blocks * 512]
        numbers.append(answer.word(24))
    assert numbers == list(range(numbers[0], numbers[0] + len(sizes))), "one status number a command"


def test_an_initiator_that_leaves_in_the_middle_of_a_long_transfer(
    control: Control, connect: Connect, serve: Serve
) -> None:
    serve(multihost=True)
    before = connect(name="iqn.2026-01.test:steady").login(NAME, keys=LONG)
    data = secrets.token_bytes(MIB)
    before.write10(0, data)
    for _ in range(3):
        leaver = connect(name="iqn.2026-01.test:leaver").login(NAME, keys=LONG)
        for _ in range(32):  # far more than any socket buffer holds
            leaver.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, BLOCKS, 0), read=MIB)
        assert leaver.receive().data
        leaver.close()
    for part in (1, 100_000):
        leaver = connect(name="iqn.2026-01.test:leaver").login(NAME, keys=LONG)
        tag = leaver.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, BLOCKS, 0), write=bytes(MIB))
        ask = leaver.receive()
        header = bytearray(48)
        header[0], header[1], header[5:8] = 0x05, 0, (262144).to_bytes(3, "big")
        header[16:20], header[20:24] = tag.to_bytes(4, "big"), ask.header[20:24]
        leaver.socket.sendall(bytes(header) + bytes(part))
        leaver.close()
    assert before.read10(0, BLOCKS) == data, "of a PDU that did not come whole nothing is written"
    while len(control.call(SessionList()).sessions) > 1:
        before.read10(0, 1)


class SlowWrite:
    """A write of 1 MiB whose first half was sent with the command and for its R2T; the rest is sent when told."""

    def __init__(self, initiator: Initiator, lba: int, data: bytes) -> None:
        self.initiator, self.data = initiator, data
        cdb = struct.pack(">BBIBHB", 0x2A, 0, lba, 0, BLOCKS, 0)
        self.tag = initiator.command(cdb, write=data, immediate=data[: MIB // 4])
        self.transfer_tag = initiator.receive().word(20)
        self._send(0, MIB // 4)

    def _send(self, sn: int, at: int) -> None:
        piece, last = self.data[at : at + MIB // 4], at + MIB // 4 == MIB
        self.initiator.data_out(self.tag, self.transfer_tag, sn, at, piece, last=last)

    def send_rest(self) -> None:
        self._send(1, MIB // 2)
        self._send(2, MIB * 3 // 4)


WHOLE = LONG | {"FirstBurstLength": "262144"}
NEW = b"\xbb" * MIB


def wait_until_half_is_there(watcher: Initiator) -> None:
    while watcher.read10(BLOCKS // 2 - 1, 1) != NEW[:512]:
        pass


def check_only_half_is_there(watcher: Initiator) -> None:
    assert watcher.read10(0, BLOCKS) == NEW[: MIB // 2] + bytes(MIB // 2)


def test_a_long_write_ends_with_the_lease_in_the_middle_of_it(control: Control, connect: Connect, serve: Serve) -> None:
    target = serve(multihost=True)
    old = connect(name="iqn.2026-01.test:old").login(NAME, keys=WHOLE)
    watcher = connect(name="iqn.2026-01.test:watcher").login(NAME, keys=WHOLE)
    write = SlowWrite(old, 0, NEW)
    wait_until_half_is_there(watcher)
    control.call(TargetPut(target=msgspec.structs.replace(target, generation=target.generation + 1)))
    watcher = connect(name="iqn.2026-01.test:next").login(NAME, keys=WHOLE)
    with contextlib.suppress(OSError):
        write.send_rest()
    with contextlib.suppress(ConnectionResetError):
        assert not old.receive(), "there is no answer"
    check_only_half_is_there(watcher)


def test_a_reset_in_the_middle_of_a_long_write(connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    writer = connect(name="iqn.2026-01.test:writer").login(NAME, keys=WHOLE)
    watcher = connect(name="iqn.2026-01.test:watcher").login(NAME, keys=WHOLE)
    write = SlowWrite(writer, 0, NEW)
    wait_until_half_is_there(watcher)
    watcher.send(watcher.header(TASK_MANAGEMENT, 0x80 | 5))
    assert watcher.receive().header[2] == 0, "the reset of the unit is complete"
    write.send_rest()
    ready = writer.status_of(bytes(6))
    assert ready == (2, "6/29/03"), "the write was aborted without an answer, and the session goes on"
    assert watcher.status_of(bytes(6)) == (2, "6/29/03")
    check_only_half_is_there(watcher)
    assert writer.write10(0, NEW, immediate=65536).header[3] == 0
    assert watcher.read10(0, BLOCKS) == NEW


def test_a_long_write_that_loses_its_right_in_the_middle_says_so_at_its_end(
    control: Control, connect: Connect, serve: Serve
) -> None:
    target = serve(multihost=True)
    writer = connect(name="iqn.2026-01.test:writer").login(NAME, keys=WHOLE)
    watcher = connect(name="iqn.2026-01.test:watcher").login(NAME, keys=WHOLE)
    write = SlowWrite(writer, 0, NEW)
    wait_until_half_is_there(watcher)
    assert watcher.status_of(bytes([0x16, 0, 0, 0, 0, 0])) == (0, ""), "RESERVE"
    write.send_rest()
    assert writer.receive().header[3] == 0x18, "RESERVATION CONFLICT"
    check_only_half_is_there(watcher)
    assert watcher.status_of(bytes([0x17, 0, 0, 0, 0, 0])) == (0, ""), "RELEASE"
    write = SlowWrite(writer, BLOCKS, NEW)
    control.call(TargetPut(target=msgspec.structs.replace(target, read_only=True)))
    write.send_rest()
    answer = writer.receive()
    assert (answer.header[3], answer.data[4] & 0xF, answer.data[14]) == (2, 7, 0x27), "write protected"


def test_a_drop_ends_a_long_read_that_nobody_takes(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    stuck = connect().login(NAME, keys=LONG)
    stuck.write10(0, secrets.token_bytes(MIB))
    for _ in range(64):
        stuck.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, BLOCKS, 0), read=MIB)
    assert stuck.receive().data
    # Nothing of it is under way on the volume: taking it away has not to wait for the initiator.
    control.call(TargetRemove(volume=VOLUME))
    while control.call(SessionList()).sessions:
        pass
    with contextlib.suppress(ConnectionResetError):
        while stuck.receive().data:
            pass


def test_two_sessions_with_long_transfers_do_not_mix(connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    wrong: list[str] = []

    def use(number: int) -> None:
        initiator = initiators[number]
        for turn in range(8):
            data = bytes([number * 16 + turn]) * MIB
            initiator.write10((2 * turn + number) * BLOCKS, data, immediate=65536)
            if initiator.read10((2 * turn + number) * BLOCKS, BLOCKS) != data:
                wrong.append(f"session {number}, turn {turn}")

    initiators = [connect(name=f"iqn.2026-01.test:{number}").login(NAME, keys=LONG) for number in range(2)]
    threads = [threading.Thread(target=use, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for turn in range(8):
        assert initiators[0].read10((2 * turn + 1) * BLOCKS, 1) == bytes([16 + turn]) * 512
