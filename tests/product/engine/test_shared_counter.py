"""COMPARE AND WRITE between sessions: many initiators count on one block, and no increment is lost."""

import random
import struct
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Target
from tests.product.engine.conftest import NAME
from tests.product.engine.initiator import SCSI, Initiator

pytestmark = pytest.mark.engine

INITIATORS = 16
INCREMENTS = 100_000
BATCH = 96
COMPARE_AND_WRITE = struct.pack(">BBQIBB", 0x89, 0, 0, 1, 0, 0)
READ = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0)


def block(value: int) -> bytes:
    return value.to_bytes(8, "big").ljust(512, b"\0")


def request(initiator: Initiator, flags: int, length: int, cdb: bytes, data: bytes = b"") -> bytes:
    """One SCSI command as bytes, so that many leave with one call."""
    header = initiator.header(SCSI, 0x80 | flags | 0x01)
    header[5:8] = len(data).to_bytes(3, "big")
    header[20:24] = length.to_bytes(4, "big")
    header[32:48] = cdb.ljust(16, b"\0")
    return bytes(header) + data


def send_increments(initiator: Initiator, present: int) -> None:
    """Steps from the value it believes to be there, and a read of what is there then."""
    steps = range(present, present + BATCH)
    sent = [request(initiator, 0x20, 1024, COMPARE_AND_WRITE, block(value) + block(value + 1)) for value in steps]
    initiator.socket.sendall(b"".join([*sent, request(initiator, 0x40, 512, READ)]))


def receive_increments(initiator: Initiator) -> tuple[int, int]:
    """How many steps succeeded, and the value read after them."""
    made = 0
    for _ in range(BATCH):
        answer = initiator.receive()
        assert answer.opcode == 0x21
        if answer.header[3] == 0:
            made += 1
        else:
            assert answer.data[2 + 2] & 0x0F == 0x0E, "all that may be wrong is another value"
    read = initiator.receive()
    assert read.opcode == 0x25
    return made, int.from_bytes(read.data[:8], "big")


def test_sixteen_initiators_count_together_and_none_loses(
    serve: Callable[..., Target], connect: Callable[..., Initiator]
) -> None:
    serve(Access(), multihost=True)
    sessions = [connect(name=f"iqn.2026-01.test:host{number}") for number in range(INITIATORS)]
    for session in sessions:
        session.login(NAME)
    chance = random.Random(1)
    believed = [0] * INITIATORS
    made = [0] * INITIATORS
    tried = rounds = 0
    while sum(made) < INCREMENTS:
        # Now and then all of them at once; else a few, so that most steps succeed.
        chosen = range(INITIATORS) if rounds % 40 == 0 else chance.sample(range(INITIATORS), 3)
        newest = max(believed)
        for number in chosen:
            send_increments(sessions[number], newest)
        for number in chosen:
            steps, believed[number] = receive_increments(sessions[number])
            made[number] += steps
            tried += BATCH
        rounds += 1
    total = int.from_bytes(sessions[0].read10(0, 1)[:8], "big")
    assert total == sum(made), "each step that was granted is in the counter once"
    assert tried > sum(made), "they got into each other's way"
    assert all(made), "every initiator has counted"
