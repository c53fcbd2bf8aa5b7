"""The engine dies under a QEMU guest that writes sequence numbers, each synced before the next: to the blocks of one
disk, and to a file on another. What its witnesses print is what it was told to be durable; the disks must hold it."""

import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gespann.seams.engine_socket import Access, Configure, Target, VolumeCreate
from tests.fault.engine.guest import Guest, last_record
from tests.fault.engine.moments import MOMENTS, Deaths
from tests.fault.engine.wire import Session
from tests.fault.engine.writer import read_whole
from tests.product.engine.engine_process import Control, EngineProcess

MIB = 1 << 20
SIZE = 64 * MIB
VOLUMES = [f"{number:032x}" for number in (1, 2)]
COPY = f"{3:032x}"
IQNS = {volume: f"iqn.2026-01.test:volume{volume[-1]}" for volume in [*VOLUMES, COPY]}


def serve(control: Control, *besides: str) -> None:
    shown = {"online": True, "multihost": True, "access": [Access()]}  # the test reads beside the guest
    targets = [Target(volume=each, name=IQNS[each], **shown) for each in (*VOLUMES, *besides)]  # type: ignore[arg-type]
    control.call(Configure(targets=targets, chap_users=[]))


def url(engine: EngineProcess, volume: str) -> str:
    return f"iscsi://127.0.0.1:{engine.port}/{IQNS[volume]}/0"


def read_volume(engine: EngineProcess, volume: str) -> bytes:
    return read_whole(Session(engine.port, IQNS[volume]), SIZE)


def boot_guest(engine: EngineProcess, image: Path, folder: Path) -> Guest:
    """A running engine, and a guest with both disks. Disk 0: numbers in blocks; disk 1: numbers in a file on ext4."""
    control = engine.start()
    for volume in VOLUMES:
        control.call(VolumeCreate(volume=volume, size_bytes=SIZE))
    serve(control)
    control.close()
    made = folder / "ext4.img"
    subprocess.run(["mkfs.ext4", "-q", made, f"{SIZE // MIB}M"], check=True)
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", made, url(engine, VOLUMES[1])], check=True)
    guest = Guest(image, folder, engine, [IQNS[volume] for volume in VOLUMES])
    guest.boot()
    return guest


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


def die_under_guest(engine: EngineProcess, guest: Guest, folder: Path, seed: int, kills: int) -> Counter[str]:
    """So many moments in turn. AssertionError: a record that the guest was told to be durable is not there."""
    chance = random.Random(seed)
    deaths = Deaths(engine, serve, lambda volume: read_volume(engine, volume), (VOLUMES[0], COPY), chance)
    begin_writing(guest)
    for number in range(kills):
        before = [witness.wait_beyond(witness.look() + chance.randint(1, 10)) for witness in guest.witnesses]
        deaths.one(MOMENTS[number % len(MOMENTS)], holds(before[0]), goes_on(guest))
    goes_on(guest)()
    told = check_records(guest)
    assert last_record(read_volume(engine, VOLUMES[0])) >= told[0]
    image = folder / "after.img"
    image.write_bytes(read_volume(engine, VOLUMES[1]))
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    deaths.tally["records"] += sum(told)
    return deaths.tally


def forget_records(guest: Guest) -> None:
    """What the next writers would go on from."""
    guest.run(f"dd if=/dev/zero of=$(disk-by-serial disk0) bs=1048576 count={SIZE // MIB} 2>/dev/null && sync")
    guest.run("mount -t ext4 $(disk-by-serial disk1) /mnt && rm /mnt/log && umount /mnt")
    for witness in guest.witnesses:
        witness.look()
        witness.last = 0


def holds(record: int) -> Callable[[bytes], None]:
    def judge(copy: bytes) -> None:
        assert last_record(copy) >= record, f"the copy lacks what was durable before it: record {record}"

    return judge


def goes_on(guest: Guest) -> Callable[[], None]:
    def wait() -> None:
        for witness in guest.witnesses:
            witness.wait_beyond(witness.look())

    return wait


def until(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
