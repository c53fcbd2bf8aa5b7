"""One guest for all tests here, an engine for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.product.engine.engine_process import Control
from tests.product.engine.kernel_initiator.guest import Guest
from tests.product.engine.kernel_initiator.linux_host import LinuxHost
from tests.product.engine.kernel_initiator.wires import EngineOnWires, Wires

INITIATOR_IMAGE = ROOT / "var/cache/initiator"


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LinuxHost, Wires]]:
    if not (INITIATOR_IMAGE / "initrd").exists():
        pytest.fail(f"{INITIATOR_IMAGE} is missing: run setup/prepare test", pytrace=False)
    wires = Wires()
    guest = Guest(INITIATOR_IMAGE, tmp_path_factory.mktemp("guest"), wires.enter, list(wires.taps))
    try:
        guest.wait_until_up()
        host = LinuxHost(guest)
        host.set_up()
        yield host, wires
    finally:
        guest.stop()
        wires.close()


@pytest.fixture
def wires(booted: tuple[LinuxHost, Wires]) -> Wires:
    return booted[1]


@pytest.fixture
def engine(engine_path: Path, tmp_path: Path, wires: Wires) -> Iterator[EngineOnWires]:
    process = EngineOnWires(engine_path, tmp_path, wires)
    yield process
    process.stop()


@pytest.fixture
def host(booted: tuple[LinuxHost, Wires], control: Control) -> Iterator[LinuxHost]:
    """Knows no target. ``control`` comes first, so that the engine is there when sessions end."""
    yield booted[0]
    booted[1].heal_all()
    booted[0].forget_all()
