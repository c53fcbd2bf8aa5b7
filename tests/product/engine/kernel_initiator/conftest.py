"""One guest for all tests here, an engine for each."""

import asyncio
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gespann.system import processes
from tests.conftest import ROOT
from tests.product.engine.engine_process import Control
from tests.product.engine.kernel_initiator.guest import IP, Guest
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
def ip_of_guest(booted: tuple[LinuxHost, Wires], monkeypatch: pytest.MonkeyPatch) -> Guest:
    """What the code of an agent says to ``ip`` is run in the guest."""
    found = booted[0].guest

    async def in_guest(words: Sequence[str], *, check: bool = True, **_: Any) -> processes.Result:
        assert words[0] == "ip"
        command = shlex.join([IP, *words[1:]])
        ended = await asyncio.to_thread(found.attempt, command)
        if check and ended.status:
            raise processes.CommandFailed(command, ended.status, ended.err)
        return processes.Result(command, ended.status, ended.out, ended.err)

    monkeypatch.setattr(processes, "run_async", in_guest)
    return found


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
