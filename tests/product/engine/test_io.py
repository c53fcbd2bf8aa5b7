"""Reading and writing through a session, in every way that data may travel."""

import secrets
import struct
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Target, TargetPut, VolumeList, VolumeResize
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control
from tests.product.engine.initiator import DATA_OUT, NOP_OUT, SCSI, SNACK, TASK_MANAGEMENT, Initiator

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
TEST_UNIT_READY = bytes(6)


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
@pytest.mark.parametrize("immediate", [0, 512, 4096])
def test_what_was_written_is_read(connect: Connect, serve: Serve, digest: str, immediate: int) -> None:
    serve()
    keys = {"HeaderDigest": digest, "DataDigest": digest, "MaxBurstLength": "16384", "MaxRecvDataSegmentLength": "8192"}
    initiator = connect().login(NAME, keys=keys)
    data = secrets.token_bytes(100 * 512)
    answer = initiator.write10(7, data, immediate=immediate)
    assert (answer.opcode, answer.header[3]) == (0x21, 0)
    assert initiator.read10(7, 100) == data
    assert initiator.read10(6, 1) == bytes(512)


def test_unsolicited_data_is_taken_up_to_the_first_burst(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys={"InitialR2T": "No", "FirstBurstLength": "16384"})
    data = secrets.token_bytes(64 * 512)
    tag = initiator.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 64, 0), write=data, immediate=data[:4096], last=False)
    initiator.data_out(tag, 0xFFFFFFFF, 0, 4096, data[4096:8192], last=False)
    initiator.data_out(tag, 0xFFFFFFFF, 1, 8192, data[8192:16384], last=True)
    ask = initiator.receive()
    assert (ask.opcode, ask.word(40), ask.word(44)) == (0x31, 16384, len(data) - 16384)
    initiator.data_out(tag, ask.word(20), 0, 16384, data[16384:], last=True)
    assert initiator.receive().header[3] == 0
    assert initiator.read10(0, 64) == data


def test_more_unsolicited_data_than_agreed_ends_the_session(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys={"InitialR2T": "No", "FirstBurstLength": "512"})
    data = bytes(8192)
    tag = initiator.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 16, 0), write=data, last=False)
    initiator.data_out(tag, 0xFFFFFFFF, 0, 0, data, last=True)
    assert initiator.receive().opcode == 0x3F
    with pytest.raises(ConnectionResetError):
        initiator.receive()


def test_data_with_a_gap_fails_the_command_and_writes_nothing(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    data = secrets.token_bytes(8192)
    tag = initiator.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 16, 0), write=data)
    ask = initiator.receive()
    initiator.data_out(tag, ask.word(20), 5, 0, data, last=True)
    assert initiator.receive().header[3] == 2
    assert initiator.read10(0, 16) == bytes(8192)


def test_residuals_say_what_was_not_moved(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    initiator.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0), read=1000)
    answer = initiator.receive()
    assert (len(answer.data), answer.header[1] & 0x06, answer.word(44)) == (512, 0x02, 488)
    initiator.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 2, 0), read=512)
    answer = initiator.receive()
    assert (len(answer.data), answer.header[1] & 0x06, answer.word(44)) == (512, 0x04, 512)


def test_pings_are_echoed_and_snack_is_rejected(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    initiator.send(initiator.header(NOP_OUT, 0x80), b"are you there?")
    answer = initiator.receive()
    assert (answer.opcode, answer.data) == (0x20, b"are you there?")
    initiator.send(initiator.header(SNACK, 0x80, immediate=True))
    answer = initiator.receive()
    assert (answer.opcode, answer.header[2]) == (0x3F, 0x03)
    initiator.send(initiator.header(0x1C, 0x80, immediate=True))
    assert initiator.receive().header[2] == 0x05
    assert initiator.read10(0, 1) == bytes(512)


def test_commands_outside_the_window_are_ignored(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    number = initiator.cmd_sn
    for wrong in (number - 1, number + 1000):
        initiator.cmd_sn = wrong
        initiator.command(TEST_UNIT_READY)
    initiator.cmd_sn = number
    initiator.command(TEST_UNIT_READY)
    answer = initiator.receive()
    assert (answer.word(16), answer.word(28)) == (initiator.tag, number + 1)


def test_an_aborted_write_is_never_written(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    tag = initiator.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=bytes(4096))
    ask = initiator.receive()
    header = initiator.header(TASK_MANAGEMENT, 0x80 | 1, immediate=True)
    header[20:24] = tag.to_bytes(4, "big")
    initiator.send(header)
    answer = initiator.receive()
    assert (answer.opcode, answer.header[2]) == (0x22, 0)
    initiator.data_out(tag, ask.word(20), 0, 0, b"\xff" * 4096, last=True)
    assert initiator.read10(0, 8) == bytes(4096)


def test_a_reset_by_one_is_told_to_the_other_and_voids_its_write(connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    one, other = connect().login(NAME), connect(name="iqn.2026-01.test:host2").login(NAME)
    tag = other.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=bytes(4096))
    ask = other.receive()
    one.send(one.header(TASK_MANAGEMENT, 0x80 | 5, immediate=True))
    assert one.receive().header[2] == 0
    other.data_out(tag, ask.word(20), 0, 0, b"\xff" * 4096, last=True)
    assert other.status_of(TEST_UNIT_READY) == (2, "6/29/03")
    assert other.status_of(TEST_UNIT_READY) == (0, "")
    assert other.read10(0, 8) == bytes(4096)


def test_refusals_carry_the_right_sense(control: Control, connect: Connect, serve: Serve) -> None:
    target = serve()
    initiator = connect().login(NAME)
    blocks = 64 * MIB // 512
    assert initiator.status_of(struct.pack(">BBIBHB", 0x28, 0, blocks, 0, 1, 0), read=512) == (2, "5/21/00")
    assert initiator.status_of(struct.pack(">BBQIBB", 0x88, 0, 2**64 - 1, 1, 0, 0), read=512) == (2, "5/21/00")
    assert initiator.status_of(b"\xff" + bytes(9)) == (2, "5/20/00")
    assert initiator.status_of(struct.pack(">BBIBHB", 0x28, 0x20, 0, 0, 1, 0), read=512) == (2, "5/24/00")
    control.call(TargetPut(target=Target(volume=VOLUME, name=NAME, online=True, read_only=True, access=[Access()])))
    assert initiator.status_of(TEST_UNIT_READY) == (2, "6/2a/00")
    assert initiator.write10(0, bytes(512), immediate=512).data[4] & 0x0F == 7
    control.call(TargetPut(target=target))


def test_a_resize_is_told_to_the_session(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    control.call(VolumeResize(volume=VOLUME, size_bytes=128 * MIB))
    assert initiator.status_of(TEST_UNIT_READY) == (2, "6/2a/09")
    initiator.command(b"\x25" + bytes(9), read=8)
    assert initiator.receive().data == struct.pack(">II", 128 * MIB // 512 - 1, 512)


def test_other_luns_do_not_exist(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)

    def to_lun_1(cdb: bytes, read: int) -> None:
        header = initiator.header(SCSI, 0xC1)
        header[8:16] = bytes([0, 1, 0, 0, 0, 0, 0, 0])
        header[20:24] = read.to_bytes(4, "big")
        header[32:48] = cdb.ljust(16, b"\0")
        initiator.send(header)

    to_lun_1(TEST_UNIT_READY, 0)
    assert initiator.receive().data[2 + 12] == 0x25
    to_lun_1(bytes([0x12, 0, 0, 0, 36, 0]), 36)
    assert initiator.receive().data[0] == 0x7F


def test_unmap_gives_the_space_back(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    for block in range(0, 8 * MIB // 512, 1024):
        assert initiator.write10(block, b"\xaa" * 1024 * 512).header[3] == 0
    assert initiator.status_of(b"\x35" + bytes(9)) == (0, "")
    used = control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes
    assert used >= 8 * MIB
    parameters = struct.pack(">HHIQII", 22, 16, 0, 0, 8 * MIB // 512, 0)
    initiator.command(struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(parameters), 0), write=parameters, immediate=parameters)
    assert initiator.receive().header[3] == 0
    assert control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes < MIB
    assert initiator.read10(0, 64) == bytes(64 * 512)


def test_data_for_no_command_is_dropped(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    header = bytearray(48)
    header[0], header[1] = DATA_OUT, 0x80
    header[16:20] = (4711).to_bytes(4, "big")
    initiator.send(header, b"\xff" * 512)
    assert initiator.read10(0, 1) == bytes(512)


def test_orwrite_sets_bits_and_leaves_the_others(connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    one, other = connect().login(NAME), connect(name="iqn.2026-01.test:host2").login(NAME)
    one.write10(1, b"\x0f" * 1024, immediate=1024)
    for initiator, bits in ((one, b"\x10"), (other, b"\x20")):
        cdb = struct.pack(">BBQIBB", 0x8B, 0x08, 1, 1, 0, 0)
        initiator.command(cdb, write=bits * 512, immediate=bits * 512)
        assert initiator.receive().header[3] == 0
    assert one.read10(0, 4) == bytes(512) + b"\x3f" * 512 + b"\x0f" * 512 + bytes(512)


def test_software_write_protect_holds_for_all_until_a_reset(connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    one, other = connect().login(NAME), connect(name="iqn.2026-01.test:host2").login(NAME)
    begun = other.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=bytes(4096))
    ask = other.receive()
    one.command(bytes([0x1A, 0x08, 0x0A, 0, 255, 0]), read=255)
    page = bytearray(one.receive().data)
    assert (page[2] & 0x80, page[4], page[8] & 0x08) == (0, 0x0A, 0)
    page[0:4], page[8] = bytes(4), page[8] | 0x08
    one.command(bytes([0x15, 0x10, 0, 0, len(page), 0]), write=bytes(page), immediate=bytes(page))
    assert one.receive().header[3] == 0
    assert one.write10(0, b"\xff" * 512, immediate=512).data[14] == 0x27
    other.data_out(begun, ask.word(20), 0, 0, b"\xff" * 4096, last=True)
    assert other.receive().data[14] == 0x27, "a write under way comes too late as well"
    assert other.status_of(TEST_UNIT_READY) == (2, "6/2a/01")
    one.command(bytes([0x1A, 0x08, 0x0A, 0, 255, 0]), read=255)
    page = bytearray(one.receive().data)
    assert (page[2] & 0x80, page[8] & 0x08) == (0x80, 0x08)
    one.send(one.header(TASK_MANAGEMENT, 0x80 | 5, immediate=True))
    assert one.receive().header[2] == 0
    assert one.status_of(TEST_UNIT_READY) == (2, "6/29/03")
    assert one.read10(0, 8) == bytes(4096)
    assert one.write10(0, b"\x01" * 512, immediate=512).header[3] == 0
