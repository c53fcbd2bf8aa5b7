"""What a thick volume needs no more is given back on the disk, beside a snapshot and over a kill."""

import signal
import time

import pytest

from gespann.seams.engine_socket import (
    Access,
    Configure,
    SharePair,
    Space,
    Target,
    TargetRemove,
    VolumeCreate,
    VolumeDelete,
    VolumeDrain,
    VolumeResize,
    VolumeSnapshot,
)
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
SNAPSHOT = "6090a028a030f846d8d6546fbd0130c6"
ROOM = MIB  # for what a file system keeps of files, and a chunk that is cut


def wait_for(control: Control, used_bytes: int) -> None:
    """Until the volumes' files occupy so much, and no less."""
    deadline = time.monotonic() + 120
    while not used_bytes <= (found := control.call(Space()).used_bytes) < used_bytes + ROOM:
        assert time.monotonic() < deadline, f"{found} bytes are occupied, not {used_bytes}"
        time.sleep(0.02)


def serve(control: Control, volume: str) -> None:
    target = Target(volume=volume, name=NAME, online=True, access=[Access()])
    control.call(Configure(targets=[target], chap_users=[]))


@pytest.mark.parametrize("killed", [False, True])
def test_a_thick_volume_with_a_snapshot_gives_back_what_it_needs_no_more(engine: EngineProcess, killed: bool) -> None:
    def perhaps_killed(control: Control) -> Control:
        if not killed:
            return control
        engine.end(signal.SIGKILL)
        control.close()
        return engine.start()

    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB, thick=True))
    serve(control, VOLUME)
    session = Initiator(engine.port).login(NAME)
    for at in (0, 40 * MIB):
        assert session.write10(at // 512, b"\x01" * MIB).header[3] == 0
    assert session.read10(20 * MIB // 512, 128) == bytes(65536)  # in memory as zeroes from then on
    session.close()
    control.call(VolumeSnapshot(pairs=[SharePair(source=VOLUME, volume=SNAPSHOT)]))
    wait_for(control, 64 * MIB)
    control.call(VolumeResize(volume=VOLUME, size_bytes=16 * MIB))
    control = perhaps_killed(control)
    wait_for(control, 17 * MIB)  # 1 MiB is the snapshot's, behind the end of the volume
    control.call(VolumeResize(volume=VOLUME, size_bytes=32 * MIB))
    wait_for(control, 33 * MIB)
    control.call(Configure(targets=[], chap_users=[]))
    control.call(VolumeDrain(volume=VOLUME))
    control.call(VolumeDelete(volume=VOLUME))
    control = perhaps_killed(control)
    wait_for(control, 2 * MIB)
    serve(control, SNAPSHOT)
    session = Initiator(engine.port).login(NAME)
    assert session.read10(0, 2048) == session.read10(40 * MIB // 512, 2048) == b"\x01" * MIB
    assert session.read10(20 * MIB // 512, 2048) == bytes(MIB)
    session.close()
    control.call(TargetRemove(volume=SNAPSHOT))
    control.close()
