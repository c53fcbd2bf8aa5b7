"""What hostile or unlucky initiators cannot use up: sessions, places at the door, threads, descriptors."""

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gespann.seams.engine_socket import (
    Access,
    ChapUser,
    Configure,
    SessionList,
    Target,
    VolumeCreate,
)
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import LOGOUT, NOP_OUT, RESERVED, Initiator, Patient, Pdu, Refused

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
LOGGED_OUT = 0x26
OTHER_VOLUME, OTHER_NAME = "6090a028a030f846d8d6546fbd0130c6", "iqn.2026-01.test:other"


def wait_until(true: Callable[[], bool], limit_s: float = 120.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def threads_and_descriptors(engine: EngineProcess) -> tuple[int, int]:
    assert engine.process is not None
    folder = Path(f"/proc/{engine.process.pid}")
    return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))


def no_more_than(before: tuple[int, int], engine: EngineProcess) -> bool:
    """A thread whose work is over may still have been there when ``before`` was counted."""
    return all(now <= then for now, then in zip(threads_and_descriptors(engine), before, strict=True))


def test_a_thousand_connections_leave_nothing_behind(
    engine: EngineProcess, control: Control, connect: Connect, serve: Serve
) -> None:
    serve()
    connect().login(NAME).close()
    assert wait_until(lambda: control.call(SessionList()).sessions == [])
    before = threads_and_descriptors(engine)
    for round_number in range(1000):
        with contextlib.suppress(OSError):  # reset by the engine, whichever is quicker
            if round_number % 4 == 0:
                Initiator(engine.port).login(NAME).close()
            elif round_number % 4 == 1:
                initiator = Initiator(engine.port).login(NAME)
                initiator.command(b"\x28" + bytes(7) + b"\x08\x00", read=4096)  # leaves before the answer
                initiator.close()
            elif round_number % 4 == 2:
                with socket.create_connection(("127.0.0.1", engine.port)) as raw:
                    raw.sendall(b"\x43" * 20)
            else:
                Initiator(engine.port).login(None).close()
    assert wait_until(lambda: no_more_than(before, engine)), threads_and_descriptors(engine)
    assert control.call(SessionList()).sessions == []


def test_a_session_is_over_when_its_logout_is_answered(control: Control, connect: Connect, serve: Serve) -> None:
    """Nobody sees it any more, and a volume for one host is free for the next. A thread of the engine has to be unlucky
    for anything else, so it is tried some hundred times."""
    serve()
    for number in range(300):
        initiator = connect(name=f"iqn.2026-01.test:host{number}").login(NAME)
        initiator.send(initiator.header(LOGOUT, 0x80))
        assert initiator.receive().opcode == LOGGED_OUT
        if number % 2:
            assert control.call(SessionList()).sessions == []


def test_discovery_sessions_do_not_lock_others_out(
    engine: EngineProcess, control: Control, connect: Connect, serve: Serve
) -> None:
    """They need no secret, so they are counted, by address, with those that have not logged in."""
    serve()
    neighbour = Initiator(engine.port, source="127.0.0.2")

    def open_many() -> int:
        for opened in range(300):
            try:
                connect().login(None)
            except OSError:
                return opened
        return 300

    assert 100 <= open_many() <= 128
    neighbour.login(NAME)
    assert neighbour.read10(0, 1) == bytes(512)
    late = Initiator(engine.port, source="127.0.0.2").login(NAME)
    assert late.read10(0, 1) == bytes(512)
    late.close()
    neighbour.close()


def test_one_initiator_cannot_take_all_sessions(control: Control, connect: Connect, serve: Serve) -> None:
    serve(multihost=True)
    for _ in range(32):
        connect().login(NAME)
    with pytest.raises(Refused) as refused:
        connect().login(NAME)
    assert refused.value.status == 0x0302
    connect(name="iqn.2026-01.test:host2").login(NAME)


def test_a_low_soft_limit_of_descriptors_is_raised(engine: EngineProcess) -> None:
    engine.under = ["prlimit", "--nofile=60:"]
    control = engine.start()
    with contextlib.ExitStack() as connections:
        for _ in range(80):
            connections.enter_context(socket.create_connection(("127.0.0.1", engine.port)))
        assert wait_until(lambda: threads_and_descriptors(engine)[1] > 80)
    control.close()


def test_target_names_may_change_places_in_one_configuration(control: Control, connect: Connect) -> None:
    control.call(VolumeCreate(volume=OTHER_VOLUME, size_bytes=MIB))
    sizes = {VOLUME: 64 * MIB // 512, OTHER_VOLUME: MIB // 512}
    for names in ((NAME, OTHER_NAME), (OTHER_NAME, NAME), (NAME, OTHER_NAME)):
        volumes = dict(zip(names, (VOLUME, OTHER_VOLUME), strict=True))
        targets = [Target(volume=volume, name=name, online=True, access=[Access()]) for name, volume in volumes.items()]
        control.call(Configure(targets=targets, chap_users=[]))
        for name, volume in volumes.items():
            initiator = connect().login(name)
            initiator.command(b"\x25" + bytes(9), read=8)
            assert int.from_bytes(initiator.receive().data[:4], "big") + 1 == sizes[volume]
            initiator.close()


def test_the_group_does_not_prove_itself_with_the_secret_of_a_user(control: Control, connect: Connect) -> None:
    """Else the answer to a challenge of ours, sent back on another connection, would let a stranger in as that user."""
    target = Target(volume=VOLUME, name=NAME, online=True, access=[Access()])
    users = [ChapUser(user="vm1", secret="one-secret-each"), ChapUser(user="vm2", secret="shared-by-two")]
    control.call(Configure(targets=[target], chap_users=users, mutual=ChapUser(user="group", secret="shared-by-two")))
    with pytest.raises(Refused) as refused:
        connect().login(NAME, user="vm1", secret="one-secret-each", mutual_secret="shared-by-two")
    assert refused.value.status == 0x0201
    connect().login(NAME, user="vm1", secret="one-secret-each")


def test_immediate_data_that_was_not_agreed_ends_the_session(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME, keys={"ImmediateData": "No"})
    initiator.command(b"\x2a" + bytes(7) + b"\x01\x00", write=b"\xff" * 512, immediate=b"\xff" * 512)
    with pytest.raises(OSError):  # noqa: PT011 - closed or reset
        initiator.receive()
    assert connect().login(NAME).read10(0, 1) == bytes(512)


def test_more_immediate_data_than_the_command_has_ends_the_session(connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    initiator.command(b"\x2a" + bytes(7) + b"\x01\x00", write=b"\xff" * 512, immediate=b"\xff" * 1024)
    with pytest.raises(OSError):  # noqa: PT011 - closed or reset
        initiator.receive()
    assert connect().login(NAME).read10(0, 1) == bytes(512)


WRITE_10 = struct.Struct(">BBIBHB")


def ask_to_write(initiator: Initiator, blocks: int, *, last: bool = True) -> int:
    """Announces a write at block 0 without any of its data; its task tag."""
    return initiator.command(WRITE_10.pack(0x2A, 0, 0, 0, blocks, 0), write=bytes(blocks * 512), last=last)


def ping(initiator: Initiator) -> Pdu:
    """What the target says first after an immediate NOP-Out."""
    initiator.send(initiator.header(NOP_OUT, 0x80, immediate=True))
    return initiator.receive()


def receive_to_the_end(initiator: Initiator) -> None:
    while True:
        initiator.receive()


def take_all_room(initiator: Initiator) -> None:
    """Two writes of 8 MiB, which have room, and their first R2Ts: the 16 MiB that ``--write-data 16`` leaves."""
    for _ in range(2):
        ask_to_write(initiator, 16384)
        assert [initiator.receive().opcode for _ in range(4)] == [0x31] * 4


ONE_BURST = {"MaxBurstLength": "1048576", "MaxOutstandingR2T": "4"}


def small(engine: EngineProcess, *options: str) -> Control:
    """Started with room for 16 MiB of write data, with one open volume."""
    engine.options = ["--write-data", "16", *options]
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB))
    control.call(
        Configure(
            targets=[Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=[Access()])], chap_users=[]
        )
    )
    return control


def test_write_data_of_all_sessions_together_is_bounded(engine: EngineProcess) -> None:
    control = small(engine)
    greedy, other = Initiator(engine.port).login(NAME, keys=ONE_BURST), Initiator(engine.port).login(NAME)
    take_all_room(greedy)
    tag = ask_to_write(other, 8)
    assert ping(other).opcode == 0x20, "a NOP-In, and no R2T before it: there is no room"
    assert other.read10(0, 1) == bytes(512), "what needs no room is served"
    greedy.close()
    ask = other.receive()
    assert (ask.opcode, ask.word(44)) == (0x31, 4096)
    other.data_out(tag, ask.word(20), 0, 0, b"\x07" * 4096, last=True)
    assert other.receive().header[3] == 0
    assert other.read10(0, 8) == b"\x07" * 4096
    control.close()


def test_who_holds_room_that_others_wait_for_has_to_use_it(engine: EngineProcess) -> None:
    control = small(engine, "--ping-after", "1", "--missed-pings", "1000", "--data-timeout", "1")
    greedy, other = Initiator(engine.port).login(NAME, keys=ONE_BURST), Patient(engine.port).login(NAME)
    take_all_room(greedy)
    for _ in range(2):
        assert greedy.receive().opcode == 0x20, "pinged, but not dropped: nobody waits for its room"
    answer = other.write10(0, b"\x07" * 4096)
    assert (answer.opcode, answer.header[3]) == (0x21, 0)
    with pytest.raises(ConnectionResetError):
        receive_to_the_end(greedy)
    assert "others wait for the room" in engine.log.read_text()
    control.close()


def test_data_without_being_asked_for_is_refused_where_there_is_no_room(engine: EngineProcess) -> None:
    control = small(engine)
    keys = {"InitialR2T": "No", "FirstBurstLength": "262144"}
    greedy, other = (Initiator(engine.port).login(NAME, keys=keys) for _ in range(2))
    for _ in range(32):  # half of 16 MiB, by 256 KiB
        ask_to_write(greedy, 1024, last=False)
    assert ping(greedy).opcode == 0x20, "none is refused"
    ask_to_write(greedy, 1024, last=False)
    full = greedy.receive()
    assert (full.opcode, full.header[3]) == (0x21, 0x28), "TASK SET FULL"
    tag = ask_to_write(other, 1024, last=False)
    busy = other.receive()
    assert (busy.opcode, busy.header[3]) == (0x21, 0x08), "BUSY: it has no task that could end"
    other.data_out(tag, RESERVED, 0, 0, b"\xff" * 8192, last=True)  # was on its way: ignored
    assert other.read10(0, 1) == bytes(512)
    greedy.close()
    assert wait_until(lambda: len(control.call(SessionList()).sessions) == 1)
    assert other.write10(0, b"\x09" * 4096).header[3] == 0
    control.close()


@pytest.mark.parametrize("words", [["--write-data", "15"], ["--write-data", "x"], ["--data-timeout", "0"]])
def test_limits_that_make_no_sense_are_refused(engine: EngineProcess, words: list[str]) -> None:
    engine.options = words
    ended = subprocess.run(engine.command(), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert words[1] in ended.stderr
