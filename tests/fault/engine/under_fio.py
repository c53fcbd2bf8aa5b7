"""The engine dies while fio writes and verifies. fio speaks NBD to qemu-nbd, whose iSCSI driver connects again after
each kill: Debian's fio has no iSCSI of its own."""

import random
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from gespann.seams.engine_socket import Access, Configure, SessionList, Target, VolumeCreate
from tests.fault.engine.moments import MOMENTS, Deaths
from tests.fault.engine.wire import Session
from tests.fault.engine.writer import read_whole
from tests.product.engine.engine_process import Control, EngineProcess

MIB = 1 << 20
SIZE = 64 * MIB
VOLUME, COPY = f"{1:032x}", f"{2:032x}"
IQNS = {VOLUME: "iqn.2026-01.test:fio", COPY: "iqn.2026-01.test:copy"}
KILLS_A_LOOP = 4  # fio is still at work after the last one


def serve(control: Control, *besides: str) -> None:
    targets = [Target(volume=each, name=IQNS[each], online=True, access=[Access()]) for each in (VOLUME, *besides)]
    control.call(Configure(targets=targets, chap_users=[]))


def die_under_fio(engine_path: Path, folder: Path, seed: int, kills: int) -> Counter[str]:
    """So many moments in turn. AssertionError: fio has read something else than it wrote, or has ended."""
    engine = EngineProcess(engine_path, folder)
    deaths = Deaths(engine, serve, lambda volume: read_volume(engine, volume), (VOLUME, COPY), random.Random(seed))
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=SIZE))
    serve(control)
    control.close()
    door = folder / "nbd"
    url = f"iscsi://127.0.0.1:{engine.port}/{IQNS[VOLUME]}/0"
    gate = subprocess.Popen(
        ["qemu-nbd", "-t", "-f", "raw", "--cache=none", "-k", str(door), url], stderr=subprocess.PIPE
    )
    try:
        wait_for_door(door, gate)
        fio = start_fio(door, folder, seed, loops=kills // KILLS_A_LOOP + 2)
        for number in range(kills):
            wait_for_writes(engine, fio)
            deaths.one(MOMENTS[number % len(MOMENTS)], lambda _: None, lambda: wait_for_writes(engine, fio))
        assert fio.wait(timeout=600) == 0, (folder / "fio.log").read_text()
    finally:
        gate.kill()
        gate.communicate()
        engine.stop()
    assert "err= 0" in (folder / "fio.log").read_text()
    return deaths.tally


def read_volume(engine: EngineProcess, volume: str) -> bytes:
    return read_whole(Session(engine.port, IQNS[volume]), SIZE)


def wait_for_door(door: Path, gate: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not door.exists():
        assert gate.poll() is None, gate.communicate()[1]
        assert time.monotonic() < deadline, "qemu-nbd does not open"
        time.sleep(0.02)


def start_fio(door: Path, folder: Path, seed: int, loops: int) -> "subprocess.Popen[bytes]":
    assert shutil.which("fio"), "fio is missing: run setup/prepare test"
    words = ["fio", "--name=kills", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={door}", "--rw=randrw"]
    words += [f"--size={SIZE}", "--bsrange=4k-64k", "--iodepth=16", f"--loops={loops}", "--fsync=64"]
    words += [f"--randseed={seed}", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--do_verify=1"]
    with (folder / "fio.log").open("wb") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)


def wait_for_writes(engine: EngineProcess, fio: "subprocess.Popen[bytes]") -> None:
    """Until it has written 2 MiB more to this engine."""
    control = Control(engine.socket_path)

    def written() -> int:
        return sum(session.written_bytes for session in control.call(SessionList()).sessions)

    wanted = written() + 2 * MIB
    deadline = time.monotonic() + 120
    while written() < wanted:
        assert fio.poll() is None, "fio ended too soon"
        assert time.monotonic() < deadline, "fio does not go on"
        time.sleep(0.002)
    control.close()
