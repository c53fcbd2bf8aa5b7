"""Persistent reservations between real sessions: over restarts, lost connections and writes under way."""

import signal
import struct
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Configure, Target, VolumeThick
from tests.product.engine.conftest import NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
OPEN = Configure(
    targets=[Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=[Access()])], chap_users=[]
)
REGISTER, RESERVE, PREEMPT_AND_ABORT = 0, 1, 5
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 3
CONFLICT = 0x18
ONE, TWO = bytes([0x80, 0, 0, 0, 0, 1]), bytes([0x80, 0, 0, 0, 0, 2])


def out(
    initiator: Initiator, action: int, *, kind: int = 0, key: int = 0, service_key: int = 0, persist: bool = False
) -> int:
    """Status of a PERSISTENT RESERVE OUT."""
    parameters = struct.pack(">QQ4xB3x", key, service_key, int(persist))
    cdb = struct.pack(">BBB2xIB", 0x5F, action, kind, len(parameters), 0)
    initiator.command(cdb, write=parameters, immediate=parameters)
    return initiator.receive().header[3]


def keys(initiator: Initiator) -> list[int]:
    initiator.command(struct.pack(">BB5xHB", 0x5E, 0, 4096, 0), read=4096)
    data = initiator.receive().data
    return [key for (key,) in struct.iter_unpack(">Q", data[8:])]


def write_status(initiator: Initiator) -> int:
    return initiator.write10(0, b"\x11" * 512, immediate=512).header[3]


def two(connect: Connect) -> tuple[Initiator, Initiator]:
    return (
        connect(name="iqn.2026-01.test:host1", isid=ONE).login(NAME),
        connect(name="iqn.2026-01.test:host2", isid=TWO).login(NAME),
    )


@pytest.mark.parametrize("persist", [True, False])
def test_only_what_was_asked_to_persist_outlives_the_engine(
    engine: EngineProcess, control: Control, connect: Connect, persist: bool
) -> None:
    control.call(OPEN)
    one, other = two(connect)
    assert out(one, REGISTER, service_key=0xABC, persist=persist) == 0
    assert out(one, RESERVE, kind=EXCLUSIVE_ACCESS, key=0xABC) == 0
    assert write_status(other) == CONFLICT
    control.call(VolumeThick(volume=VOLUME, thick=True))  # writes the same file
    engine.end(signal.SIGKILL)
    again = engine.start()
    again.call(OPEN)
    one, other = two(connect)
    assert keys(other) == ([0xABC] if persist else [])
    assert write_status(other) == (CONFLICT if persist else 0)
    assert write_status(one) == 0
    assert out(one, REGISTER, key=0xABC if persist else 0, service_key=0) == 0
    assert write_status(other) == 0
    again.close()


def test_a_reservation_stays_when_its_session_goes(control: Control, connect: Connect) -> None:
    control.call(OPEN)
    one, other = two(connect)
    assert out(one, REGISTER, service_key=1) == 0
    assert out(one, RESERVE, kind=WRITE_EXCLUSIVE, key=1) == 0
    one.close()
    assert write_status(other) == CONFLICT
    assert other.read10(0, 1) == bytes(512)
    assert write_status(connect(name="iqn.2026-01.test:host1", isid=ONE).login(NAME)) == 0
    stranger = connect(name="iqn.2026-01.test:host1", isid=TWO).login(NAME)
    assert write_status(stranger) == CONFLICT, "another port of the same host"


def test_preempt_and_abort_voids_a_write_under_way(control: Control, connect: Connect) -> None:
    control.call(OPEN)
    loser, winner = two(connect)
    assert out(loser, REGISTER, service_key=1) == 0
    assert out(winner, REGISTER, service_key=2) == 0
    data = b"\xaa" * 4096
    tag = loser.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=data)
    ask = loser.receive()
    # Nobody holds a reservation: but for the abort the write would be admitted.
    assert out(winner, PREEMPT_AND_ABORT, kind=WRITE_EXCLUSIVE, key=2, service_key=1) == 0
    assert winner.write10(0, b"\xbb" * 4096, immediate=4096).header[3] == 0
    loser.data_out(tag, ask.word(20), 0, 0, data, last=True)
    assert loser.status_of(bytes(6)) == (2, "6/2a/05")
    assert winner.read10(0, 8) == b"\xbb" * 4096
    assert keys(winner) == [2]


def test_reservations_of_dead_initiators_cannot_pile_up(control: Control, connect: Connect) -> None:
    control.call(OPEN)
    statuses = []
    for number in range(130):
        initiator = connect(name=f"iqn.2026-01.test:host{number}").login(NAME)
        statuses.append(out(initiator, REGISTER, service_key=number + 1))
        initiator.close()
    assert statuses == [0] * 128 + [2, 2]
