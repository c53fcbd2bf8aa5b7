"""Shutting an initiator out: generation, drop, drain, configure; the right to write (an access record is a lease)."""

import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gespann.seams.engine_socket import (
    Access,
    Configure,
    SessionDrop,
    SessionList,
    Target,
    TargetPut,
    TargetRemove,
    VolumeCreate,
    VolumeDelete,
    VolumeDrain,
)
from gespann.seams.json_lines import SeamError
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator
from tests.product.engine.preloaded import STANDS_STILL, preload

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
OLD, NEW = "iqn.2026-01.test:start-1", "iqn.2026-01.test:start-2"


def lease(initiator: str, generation: int) -> TargetPut:
    access = [Access(initiator=initiator)]
    return TargetPut(target=Target(volume=VOLUME, name=NAME, online=True, generation=generation, access=access))


def open_to_old(control: Control) -> None:
    control.call(Configure(targets=[lease(OLD, 1).target], chap_users=[]))


def write_begun(initiator: Initiator, value: int) -> Callable[[], None]:
    """A write whose data is asked for but not sent; call it to send the data."""
    data = bytes([value]) * 4096
    tag = initiator.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=data)
    ask = initiator.receive()
    return lambda: initiator.data_out(tag, ask.word(20), 0, 0, data, last=True)


def is_over(initiator: Initiator) -> bool:
    try:
        initiator.receive()
    except OSError:
        return True
    return False


def test_a_removed_record_alone_drops_nobody(control: Control, connect: Connect) -> None:
    open_to_old(control)
    old = connect(name=OLD).login(NAME)
    control.call(lease(NEW, 1))
    assert old.write10(0, b"\x01" * 512, immediate=512).header[3] == 0


def test_a_raised_generation_refuses_a_write_already_under_way(control: Control, connect: Connect) -> None:
    open_to_old(control)
    old = connect(name=OLD).login(NAME)
    send = write_begun(old, 0xAA)
    control.call(lease(NEW, 2))
    send()
    assert is_over(old)
    new = connect(name=NEW).login(NAME)
    assert new.read10(0, 8) == bytes(4096)


def test_a_generation_that_comes_back_does_not_bring_its_sessions_back(control: Control, connect: Connect) -> None:
    open_to_old(control)
    old = connect(name=OLD).login(NAME)
    control.call(lease(NEW, 2))
    control.call(lease(OLD, 1))
    old.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0), write=bytes(512), immediate=bytes(512))
    assert is_over(old)


def test_after_drop_and_drain_no_old_write_lands(control: Control, connect: Connect) -> None:
    open_to_old(control)
    old = connect(name=OLD).login(NAME)
    send = write_begun(old, 0xAA)
    control.call(lease(NEW, 2))
    assert control.call(SessionDrop(volume=VOLUME, below_generation=2)).dropped == 1
    control.call(VolumeDrain(volume=VOLUME))
    new = connect(name=NEW).login(NAME)
    assert new.write10(0, b"\xbb" * 4096).header[3] == 0
    with pytest.raises(ConnectionError):  # noqa: PT012 - either the send or the answer fails
        send()
        old.receive()
    assert new.read10(0, 8) == b"\xbb" * 4096


def test_a_drain_waits_for_a_write_that_the_disk_holds_up(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was let in while its initiator could still write; it lands before the drain is over, and never later."""
    switch = preload(STANDS_STILL, tmp_path, monkeypatch)
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=MIB))
    open_to_old(control)
    old = Initiator(engine.port, name=OLD).login(NAME)
    switch.touch()
    old.command(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=b"\xaa" * 4096, immediate=b"\xaa" * 4096)
    reached, deadline = switch.with_name("switch.reached"), time.monotonic() + 120
    while not reached.exists():
        assert time.monotonic() < deadline, "the write did not reach the disk"
        time.sleep(0.01)
    control.call(lease(NEW, 2))
    assert control.call(SessionDrop(volume=VOLUME, below_generation=2)).dropped == 1
    with pytest.raises(SeamError, match="did not finish"):
        control.call(VolumeDrain(volume=VOLUME, timeout_ms=1))
    drain = VolumeDrain(volume=VOLUME)
    control.send(drain)
    switch.unlink()
    control.receive(drain)
    new = Initiator(engine.port, name=NEW).login(NAME)
    assert new.read10(0, 8) == b"\xaa" * 4096, "drained means that it has landed"
    assert new.write10(0, b"\xbb" * 4096).header[3] == 0
    assert is_over(old)
    assert new.read10(0, 8) == b"\xbb" * 4096
    control.close()


def test_drop_picks_by_initiator(control: Control, connect: Connect) -> None:
    target = Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=[Access()])
    control.call(Configure(targets=[target], chap_users=[]))
    old, new = connect(name=OLD).login(NAME), connect(name=NEW).login(NAME)
    assert control.call(SessionDrop(volume=VOLUME, initiator=OLD)).dropped == 1
    assert is_over(old)
    assert new.read10(0, 1) == bytes(512)
    assert [session.initiator for session in control.call(SessionList(volume=VOLUME)).sessions] == [NEW]
    assert control.call(SessionDrop(volume=VOLUME, initiator=OLD)).dropped == 0


def test_under_constant_writing_a_drop_is_a_clean_cut(control: Control, connect: Connect) -> None:
    """A writer counts upwards; after drop and drain the number on the volume never moves again."""
    open_to_old(control)
    old = connect(name=OLD).login(NAME)
    written = threading.Event()

    def count_upwards() -> None:
        number = 0
        try:
            while True:
                number += 1
                old.write10(0, number.to_bytes(8, "big") * 64, immediate=512)
                if number > 20:
                    written.set()
        except OSError:
            written.set()

    writer = threading.Thread(target=count_upwards)
    writer.start()
    assert written.wait(120)
    control.call(lease(NEW, 2))
    control.call(SessionDrop(volume=VOLUME, below_generation=2))
    control.call(VolumeDrain(volume=VOLUME))
    new = connect(name=NEW).login(NAME)
    seen = new.read10(0, 1)
    writer.join(120)
    assert not writer.is_alive()
    assert new.read10(0, 1) == seen


@pytest.mark.parametrize("how", ["offline", "removed", "configured away"])
def test_sessions_end_with_their_target(control: Control, connect: Connect, serve: Serve, how: str) -> None:
    serve()
    initiator = connect().login(NAME)
    with pytest.raises(SeamError, match="BUSY"):
        control.call(VolumeDelete(volume=VOLUME))
    if how == "offline":
        control.call(TargetPut(target=Target(volume=VOLUME, name=NAME, online=False, access=[Access()])))
    elif how == "removed":
        control.call(TargetRemove(volume=VOLUME))
    else:
        control.call(Configure(targets=[], chap_users=[]))
    assert is_over(initiator)
    control.call(TargetRemove(volume=VOLUME))
    control.call(VolumeDrain(volume=VOLUME))
    control.call(VolumeDelete(volume=VOLUME))


def test_sessions_are_described(control: Control, connect: Connect, serve: Serve) -> None:
    serve(generation=7)
    initiator = connect().login(NAME)
    initiator.write10(0, bytes(4096))
    initiator.read10(0, 16)
    (session,) = control.call(SessionList()).sessions
    assert (session.volume, session.initiator, session.generation) == (VOLUME, initiator.name, 7)
    assert (session.address, session.chap_user) == ("127.0.0.1", "")
    assert (session.written_bytes, session.read_bytes, session.in_flight) == (4096, 8192, 0)


def test_a_wrong_configuration_changes_nothing(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    initiator = connect().login(NAME)
    missing = Target(volume="0" * 32, name="iqn.2026-01.test:missing", online=True)
    for targets in (
        [missing],
        [Target(volume=VOLUME, name="no iscsi name")],
        [Target(volume=VOLUME, name=NAME, block_size=513)],
    ):
        with pytest.raises(SeamError):
            control.call(Configure(targets=targets, chap_users=[]))
    assert initiator.read10(0, 1) == bytes(512)


def right_of(initiator: str) -> TargetPut:
    """Both may log in; one of them may write."""
    access = [Access(initiator=OLD), Access(initiator=NEW)]
    target = Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=access, writer=initiator)
    return TargetPut(target=target)


RESERVATION_CONFLICT = 0x18


def test_a_late_write_of_who_has_lost_the_right_does_not_land(control: Control, connect: Connect) -> None:
    """A machine moves to another host: its right to write was moved while a write of its old host was under way."""
    control.call(Configure(targets=[right_of(OLD).target], chap_users=[]))
    old, new = connect(name=OLD).login(NAME), connect(name=NEW).login(NAME)
    assert old.write10(0, b"\x01" * 4096).header[3] == 0
    assert new.write10(0, b"\x02" * 4096).header[3] == RESERVATION_CONFLICT
    assert new.read10(0, 8) == b"\x01" * 4096
    send = write_begun(old, 0xAA)
    control.call(right_of(NEW))
    control.call(VolumeDrain(volume=VOLUME))
    assert new.write10(0, b"\xbb" * 4096).header[3] == 0
    send()
    assert old.receive().header[3] == RESERVATION_CONFLICT
    assert old.read10(0, 8) == b"\xbb" * 4096, "it is still logged in, and reads what the other has written"
    control.call(right_of(""))
    assert old.write10(0, b"\xcc" * 4096).header[3] == 0
