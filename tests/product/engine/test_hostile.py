"""Initiators that mean harm, on real sockets: the engine stays up, others are served, memory stays bounded."""

import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Access, Configure, SessionList, Target, VolumeCreate
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import EngineProcess
from tests.product.engine.initiator import (
    LOGOUT,
    NOP_OUT,
    RESERVED,
    SCSI,
    SNACK,
    TASK_MANAGEMENT,
    Initiator,
    Patient,
)
from tests.product.engine.test_limits import no_more_than, threads_and_descriptors, wait_until

pytestmark = pytest.mark.engine
READ_10 = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0)
LUN_RESET, ABORT_TASK, COLD_RESET = 5, 1, 7
HOST = "iqn.2026-01.test:good"


def memory_bytes(engine: EngineProcess, line: str = "VmRSS") -> int:
    """As the kernel counts it; ``VmHWM`` is the most that it ever was."""
    assert engine.process is not None
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return next(int(text.split()[1]) * 1024 for text in status.splitlines() if text.startswith(line))


class Site:
    """An engine that serves one volume to everybody, and one initiator that is to notice nothing."""

    def __init__(self, engine: EngineProcess, *options: str) -> None:
        engine.options += ["--log-level", "info", *options]
        self.engine, self.control = engine, engine.start()
        self.control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB))
        target = Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=[Access()])
        self.control.call(Configure(targets=[target], chap_users=[]))
        self.opened: list[Initiator] = []
        self.good = Patient(engine.port, name=HOST, source="127.0.0.2")
        self.opened.append(self.good)
        self.good.login(NAME)
        self.round = 0
        self.quiet_bytes = memory_bytes(engine)

    def connect(self, **fields: str) -> Initiator:
        self.opened.append(Initiator(self.engine.port, **fields))  # type: ignore[arg-type]
        return self.opened[-1]

    def bad(self, **keys: str) -> Initiator:
        return self.connect().login(NAME, keys=keys)

    def close(self) -> None:
        for initiator in self.opened:
            initiator.close()
        self.control.close()

    def check(self) -> None:
        """The good session writes and reads its own block, as if nothing were."""
        self.round += 1
        block = self.round.to_bytes(4, "big") * 128
        while self.good.status_of(bytes(6))[0] == 2:
            pass  # told of a reset by another, once each
        assert self.good.write10(1000, block, immediate=512).header[3] == 0
        assert self.good.read10(1000, 1) == block
        assert self.engine.process is not None
        assert self.engine.process.poll() is None
        assert "panicked" not in self.engine.log.read_text()

    def grown_bytes(self) -> int:
        return memory_bytes(self.engine, "VmHWM") - self.quiet_bytes


@pytest.fixture
def site(engine: EngineProcess) -> Iterator[Site]:
    made = Site(engine)
    yield made
    made.close()


def ended(initiator: Initiator) -> bool:
    """Closed by the engine, whatever it said before."""
    try:
        while True:
            initiator.receive()
    except OSError:
        return True


def send_until_full(initiator: Initiator, piece: bytes, limit: int) -> int:
    """Sends without ever reading, until nothing more is taken; how many bytes went."""
    initiator.socket.settimeout(0.5)
    sent = 0
    with contextlib.suppress(OSError):
        while sent < limit:
            sent += initiator.socket.send(piece)
    return sent


def nop_out(cmd_sn: int, data: bytes = b"") -> bytes:
    header = bytearray(48)
    header[0], header[1] = NOP_OUT | 0x40, 0x80
    header[5:8] = len(data).to_bytes(3, "big")
    header[16:20] = (7).to_bytes(4, "big")
    header[20:24] = RESERVED.to_bytes(4, "big")
    header[24:28] = cmd_sn.to_bytes(4, "big")
    return bytes(header) + data + bytes(-len(data) % 4)


def test_a_slow_sender_is_served_in_the_end(site: Site) -> None:
    slow = site.bad()
    header = slow.header(SCSI, 0xC1)
    header[20:24] = (512).to_bytes(4, "big")
    header[32:42] = READ_10
    for byte in bytes(header):
        slow.socket.sendall(bytes([byte]))
    answer = slow.receive()
    assert (answer.opcode, len(answer.data)) == (0x25, 512)
    site.check()


def test_half_a_pdu_holds_nothing_up_and_is_given_up(engine: EngineProcess) -> None:
    site = Site(engine, "--ping-after", "1", "--missed-pings", "5")  # the good one answers within 5 s
    whole = nop_out(1, bytes(8192))
    halves = [site.bad() for _ in range(20)]
    for index, half in enumerate(halves):
        half.socket.sendall(whole[: 1 + index * 400])
    site.check()

    def alone() -> bool:
        site.check()
        return len(site.control.call(SessionList()).sessions) == 1

    assert wait_until(alone), "silent in the middle of a PDU: no ping can be answered"
    assert all(ended(half) for half in halves)
    site.close()


def test_a_flood_of_nop_outs_that_are_never_read(site: Site) -> None:
    floods = [site.bad(MaxRecvDataSegmentLength="262144") for _ in range(8)]
    pieces = [nop_out(1) * 1000, nop_out(1, bytes(200_000))]
    for index, flood in enumerate(floods):
        assert send_until_full(flood, pieces[index % 2], 64 * MIB) < 64 * MIB, "taken for ever, answers and all"
        site.check()
    assert site.grown_bytes() < 8 * 4 * MIB


def test_a_flood_of_task_management(site: Site) -> None:
    flood = site.bad()
    for function in (LUN_RESET, ABORT_TASK, 2, 4, 99):
        for _ in range(20):
            for _ in range(50):
                flood.send(flood.header(TASK_MANAGEMENT, 0x80 | function, immediate=True))
            assert [flood.receive().opcode for _ in range(50)] == [0x22] * 50
            site.check()
    assert site.grown_bytes() < 8 * MIB


def test_thousands_of_connections_from_one_address(site: Site) -> None:
    before = threads_and_descriptors(site.engine)
    with contextlib.ExitStack() as crowd:
        for _ in range(3000):
            crowd.enter_context(socket.create_connection(("127.0.0.1", site.engine.port), timeout=120))
        site.check()
        assert threads_and_descriptors(site.engine)[0] <= before[0] + 128
        with contextlib.closing(Initiator(site.engine.port, source="127.0.0.3")) as another:
            assert another.login(NAME).read10(0, 1) == bytes(512)
    assert wait_until(lambda: no_more_than(before, site.engine))
    site.check()
    assert site.grown_bytes() < 32 * MIB


def test_write_data_that_never_ends_takes_no_more_than_there_is_for_it(engine: EngineProcess) -> None:
    """Sixteen sessions send 10 MiB each of commands that they never complete."""
    site = Site(engine, "--write-data", "32", "--data-timeout", "1", "--ping-after", "1", "--missed-pings", "1000")
    keys = {"InitialR2T": "No", "FirstBurstLength": "262144"}
    for _ in range(16):
        bad = site.bad(**keys)
        with contextlib.suppress(OSError):
            for _ in range(40):
                tag = bad.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1024, 0), write=bytes(1024 * 512), last=False)
                bad.data_out(tag, RESERVED, 0, 0, bytes(261_632), last=False)
    site.check()
    assert site.grown_bytes() < 32 * MIB + 16 * MIB  # the budget, and a megabyte for the buffers of each session
    # One that has to wait for room gets it: the others are dropped for holding it.
    other = Patient(engine.port)
    other.login(NAME)
    answer = other.write10(0, b"\x07" * (4 * MIB))
    assert (answer.opcode, answer.header[3]) == (0x21, 0)
    other.close()
    site.close()


@pytest.mark.parametrize("wrong", ["header", "data"])
def test_a_wrong_digest_ends_its_session(site: Site, wrong: str) -> None:
    bad = site.bad(HeaderDigest="CRC32C", DataDigest="CRC32C")
    assert bad.read10(0, 1) == bytes(512)
    bad.header_digest, bad.data_digest = wrong != "header", wrong != "data"
    header = bad.header(NOP_OUT, 0x80, immediate=True)
    bad.send(header, b"ping" + bytes(8))
    if wrong == "header":  # what comes next stands where the digest should be
        assert ended(bad)
    else:
        bad.socket.sendall(b"\xff" * 4)
        bad.data_digest = True
        reject = bad.receive()
        assert (reject.opcode, reject.header[2]) == (0x3F, 0x02)
        assert reject.data[:24] == bytes(header)[:24]
        assert ended(bad)
    site.check()


def test_command_numbers_out_of_the_window_are_ignored(site: Site) -> None:
    bad = site.bad()
    expected = bad.cmd_sn
    for number in (expected - 1, expected + 128, expected + (1 << 31), expected - 128):
        bad.cmd_sn = number % (1 << 32)
        bad.command(READ_10, read=512)
    bad.cmd_sn = expected
    assert bad.read10(0, 1) == bytes(512), "the first answer there is"
    bad.cmd_sn += 1
    bad.command(READ_10, read=512)
    assert ended(bad), "a number left out"
    site.check()


def test_command_numbers_come_round(site: Site) -> None:
    bad = site.connect()
    bad.cmd_sn = 0xFFFFFFFE
    bad.login(NAME)
    for _ in range(6):
        assert bad.read10(0, 1) == bytes(512)
        bad.cmd_sn %= 1 << 32
    assert bad.cmd_sn == 4
    site.check()


def test_data_and_requests_that_belong_to_nothing(site: Site) -> None:
    bad = site.bad()
    for transfer_tag in (0, 1, RESERVED):
        for tag in (0, 77, RESERVED):
            bad.data_out(tag, transfer_tag, 5, 0xFFFFFFFF, bytes(8192), last=True)
    assert bad.read10(0, 1) == bytes(512), "data for no command is dropped without a word"
    for _ in range(200):
        bad.send(bad.header(SNACK, 0x80, immediate=True))
    assert {(bad.receive().opcode) for _ in range(200)} == {0x3F}
    bad.send(bad.header(LOGOUT, 0x80))
    assert bad.receive().opcode == 0x26
    site.check()


def test_initiators_at_random(site: Site) -> None:
    """Each does a few things of the above at once, and leaves as it likes. All but a cold reset: that one ends the
    sessions of everybody at its target (RFC 7143 11.5.1), the good one as well."""
    chance = random.Random(20261122)
    for number in range(120):
        bad = site.connect(name=f"iqn.2026-01.test:bad{number}").login(NAME, keys={"InitialR2T": "No"})
        pdus = [random_pdu(bad, chance) for _ in range(chance.randrange(12))]  # the same ones, wherever it is cut off
        with contextlib.suppress(OSError):
            for header, data in pdus:
                bad.send(header, data)
        if chance.random() < 0.5:
            bad.close()
    site.check()
    assert site.grown_bytes() < 64 * MIB


def random_pdu(bad: Initiator, chance: random.Random) -> tuple[bytearray, bytes]:
    opcode = chance.choice([NOP_OUT, SCSI, TASK_MANAGEMENT, 0x04, 0x05, SNACK, 0x3F])
    flags = chance.randrange(256)
    if opcode == TASK_MANAGEMENT and flags & 0x7F == COLD_RESET:
        flags ^= COLD_RESET
    header = bad.header(opcode, flags, immediate=chance.random() < 0.3)
    header[8:16] = bytes(8)
    header[32:48] = bytes([chance.choice([0x28, 0x2A, 0x42, 0x15, 0x5F, 0x89, 0x41, 0x5E])]) + bytes(15)
    header[36] = chance.randrange(4)
    header[40] = chance.randrange(20)
    return header, chance.randbytes(chance.choice([0, 0, 24, 512, 5000]))
