"""An engine for each test, with one open volume unless the test says otherwise."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Access, Configure, Target, VolumeCreate
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

VOLUME = "6090a028a030f846d8d6546fbd0130c5"
NAME = "iqn.2001-05.com.equallogic:0-8a0906-46f830a02-c53001bd6f54d6d8-vol1"
MIB = 1 << 20


@pytest.fixture
def engine(engine_path: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(engine_path, tmp_path)
    yield process
    process.stop()


@pytest.fixture
def control(engine: EngineProcess) -> Iterator[Control]:
    """Of a started engine with one volume of 64 MiB and nothing configured."""
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB))
    yield control
    control.close()


@pytest.fixture
def serve(control: Control) -> Callable[..., Target]:
    """Configures one target over the volume; gives it back, for a later change."""

    def configure(*access: Access, **fields: object) -> Target:
        target = Target(volume=VOLUME, name=NAME, online=True, access=list(access) or [Access()], **fields)  # type: ignore[arg-type]
        control.call(Configure(targets=[target], chap_users=[]))
        return target

    return configure


@pytest.fixture
def connect(engine: EngineProcess, control: Control) -> Iterator[Callable[..., Initiator]]:
    """Opens connections that are closed at the end; not logged in."""
    opened: list[Initiator] = []

    def open_one(**fields: object) -> Initiator:
        opened.append(Initiator(engine.port, **fields))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for initiator in opened:
        initiator.close()
