"""What the benches stand on: volumes in memory, and a load generator whose answers are answers."""

import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engine import build_generator
from gespann.seams.engine_socket import Access, Configure, Target, VolumeCreate, VolumeList
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine


def test_volumes_in_memory_are_said_to_be_and_keep_nothing(engine: EngineProcess) -> None:
    engine.options = ["--memory-volumes"]
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=8 * MIB))
    control.call(Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[]))
    initiator = Initiator(engine.port).login(NAME)
    data = secrets.token_bytes(65536)
    initiator.write10(8, data)
    assert initiator.status_of(b"\x35" + bytes(9)) == (0, "")
    assert initiator.read10(8, 128) == data
    assert control.call(VolumeList(volume=VOLUME)).volumes[0].allocated_bytes < 65536
    assert "nothing that is written is kept" in engine.log.read_text()
    usage = subprocess.run([engine.binary, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--memory-volumes" not in usage
    initiator.close()
    control.close()


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_generator(tmp_path_factory.mktemp("generator"))


def run(generator: Path, place: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(generator), *place, *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("mode", ["read", "write", "randread", "randwrite"])
@pytest.mark.parametrize("size", ["4096", "1048576"])
def test_the_generator_counts_what_was_done(
    generator: Path, engine: EngineProcess, serve: Callable[..., Target], tmp_path: Path, mode: str, size: str
) -> None:
    serve()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(32 * MIB))
    over_iscsi = ["iscsi", "127.0.0.1", str(engine.port), NAME, "0"]
    for place in (over_iscsi, ["file", str(disk), "-", "-", "-"]):
        done = run(generator, place, mode, size, "8", "0.2", "32")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["ios"] > 0
        assert found["errors"] == 0
    if mode == "write":
        assert disk.read_bytes()[: int(size)] != bytes(int(size))


def test_the_generator_counts_refusals_as_errors(
    generator: Path, engine: EngineProcess, serve: Callable[..., Target], control: Control
) -> None:
    serve()
    beyond = run(generator, ["iscsi", "127.0.0.1", str(engine.port), NAME, "0"], "randread", "4096", "8", "0.2", "4096")
    assert json.loads(beyond.stdout)["errors"] > 0
    refused = run(generator, ["iscsi", "127.0.0.1", str(engine.port), NAME + "x", "0"], "read", "4096", "1", "0.1", "1")
    assert refused.returncode != 0
