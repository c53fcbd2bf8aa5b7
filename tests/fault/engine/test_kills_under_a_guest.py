"""SIGKILL of the engine under a guest that writes sequence numbers; `make crash UNDER=guest` goes on."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Space
from tests.fault.engine.guest import Guest
from tests.fault.engine.moments import MOMENTS
from tests.fault.engine.small_disk import EngineOnSmallDisk
from tests.fault.engine.under_guest import (
    MIB,
    begin_writing,
    boot_guest,
    check_records,
    die_under_guest,
    serve,
    until,
)
from tests.product.engine.engine_process import Control

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
KILLS = 20
ROOM = 96 * MIB  # of the engine's file system: enough, until a test takes it away


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guest")


@pytest.fixture(scope="module")
def engine(engine_path: Path, folder: Path) -> Iterator[EngineOnSmallDisk]:
    process = EngineOnSmallDisk(engine_path, folder, ROOM // MIB)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def guest(engine: EngineOnSmallDisk, guest_image: Path, folder: Path) -> Iterator[Guest]:
    guest = boot_guest(engine, guest_image, folder)
    yield guest
    guest.stop()


def test_a_guest_loses_no_record_however_often_the_engine_is_killed(
    engine: EngineOnSmallDisk, guest: Guest, folder: Path
) -> None:
    tally = die_under_guest(engine, guest, folder, seed=24, kills=KILLS)
    assert tally["kills"] >= KILLS
    assert all(any(what.startswith(moment) for what in tally) for moment in MOMENTS), dict(tally)


def test_a_guest_pauses_while_there_is_no_space_and_then_goes_on(engine: EngineOnSmallDisk, guest: Guest) -> None:
    """Killed while it is full, too."""
    begin_writing(guest)
    witness = guest.witnesses[0]
    witness.wait_beyond(witness.look())
    control = Control(engine.socket_path)
    engine.take_room(control.call(Space()).free_bytes - MIB)
    until(lambda: '"io-error"' in guest.qmp("query-status")[0], "the guest does not pause")
    told = [witness.look() for witness in guest.witnesses]
    engine.end(signal.SIGKILL)
    control.close()
    engine.give_room_back()
    control = engine.start()
    serve(control)
    control.close()
    until(lambda: resumed(guest, told), "the guest does not go on")
    check_records(guest)


def resumed(guest: Guest, told: list[int]) -> bool:
    """What an administrator does: goes on, and looks. A space that comes back late pauses it once more."""
    if '"io-error"' in guest.qmp("query-status")[0]:
        guest.qmp("cont")
    return all(witness.look() > number for witness, number in zip(guest.witnesses, told, strict=True))
