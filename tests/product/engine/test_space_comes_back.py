"""At a limit: what a thick volume was promised is written all the same, and what is on its way back is waited for."""

import time

import pytest

from gespann.seams.engine_socket import (
    Access,
    Configure,
    SharePair,
    Space,
    SpaceLimit,
    Target,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeSnapshot,
)
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator
from tests.product.engine.test_disk_faults import NO_SPACE, SYNCHRONIZE_CACHE, sense_of_write

pytestmark = pytest.mark.engine
SNAPSHOT = "6090a028a030f846d8d6546fbd0130c6"
PIECE = 64 * 1024
WRITTEN = 16 * MIB
PATIENCE_S = 2.0  # a write waits no longer in all; on a slow machine the space may come later than that


def open_to_all(control: Control, volume: str) -> None:
    control.call(Configure(targets=[Target(volume=volume, name=NAME, online=True, access=[Access()])], chap_users=[]))


def fill(initiator: Initiator, byte: int) -> None:
    for at in range(0, WRITTEN, PIECE):
        assert sense_of_write(initiator, at // 512, bytes([byte]) * PIECE) == ""
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")


def filled(engine: EngineProcess) -> tuple[Control, Initiator]:
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB))
    open_to_all(control, VOLUME)
    initiator = Initiator(engine.port).login(NAME)
    fill(initiator, 1)
    return control, initiator


def limit_to_what_is_used(control: Control) -> int:
    used_bytes: int = control.call(Space()).used_bytes
    control.call(SpaceLimit(limit_bytes=used_bytes, warn_percent=80))
    return used_bytes


def test_a_write_waits_for_what_a_deleted_snapshot_gives_back(engine: EngineProcess) -> None:
    control, initiator = filled(engine)
    control.call(VolumeSnapshot(pairs=[SharePair(source=VOLUME, volume=SNAPSHOT)]))
    fill(initiator, 2)
    limit_to_what_is_used(control)
    control.call(VolumeDelete(volume=SNAPSHOT))
    began = time.monotonic()
    while sense_of_write(initiator, 32 * MIB // 512, b"\x03" * PIECE):
        assert time.monotonic() - began >= PATIENCE_S, "the space was on its way, and not waited for"
    assert initiator.read10(32 * MIB // 512, 128) == b"\x03" * PIECE
    assert initiator.read10(0, 128) == b"\x02" * PIECE
    initiator.close()
    control.close()


def test_a_thick_copy_is_written_at_the_limit_and_a_thin_one_is_not(engine: EngineProcess) -> None:
    control, initiator = filled(engine)
    control.call(VolumeClone(source=VOLUME, volume=SNAPSHOT, thick=True))
    used_bytes = limit_to_what_is_used(control)
    assert sense_of_write(initiator, 32 * MIB // 512, b"\x03" * PIECE) == NO_SPACE
    initiator.close()
    open_to_all(control, SNAPSHOT)
    initiator = Initiator(engine.port).login(NAME)
    for at in range(0, 64 * MIB, MIB):
        assert sense_of_write(initiator, at // 512, b"\x04" * PIECE) == ""
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
    grown_bytes = control.call(Space()).used_bytes - used_bytes
    assert grown_bytes < MIB, "all but what a file system keeps of files was counted when it was promised"
    initiator.close()
    control.close()
