"""SIGKILL of the engine while fio writes and verifies. fio speaks NBD to qemu-nbd, whose iSCSI driver connects again
after each kill: Debian's fio has no iSCSI of its own."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Access, Configure, SessionList, Target, VolumeCreate
from tests.product.engine.engine_process import Control, EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
MIB = 1 << 20
SIZE = 64 * MIB
KILLS = 12
VOLUME = f"{1:032x}"
IQN = "iqn.2026-01.test:fio"
OPEN = Configure(targets=[Target(volume=VOLUME, name=IQN, online=True, access=[Access()])], chap_users=[])


def test_fio_verifies_all_it_wrote_through_kills_of_the_engine(engine_path: Path, tmp_path: Path) -> None:
    engine = EngineProcess(engine_path, tmp_path)
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=SIZE))
    control.call(OPEN)
    url = f"iscsi://127.0.0.1:{engine.port}/{IQN}/0"
    door = tmp_path / "nbd"
    gate = subprocess.Popen(
        ["qemu-nbd", "-t", "-f", "raw", "--cache=none", "-k", str(door), url],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not door.exists():
            assert gate.poll() is None, gate.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        fio = start_fio(door, tmp_path)
        kill_under_fio(engine, control, fio)
        assert fio.wait(timeout=600) == 0, (tmp_path / "fio.log").read_text()
    finally:
        gate.kill()
        gate.communicate()
        engine.stop()
    assert "err= 0" in (tmp_path / "fio.log").read_text()


def start_fio(door: Path, folder: Path) -> "subprocess.Popen[bytes]":
    assert shutil.which("fio"), "fio is missing: run setup/prepare test"
    words = ["fio", "--name=kills", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={door}", "--rw=randrw"]
    words += [f"--size={SIZE}", "--bsrange=4k-64k", "--iodepth=16", "--loops=4", "--fsync=64", "--randseed=7"]
    words += ["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--do_verify=1"]
    with (folder / "fio.log").open("wb") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)


def kill_under_fio(engine: EngineProcess, control: Control, fio: "subprocess.Popen[bytes]") -> None:
    for kill in range(KILLS):
        deadline = time.monotonic() + 120
        while sum(session.written_bytes for session in control.call(SessionList()).sessions) < 2 * MIB:
            assert fio.poll() is None, f"fio ended after {kill} kills"
            assert time.monotonic() < deadline, "fio does not go on"
            time.sleep(0.002)
        engine.end(signal.SIGKILL)
        control.close()
        control = engine.start()
        control.call(OPEN)
    control.close()
