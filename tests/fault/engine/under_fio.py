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
from tests.listening import listens
from tests.product.engine.engine_process import Control, EngineProcess

MIB = 1 << 20
SIZE = 64 * MIB
VOLUME, COPY = f"{1:032x}", f"{2:032x}"
IQNS = {VOLUME: "iqn.2026-01.test:fio", COPY: "iqn.2026-01.test:copy"}
LOOPS = 4  # over the whole disk, by one fio; there is always one at work


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
        fio = Fio(door, folder, seed)
        for number in range(kills):
            wait_for_writes(engine, fio)
            deaths.one(MOMENTS[number % len(MOMENTS)], lambda _: None, lambda: wait_for_writes(engine, fio))
        fio.end()
    finally:
        gate.kill()
        gate.communicate()
        engine.stop()
    return deaths.tally


def read_volume(engine: EngineProcess, volume: str) -> bytes:
    return read_whole(Session(engine.port, IQNS[volume]), SIZE)


def wait_for_door(door: Path, gate: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not listens(door):
        assert gate.poll() is None, gate.communicate()[1]
        assert time.monotonic() < deadline, "qemu-nbd does not open"
        time.sleep(0.02)


class Fio:
    """One after the other: each reads what it has written. A fast machine may let one end between two kills."""

    def __init__(self, door: Path, folder: Path, seed: int) -> None:
        assert shutil.which("fio"), "fio is missing: run setup/prepare test"
        self.door, self.folder, self.seed = door, folder, seed
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        words = ["fio", "--name=kills", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.door}", "--rw=randrw"]
        words += [f"--size={SIZE}", "--bsrange=4k-64k", "--iodepth=16", f"--loops={LOOPS}", "--fsync=64"]
        words += [f"--randseed={self.seed}", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256"]
        with (self.folder / "fio.log").open("wb") as log:
            return subprocess.Popen([*words, "--do_verify=1"], stdout=log, stderr=log, cwd=self.folder)

    def go_on(self) -> None:
        """The next one, if this one has come to its end. AssertionError: it read something else than it wrote."""
        if self.process.poll() is not None:
            self.end()
            self.seed += 1
            self.process = self.start()

    def end(self) -> None:
        code = self.process.wait(timeout=600)
        told = (self.folder / "fio.log").read_text()
        assert code == 0, told
        assert "err= 0" in told, told


def wait_for_writes(engine: EngineProcess, fio: "Fio") -> None:
    """Until it has written 2 MiB more to this engine."""
    control = Control(engine.socket_path)

    def written() -> int:
        return sum(session.written_bytes for session in control.call(SessionList()).sessions)

    wanted = written() + 2 * MIB
    deadline = time.monotonic() + 120
    while written() < wanted:
        fio.go_on()
        assert time.monotonic() < deadline, "fio does not go on"
        time.sleep(0.002)
    control.close()
