"""SIGKILL of the engine under a guest that writes sequence numbers, each synced before the next.

What its witness prints is what the guest was told to be durable; the disk must hold it, after any number of kills."""

import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import (
    Access,
    Configure,
    Space,
    Target,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeList,
)
from tests.fault.engine.guest import Guest, last_record
from tests.fault.engine.small_disk import EngineOnSmallDisk
from tests.fault.engine.wire import Session
from tests.fault.engine.writer import read_whole
from tests.product.engine.engine_process import Control, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
MIB = 1 << 20
SIZE = 64 * MIB
GUEST_KILLS = 24
ROOM = 96 * MIB  # of the engine's file system: enough, until a test takes it away
VOLUMES = [f"{number:032x}" for number in (1, 2)]
COPY = f"{3:032x}"
IQNS = {volume: f"iqn.2026-01.test:volume{volume[-1]}" for volume in [*VOLUMES, COPY]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guest")


@pytest.fixture(scope="module")
def engine(engine_path: Path, folder: Path) -> Iterator[EngineOnSmallDisk]:
    process = EngineOnSmallDisk(engine_path, folder, ROOM // MIB)
    yield process
    process.stop()


def serve(control: Control, *volumes: str) -> None:
    shown = {"online": True, "multihost": True, "access": [Access()]}  # the test reads beside the guest
    targets = [Target(volume=volume, name=IQNS[volume], **shown) for volume in volumes]  # type: ignore[arg-type]
    control.call(Configure(targets=targets, chap_users=[]))


def restart(engine: EngineProcess, *volumes: str) -> Control:
    control = engine.start()
    serve(control, *volumes)
    return control


def url(engine: EngineProcess, volume: str) -> str:
    return f"iscsi://127.0.0.1:{engine.port}/{IQNS[volume]}/0"


@pytest.fixture(scope="module")
def guest(engine: EngineProcess, guest_image: Path, folder: Path) -> Iterator[Guest]:
    """Disk 0: numbers in blocks; disk 1: numbers in a file on ext4."""
    control = engine.start()
    for volume in VOLUMES:
        control.call(VolumeCreate(volume=volume, size_bytes=SIZE))
    serve(control, *VOLUMES)
    control.close()
    image = folder / "ext4.img"
    subprocess.run(["mkfs.ext4", "-q", image, f"{SIZE // MIB}M"], check=True)
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url(engine, VOLUMES[1])], check=True)
    guest = Guest(guest_image, folder, engine, [IQNS[volume] for volume in VOLUMES])
    guest.boot()
    yield guest
    guest.stop()


def begin_writing(guest: Guest) -> None:
    guest.run("(seqwriter raw $(disk-by-serial disk0) 3 >/dev/ttyS1 2>&1 &)")
    guest.run("mount -t ext4 $(disk-by-serial disk1) /mnt && (seqwriter write /mnt/log 3 >/dev/ttyS2 2>&1 &)")


def check_records(guest: Guest) -> list[int]:
    """Ends the writers; all they were told to be durable is on the disks, read anew. The numbers told."""
    guest.run("killall seqwriter && while killall -0 seqwriter 2>/dev/null; do usleep 10000; done")
    told = [witness.look() for witness in guest.witnesses]
    guest.run("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 $(disk-by-serial disk1) /mnt")
    checks = ["seqwriter rawcheck $(disk-by-serial disk0)", "seqwriter check /mnt/log"]
    for check, number in zip(checks, told, strict=True):
        found = re.search(r"LAST (\d+)", guest.run(check))
        assert found
        assert int(found[1]) >= number, f"{check}: the guest was told that record {number} is durable"
    guest.run("umount /mnt")
    return told


def read_volume(engine: EngineProcess, volume: str) -> bytes:
    return read_whole(Session(engine.port, IQNS[volume]), SIZE)


def test_a_guest_loses_no_record_however_often_the_engine_is_killed(
    engine: EngineProcess, guest: Guest, folder: Path
) -> None:
    chance = random.Random(GUEST_KILLS)
    begin_writing(guest)
    for kill in range(GUEST_KILLS):
        before = [witness.wait_beyond(witness.look() + chance.randint(1, 10)) for witness in guest.witnesses]
        kill_in_a_clone(engine, before[0], chance) if kill % 3 == 0 else engine.end(signal.SIGKILL)
        restart(engine, *VOLUMES).close()
    for witness in guest.witnesses:
        witness.wait_beyond(witness.look())
    told = check_records(guest)
    assert last_record(read_volume(engine, VOLUMES[0])) >= told[0]
    image = folder / "after.img"
    image.write_bytes(read_volume(engine, VOLUMES[1]))
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


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
    restart(engine, *VOLUMES).close()
    until(lambda: resumed(guest, told), "the guest does not go on")
    check_records(guest)


def resumed(guest: Guest, told: list[int]) -> bool:
    """What an administrator does: goes on, and looks. A space that comes back late pauses it once more."""
    if '"io-error"' in guest.qmp("query-status")[0]:
        guest.qmp("cont")
    return all(witness.look() > number for witness, number in zip(guest.witnesses, told, strict=True))


def until(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def kill_in_a_clone(engine: EngineProcess, durable: int, chance: random.Random) -> None:
    """Dies soon after a clone of the guest's disk was asked for. The clone is whole or absent: if it is there it has
    all that the guest had been told before, and it does not change any more."""
    control = Control(engine.socket_path)
    control.send(VolumeClone(source=VOLUMES[0], volume=COPY))
    time.sleep(chance.uniform(0, 0.02))
    engine.end(signal.SIGKILL)
    control.close()
    control = restart(engine, *VOLUMES)
    if COPY in {info.volume for info in control.call(VolumeList()).volumes}:
        serve(control, *VOLUMES, COPY)
        copy = read_volume(engine, COPY)
        assert last_record(copy) >= durable
        engine.end(signal.SIGKILL)
        control.close()
        control = restart(engine, *VOLUMES, COPY)
        assert read_volume(engine, COPY) == copy
        serve(control, *VOLUMES)
        control.call(VolumeDelete(volume=COPY))
    engine.end(signal.SIGKILL)
    control.close()
