"""The file system below the engine is full, or loses writes."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import Access, Configure, Target, VolumeClone, VolumeCreate, VolumeList, VolumeThick
from gespann.seams.json_lines import SeamError
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import EngineProcess
from tests.product.engine.initiator import Initiator
from tests.product.engine.mode_pages import CACHING, WRITE_CACHE_ENABLED, mode_page, mode_select
from tests.product.engine.preloaded import LOSES_WRITES, preload

pytestmark = pytest.mark.engine
OPEN = Configure(targets=[Target(volume=VOLUME, name=NAME, online=True, access=[Access()])], chap_users=[])
SYNCHRONIZE_CACHE = b"\x35" + bytes(9)
WRITE_ERROR, NO_SPACE = "3/0c/00", "7/27/07"


def sense_of_write(initiator: Initiator, lba: int, data: bytes, flags: int = 0) -> str:
    """Sense of a WRITE(10), empty if it was GOOD."""
    cdb = struct.pack(">BBIBHB", 0x2A, flags, lba, 0, len(data) // 512, 0)
    initiator.command(cdb, write=data, immediate=data)
    answer = initiator.receive()
    if answer.header[3] == 0:
        return ""
    sense = answer.data[2:]
    return f"{sense[2]:x}/{sense[12]:02x}/{sense[13]:02x}"


class EngineOnSmallDisk(EngineProcess):
    """Its data directory is a file system of 8 MiB of its own, in a mount namespace that ends with the engine."""

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        script = 'mount -t tmpfs -o size=8m,mode=700 gespann-test "$1" && shift && exec "$@"'
        # root needs no user namespace of its own, and in a chroot could not have one
        unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        return [*unshare, "sh", "-c", script, "sh", str(data), *super().command()]


@pytest.fixture
def small(engine_path: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineOnSmallDisk(engine_path, tmp_path)
    yield process
    process.stop()


def test_a_full_file_system_is_told_as_no_space_and_loses_nothing(small: EngineProcess) -> None:
    control = small.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=64 * MIB))
    control.call(OPEN)
    initiator = Initiator(small.port).login(NAME)
    piece = 64 * 1024
    written = 0
    while not (sense := sense_of_write(initiator, written * piece // 512, bytes([written % 250 + 1]) * piece)):
        written += 1
        assert written * piece < 8 * MIB, "more was taken than there is room"
    assert sense == NO_SPACE
    assert written * piece > 5 * MIB  # the rest is the log of the maps
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
    for index in range(written):
        assert initiator.read10(index * piece // 512, 128) == bytes([index % 250 + 1]) * piece
    assert sense_of_write(initiator, 0, b"\xee" * 4096) == "", "what has its space can be overwritten"
    with pytest.raises(SeamError, match="NO_SPACE"):
        control.call(VolumeThick(volume=VOLUME, thick=True))
    with pytest.raises(SeamError, match="NO_SPACE"):
        control.call(VolumeClone(source=VOLUME, volume="1" * 32, thick=True))
    assert [volume.volume for volume in control.call(VolumeList()).volumes] == [VOLUME]
    unmap = struct.pack(">HHIQII", 22, 16, 0, 0, 2 * MIB // 512, 0)
    initiator.command(struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(unmap), 0), write=unmap, immediate=unmap)
    assert initiator.receive().header[3] == 0
    assert sense_of_write(initiator, written * piece // 512, b"\x77" * piece) == "", "space is back, writes go on"
    control.close()


def test_thick_volumes_have_their_space_when_others_have_none(small: EngineProcess) -> None:
    control = small.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=4 * MIB, thick=True))
    thin = "1" * 32
    control.call(VolumeCreate(volume=thin, size_bytes=64 * MIB))
    names = {VOLUME: NAME, thin: "iqn.2026-01.test:thin"}
    targets = [Target(volume=volume, name=name, online=True, access=[Access()]) for volume, name in names.items()]
    control.call(Configure(targets=targets, chap_users=[]))
    taker, owner = Initiator(small.port).login(names[thin]), Initiator(small.port).login(NAME)
    block = 0
    while not sense_of_write(taker, block, b"\x01" * 65536):
        block += 128
    unmap = struct.pack(">HHIQII", 22, 16, 0, 0, 4 * MIB // 512, 0)
    owner.command(struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(unmap), 0), write=unmap, immediate=unmap)
    assert owner.receive().header[3] == 0
    for block in range(0, 4 * MIB // 512, 128):
        assert sense_of_write(owner, block, b"\x02" * 65536) == ""
    control.close()


def test_a_lost_write_is_told_by_every_command_that_promises_stable_storage(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = preload(LOSES_WRITES, tmp_path, monkeypatch)
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=MIB))
    control.call(OPEN)
    initiator = Initiator(engine.port).login(NAME)
    fua = 0x08
    assert sense_of_write(initiator, 0, b"\x01" * 512, fua) == ""
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
    switch.touch()
    assert sense_of_write(initiator, 0, b"\x02" * 512) == "", "a cached write promises nothing"
    assert sense_of_write(initiator, 0, b"\x02" * 512, fua) == WRITE_ERROR
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (2, WRITE_ERROR)
    switch.unlink()
    # The system has told of the loss once and would say "good" from here on: the engine does not.
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (2, WRITE_ERROR)
    assert sense_of_write(initiator, 0, b"\x03" * 512, fua) == WRITE_ERROR
    control.close()
    assert engine.end() == 1, "it does not end as if all were flushed"


def test_without_a_write_cache_nothing_is_good_that_is_not_on_stable_storage(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before the cache was switched off needs SYNCHRONIZE CACHE; the rest is durable when answered."""
    switch = preload(LOSES_WRITES, tmp_path, monkeypatch)
    control = engine.start()
    control.call(VolumeCreate(volume=VOLUME, size_bytes=MIB))
    control.call(OPEN)
    initiator = Initiator(engine.port).login(NAME)
    assert sense_of_write(initiator, 0, b"\x01" * 512) == ""
    page = bytearray(mode_page(initiator, *CACHING))
    page[2] &= ~WRITE_CACHE_ENABLED
    assert mode_select(initiator, bytes(page)) == 0
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (0, "")
    assert sense_of_write(initiator, 8, b"\x02" * 512) == ""
    page[2] |= WRITE_CACHE_ENABLED
    assert mode_select(initiator, bytes(page)) == 0
    assert sense_of_write(initiator, 0, b"\x03" * 512) == ""
    page[2] &= ~WRITE_CACHE_ENABLED
    assert mode_select(initiator, bytes(page)) == 0
    switch.touch()
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (2, WRITE_ERROR), "the cached write is lost"
    engine.end()
    switch.unlink()
    control.close()
    control = engine.start()
    control.call(OPEN)
    initiator = Initiator(engine.port).login(NAME)
    assert mode_select(initiator, bytes(page)) == 0
    switch.touch()
    assert sense_of_write(initiator, 8, b"\x04" * 512) == WRITE_ERROR
    assert initiator.status_of(SYNCHRONIZE_CACHE) == (2, WRITE_ERROR)
    control.close()
