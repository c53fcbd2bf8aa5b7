"""SANITIZE over a restart of the engine, and EXTENDED COPY between volumes that an initiator may or may not use."""

import time
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Configure, Target, VolumeCreate, VolumeDrain
from gespann.seams.json_lines import SeamError
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.extended_copy import copy_list, extended_copy, send
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
OTHER, OTHER_NAME = "6090a028a030f846d8d6546fbd0130c6", "iqn.2026-01.test:other"
OVERWRITE = bytes([0x48, 0x81, 0, 0, 0, 0, 0, 2, 4, 0])  # at once answered; a parameter list of 516 bytes
PATTERN = bytes([1, 0, 2, 0]) + b"\xa5" * 512
DATA = b"\x42" * 65536


def test_a_sanitizing_goes_on_after_the_engine_was_killed(engine: EngineProcess) -> None:
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=512 * MIB))
    configure = Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[])
    control.call(configure)
    session = Initiator(engine.port).login(NAME)
    assert session.write10(0, DATA).header[3] == 0
    assert send(session, OVERWRITE, PATTERN) == (0, "")
    assert session.status_of(bytes(6)) == (2, "2/04/1b")
    with pytest.raises(SeamError, match="did not finish"):
        control.call(VolumeDrain(volume=VOLUME, timeout_ms=1))
    control.close()
    engine.stop()
    control = engine.start()
    control.call(configure)
    session = Initiator(engine.port).login(NAME)
    assert session.status_of(bytes(6)) == (2, "2/04/1b"), "nobody reads what is half overwritten"
    session.command(bytes([3, 0, 0, 0, 18, 0]), read=18)
    sense = session.receive().data
    assert (sense[2], sense[12], sense[13], sense[15]) == (2, 0x04, 0x1B, 0x80), "with the progress"
    deadline = time.monotonic() + 120
    while session.status_of(bytes(6))[0] != 0:
        assert time.monotonic() < deadline, "the sanitizing did not end"
        time.sleep(0.05)
    for lba in (0, 512 * MIB // 512 - 128):
        assert session.read10(lba, 128) == b"\xa5" * 65536
    control.close()


@pytest.fixture
def two(control: Control, connect: Callable[..., Initiator]) -> tuple[Callable[..., None], Initiator]:
    """Two volumes, the first with data; a way to change the second's target; a session on the first."""
    control.call(VolumeCreate(volume=OTHER, size_bytes=64 * MIB))
    first = Target(volume=VOLUME, name=NAME, online=True, multihost=True, access=[Access()])

    def configure(*access: Access, **fields: bool) -> None:
        second = Target(volume=OTHER, name=OTHER_NAME, access=list(access), **{"online": True, **fields})  # type: ignore[arg-type]
        control.call(Configure(targets=[first, second], chap_users=[]))

    configure(Access())
    session = connect().login(NAME)
    assert session.write10(0, DATA).header[3] == 0
    return configure, session


def test_a_copy_reaches_a_volume_that_the_initiator_may_use(
    two: tuple[Callable[..., None], Initiator], connect: Callable[..., Initiator]
) -> None:
    _, session = two
    assert extended_copy(session, copy_list(VOLUME, OTHER)) == (0, "")
    session.command(bytes([0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12]), read=12)
    status = session.receive().data
    assert (status[4], status[6], int.from_bytes(status[8:12], "big")) == (1, 1, 65536)
    assert connect(name=session.name).login(OTHER_NAME).read10(0, 128) == DATA


@pytest.mark.parametrize(
    ("access", "fields", "sense"),
    [
        (Access(initiator="iqn.2026-01.test:host2"), {}, "a/08/04"),
        (Access(), {"online": False}, "a/08/04"),
        (Access(chap_user="somebody"), {}, "a/08/04"),
        (Access(), {"read_only": True}, "a/0d/01"),
    ],
)
def test_a_copy_to_a_volume_that_it_may_not_write_changes_nothing(
    two: tuple[Callable[..., None], Initiator],
    connect: Callable[..., Initiator],
    access: Access,
    fields: dict[str, bool],
    sense: str,
) -> None:
    configure, session = two
    configure(access, **fields)
    assert extended_copy(session, copy_list(VOLUME, OTHER)) == (2, sense)
    assert extended_copy(session, copy_list(VOLUME, "6" + "f" * 31)) == (2, "a/08/04")
    configure(Access())
    assert connect(name=session.name).login(OTHER_NAME).read10(0, 128) == bytes(65536)


def test_a_copy_does_not_take_a_volume_that_another_initiator_is_using(
    two: tuple[Callable[..., None], Initiator], connect: Callable[..., Initiator]
) -> None:
    _, session = two
    other = connect(name="iqn.2026-01.test:host2").login(OTHER_NAME)
    assert extended_copy(session, copy_list(VOLUME, OTHER)) == (2, "a/08/04")
    assert other.read10(0, 128) == bytes(65536)
