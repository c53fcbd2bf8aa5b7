"""`gespann-engine check` and `export`, on a data directory that no engine runs on."""

import os
import secrets
import signal
import subprocess
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Access, Configure, SharePair, Target, VolumeSnapshot
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
SNAPSHOT = "7" + VOLUME[1:]


@pytest.fixture
def left(engine: EngineProcess, control: Control) -> tuple[EngineProcess, bytes, bytes]:
    """A killed engine's data: a volume that was written, had a snapshot taken and was written again."""
    control.call(Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[]))
    initiator = Initiator(engine.port).login(NAME)
    old = secrets.token_bytes(MIB)
    for block in range(0, 2048, 128):
        assert initiator.write10(block, old[block * 512 : block * 512 + 65536], immediate=0).header[3] == 0
    control.call(VolumeSnapshot(pairs=[SharePair(source=VOLUME, volume=SNAPSHOT)]))
    new = bytearray(old)
    for block, length in ((3, 1), (120, 16), (512, 128), (1000, 256)):
        data = secrets.token_bytes(length * 512)
        assert initiator.write10(block, data, immediate=0).header[3] == 0
        new[block * 512 : (block + length) * 512] = data
    engine.end(signal.SIGKILL)
    return engine, old, bytes(new)


def run(engine: EngineProcess, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([engine.binary, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


def exported(engine: EngineProcess, volume: str, to: Path) -> bytes:
    done = run(engine, "export", "--data", engine.folder / "data", "--volume", volume, "--to", to)
    assert done.returncode == 0, done.stderr
    return to.read_bytes()


def test_a_killed_engines_data_is_sound_and_comes_out_as_images(
    left: tuple[EngineProcess, bytes, bytes], tmp_path: Path
) -> None:
    engine, old, new = left
    done = run(engine, "check", "--data", engine.folder / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 volumes, all sound" in done.stdout
    assert f"volume {SNAPSHOT} {64 * MIB} bytes, thin, sound" in done.stdout
    image = tmp_path / "image"
    assert exported(engine, VOLUME, image) == new + bytes(63 * MIB)
    assert exported(engine, SNAPSHOT, tmp_path / "snapshot") == old + bytes(63 * MIB)
    assert image.stat().st_blocks * 512 < 2 * MIB, "holes stay holes"
    again = run(engine, "export", "--data", engine.folder / "data", "--volume", VOLUME, "--to", image)
    assert again.returncode == 1
    assert "cannot make" in again.stderr
    assert image.read_bytes()[:MIB] == new


def test_a_damaged_checkpoint_is_told_and_repaired_from_the_one_before(
    left: tuple[EngineProcess, bytes, bytes], tmp_path: Path
) -> None:
    engine, _, new = left
    control = engine.start()  # the changes are in a checkpoint of their own now
    control.close()
    engine.end(signal.SIGTERM)
    maps = engine.folder / "data/map"
    newest = max(maps.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    with newest.open("r+b") as file:
        file.seek(18)
        file.write(b"\xff\xfe\xfd")
    before = {path.name: path.read_bytes() for path in maps.iterdir()}
    assert engine_refuses(engine)
    done = run(engine, "check", "--data", engine.folder / "data")
    assert done.returncode == 1
    assert f"{newest.name} is damaged" in done.stdout
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == before
    assert exported(engine, VOLUME, tmp_path / "image")[:MIB] == new
    done = run(engine, "check", "--data", engine.folder / "data", "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 volumes, all sound" in done.stdout
    control = engine.start()
    control.call(Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[]))
    assert Initiator(engine.port).login(NAME).read10(512, 128) == new[512 * 512 : 640 * 512]
    control.close()


def engine_refuses(engine: EngineProcess) -> bool:
    done = subprocess.run(engine.command(), capture_output=True, text=True, timeout=120, check=False)
    return done.returncode == 1 and "is damaged" in done.stderr and "--repair" in done.stderr


def test_a_missing_data_file_is_named_and_only_its_volumes_suffer(left: tuple[EngineProcess, bytes, bytes]) -> None:
    engine, old, _ = left
    spill = next((engine.folder / "data/volumes").glob("*.more"))
    os.unlink(spill)
    done = run(engine, "check", "--data", engine.folder / "data")
    assert done.returncode == 1
    assert f"error: volume {VOLUME}: its data file {spill.name} is missing" in done.stdout
    assert f"volume {SNAPSHOT} {64 * MIB} bytes, thin, sound" in done.stdout
    done = run(engine, "check", "--data", engine.folder / "data", "--repair")
    assert done.returncode == 0
    assert "read as zeroes now" in done.stdout
    control = engine.start()
    control.call(Configure(targets=[Target(volume=SNAPSHOT, name=NAME, online=True, access=[Access()])], chap_users=[]))
    assert Initiator(engine.port).login(NAME).read10(0, 128) == old[:65536]
    control.close()


def test_wrong_use_is_refused_in_words(engine: EngineProcess, control: Control, tmp_path: Path) -> None:
    for words, expected in (
        (["check"], "--data is missing"),
        (["check", "--data", tmp_path / "nowhere"], "is no data directory"),
        (["check", "--data", engine.folder / "data"], "another engine is running"),
        (["export", "--data", engine.folder / "data", "--to", "x"], "--volume is missing"),
        (["export", "--data", engine.folder / "data", "--volume", "12"], "32 lower-case hex digits"),
        (["check", "--data", engine.folder / "data", "--volume", VOLUME], "is not known"),
    ):
        done = run(engine, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert expected in done.stderr, words
    assert not (tmp_path / "nowhere").exists()
    assert "gespann-engine export" in run(engine, "export", "--help").stdout
