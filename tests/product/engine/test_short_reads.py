"""Short reads of a volume that is read often: they come from mapped pages, and show what every other way shows."""

import platform
import random
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gespann.seams.engine_socket import Configure, Target, VolumeClone, VolumeResize
from tests.product.engine.conftest import MIB, NAME, VOLUME
from tests.product.engine.engine_process import Control, EngineProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
Connect = Callable[..., Initiator]
Serve = Callable[..., Target]
BLOCKS = MIB // 512
PAGE = 8  # blocks
OTHER, OTHER_NAME = VOLUME[:-1] + "6", NAME + "-other"


def read_often(initiator: Initiator, model: bytearray) -> None:
    """More often than it takes until the file is mapped."""
    for turn in range(400):
        check_page(initiator, model, turn % (BLOCKS // PAGE))


def check_page(initiator: Initiator, model: bytearray, page: int) -> None:
    at = page * PAGE * 512
    assert initiator.read10(page * PAGE, PAGE) == model[at : at + PAGE * 512], f"page {page}"


def unmap(initiator: Initiator, lba: int, blocks: int) -> None:
    parameters = struct.pack(">HH4xQI4x", 22, 16, lba, blocks)
    initiator.command(struct.pack(">B6xHx", 0x42, len(parameters)), write=parameters, immediate=parameters)
    assert initiator.receive().header[3] == 0


def change(initiator: Initiator, model: bytearray, chance: random.Random) -> int:
    """Writes to, or unmaps, a few pages; the first of them."""
    page, pages = chance.randrange(BLOCKS // PAGE - 4), chance.randrange(1, 5)
    start, end = page * PAGE * 512, (page + pages) * PAGE * 512
    if chance.random() < 0.3:
        unmap(initiator, page * PAGE, pages * PAGE)
        model[start:end] = bytes(end - start)
    else:
        data = chance.randbytes(end - start)
        assert initiator.write10(page * PAGE, data, immediate=min(len(data), 8192)).header[3] == 0
        model[start:end] = data
    return page


def mapped_files(engine: EngineProcess) -> int:
    assert engine.process is not None
    maps = Path(f"/proc/{engine.process.pid}/maps").read_text().splitlines()
    return sum(1 for line in maps if "/volumes/" in line)


def test_short_reads_show_every_change(engine: EngineProcess, connect: Connect, serve: Serve) -> None:
    serve()
    initiator, chance = connect().login(NAME), random.Random(1)
    model = bytearray(chance.randbytes(MIB))
    initiator.write10(0, bytes(model))
    assert mapped_files(engine) == 0
    read_often(initiator, model)
    assert mapped_files(engine) == (1 if platform.machine() == "x86_64" else 0)
    for _ in range(300):
        page = change(initiator, model, chance)
        check_page(initiator, model, page)
        check_page(initiator, model, chance.randrange(BLOCKS // PAGE))
    read_often(initiator, model)


def test_a_clone_and_its_source_show_their_own(control: Control, connect: Connect, serve: Serve) -> None:
    target = serve()
    source, chance = connect().login(NAME), random.Random(2)
    model = bytearray(chance.randbytes(MIB))
    source.write10(0, bytes(model))
    read_often(source, model)
    control.call(VolumeClone(source=VOLUME, volume=OTHER))
    control.call(
        Configure(targets=[target, msgspec.structs.replace(target, volume=OTHER, name=OTHER_NAME)], chap_users=[])
    )
    clone, model_of_clone = connect().login(OTHER_NAME), bytearray(model)
    for _ in range(100):
        for initiator, own in ((source, model), (clone, model_of_clone)):
            check_page(initiator, own, change(initiator, own, chance))
    read_often(clone, model_of_clone)
    read_often(source, model)


def test_a_volume_that_shrinks_and_grows_again(control: Control, connect: Connect, serve: Serve) -> None:
    serve()
    model = bytearray(b"\x5a" * MIB)
    initiator = connect().login(NAME)
    initiator.write10(0, bytes(model))
    read_often(initiator, model)
    control.call(VolumeResize(volume=VOLUME, size_bytes=MIB // 2))
    assert initiator.status_of(bytes(6)) == (2, "6/2a/09"), "the capacity has changed"
    beyond = struct.pack(">BBIBHB", 0x28, 0, BLOCKS // 2, 0, PAGE, 0)
    assert initiator.status_of(beyond, read=4096) == (2, "5/21/00")
    check_page(initiator, model, BLOCKS // PAGE // 2 - 1)
    control.call(VolumeResize(volume=VOLUME, size_bytes=MIB))
    assert initiator.status_of(bytes(6)) == (2, "6/2a/09")
    model[MIB // 2 :] = bytes(MIB // 2)
    read_often(initiator, model)
