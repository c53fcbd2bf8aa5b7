"""Disks as VHD, qcow2 and raw pieces over the door; ``qemu-img`` says whether they are what they should be."""

import random
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gespann.pool.images import formats, qcow2, vhd
from gespann.pool.images.streams import EndedEarly, Pieces
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.door import ask
from tests.unit.pool.world import MIB, World

SIZE = 45 * MIB
QEMU_FORMAT = {"vhd": "vpc", "qcow2": "qcow2"}


def qemu_img(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def some_bytes(seed: int = 1) -> bytes:
    """Of a disk: mostly nothing, something at its ends and across borders."""
    chance, data = random.Random(seed), bytearray(SIZE)
    for at in (0, 2 * MIB - 300, 5 * MIB + 1, 17 * MIB, 31 * MIB + 4096, SIZE - 700):
        data[at : at + 700] = chance.randbytes(700)
    return bytes(data)


async def disk(world: World, data: bytes = b"", sr: str = "") -> str:
    vdi = await world.make_vdi(sr or await world.make_sr(), virtual_size=SIZE)
    for at in range(0, len(data), 65536):
        if data.count(0, at, at + 65536) != 65536:
            world.medium(vdi).write(at, data[at : at + 65536])
    return vdi


def contents(world: World, vdi: str) -> bytes:
    return world.medium(vdi).read(0, SIZE)


async def put(world: World, door: Path, vdi: str, query: str, data: bytes) -> list[str]:
    """[] or the error."""
    status, words = await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}&{query}", data)
    assert world.openings() == []
    return [] if status == 200 else words.decode().split(maxsplit=1)


@pytest.mark.parametrize("name", ["vhd", "qcow2"])
async def test_what_is_exported_is_read_by_others(world: World, door: Path, tmp_path: Path, name: str) -> None:
    data = some_bytes()
    vdi = await disk(world, data)
    status, image = await ask(door, world, f"GET /export_raw_vdi?vdi={vdi}&format={name}")
    assert status == 200
    (tmp_path / "image").write_bytes(image)
    if name == "qcow2":
        qemu_img("check", "-f", "qcow2", tmp_path / "image")
    qemu_img("convert", "-f", QEMU_FORMAT[name], "-O", "raw", tmp_path / "image", tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == data
    assert len(image) < SIZE / 2
    other = await disk(world, b"something else", world.get("VDI", vdi)["SR"])
    assert await put(world, door, other, f"format={name.upper()}", image) == []
    assert contents(world, other) == data


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "vpc", "-o", "force_size=on"),
        ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
        ("-O", "qcow2"),
        ("-O", "qcow2", "-c"),
        ("-O", "qcow2", "-o", "cluster_size=4k"),
        ("-O", "qcow2", "-c", "-o", "cluster_size=2M,compat=0.10"),
    ],
    ids=" ".join,
)
async def test_images_of_others_come_in(world: World, door: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    data = some_bytes()
    (tmp_path / "raw").write_bytes(data)
    qemu_img("convert", "-f", "raw", *options, tmp_path / "raw", tmp_path / "image")
    vdi = await disk(world, some_bytes(2))
    name = "vhd" if "vpc" in options else "qcow2"
    assert await put(world, door, vdi, f"format={name}", (tmp_path / "image").read_bytes()) == []
    assert contents(world, vdi) == data


async def test_a_difference_goes_onto_a_copy_of_its_base(world: World, door: Path) -> None:
    old, new = some_bytes(1), bytearray(some_bytes(1))
    new[9 * MIB : 9 * MIB + 20] = b"what has changed ..."
    new[17 * MIB : 17 * MIB + 700] = bytes(700)
    base = await disk(world, old)
    sr = world.get("VDI", base)["SR"]
    vdi, copy = await disk(world, bytes(new), sr), await disk(world, old, sr)
    status, image = await ask(door, world, f"GET /export_raw_vdi?vdi={vdi}&format=vhd&base={base}")
    assert (status, len(image) < 6 * MIB) == (200, True)
    assert await put(world, door, copy, "format=vhd", image) == []
    assert contents(world, copy) == bytes(new)
    status, words = await ask(door, world, f"GET /export_raw_vdi?vdi={vdi}&format=qcow2&base={base}")
    assert (status, words.split()[0]) == (500, b"VALUE_NOT_SUPPORTED")


async def test_raw_pieces_say_where_they_belong(world: World, door: Path) -> None:
    vdi = await disk(world, b"first bytes")
    pieces = [(7 * MIB, b"seven"), (6, b"words"), (SIZE - 3, b"end")]
    body = b"".join(struct.pack("<QI", at, len(data)) + data for at, data in pieces)
    assert await put(world, door, vdi, "format=raw&chunked=true", body + bytes(12)) == []
    data = contents(world, vdi)
    assert (data[:11], data[7 * MIB :][:6], data[-3:]) == (b"first words", b"seven\0", b"end")
    assert (await put(world, door, vdi, "chunked=true", body))[0] == "IMPORT_ERROR_PREMATURE_EOF"
    beyond = struct.pack("<QI", SIZE - 1, 2) + b"xx"
    assert (await put(world, door, vdi, "chunked=true", beyond))[0] == "VDI_TOO_SMALL"
    assert (await put(world, door, vdi, "chunked=true", struct.pack("<QI", 0, 1 << 31)))[0] == "IMPORT_ERROR"
    assert (await put(world, door, vdi, "chunked=true&format=vhd", beyond))[0] == "VALUE_NOT_SUPPORTED"


async def test_a_fixed_vhd_that_is_not_one(world: World, door: Path, tmp_path: Path) -> None:
    """It says only at its end what it is."""
    vdi = await disk(world)
    (tmp_path / "raw").write_bytes(some_bytes()[: 3 * MIB])
    fixed = ("-O", "vpc", "-o", "subformat=fixed,force_size=on")
    qemu_img("convert", "-f", "raw", *fixed, tmp_path / "raw", tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    assert await put(world, door, vdi, "format=vhd", good) == []
    damaged = bytearray(good)
    damaged[-450] ^= 1
    for image, code in (
        (good[:-512], "IMPORT_ERROR"),
        (good[:-1], "IMPORT_ERROR"),
        (good[512:], "IMPORT_ERROR"),
        (good[:100], "IMPORT_ERROR"),
        (bytes(damaged), "IMPORT_ERROR_SOME_CHECKSUMS_FAILED"),
        (bytes(SIZE) + good, "VDI_TOO_SMALL"),
    ):
        assert (await put(world, door, vdi, "format=vhd", image))[0] == code, len(image)


async def test_images_that_nobody_should_take(world: World, door: Path, tmp_path: Path) -> None:
    vdi = await disk(world)
    (tmp_path / "raw").write_bytes(some_bytes())
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "good.qcow2")
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", tmp_path / "raw", tmp_path / "good.vhd")
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed", tmp_path / "raw", tmp_path / "fixed.vhd")
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", tmp_path / "backed.qcow2", "1M")
    outside = f"data_file={tmp_path}/data,data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", outside, tmp_path / "outside.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", tmp_path / "extended.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", tmp_path / "large.qcow2", "1T")
    qemu_img("create", "-f", "vpc", tmp_path / "large.vhd", "1T")
    (tmp_path / "junk.vhd").write_bytes(b"conectix" + bytes(4096))
    expected = {
        "backed.qcow2": "IMPORT_ERROR",
        "outside.qcow2": "IMPORT_ERROR",
        "extended.qcow2": "IMPORT_ERROR",
        "raw": "IMPORT_ERROR",
        "fixed.vhd": "IMPORT_ERROR",
        "junk.vhd": "IMPORT_ERROR_SOME_CHECKSUMS_FAILED",
        "large.qcow2": "VDI_TOO_SMALL",
        "large.vhd": "VDI_TOO_SMALL",
    }
    for name, code in expected.items():
        for kind in ("vhd", "qcow2") if name == "raw" else (name.partition(".")[2],):
            error = await put(world, door, vdi, f"format={kind}", (tmp_path / name).read_bytes()[: 8 * MIB])
            assert error[0] == code, name
    for name in ("good.vhd", "good.qcow2"):
        image = (tmp_path / name).read_bytes()
        for cut in (100, 2000, len(image) // 2):
            error = await put(world, door, vdi, f"format={name.partition('.')[2]}", image[:cut])
            assert error[0] == "IMPORT_ERROR_PREMATURE_EOF", (name, cut)
    for query in ("format=tar", "chunked=perhaps"):
        assert (await put(world, door, vdi, query, b"x"))[0] == "VALUE_NOT_SUPPORTED"


# -- any damage at all


class Disk:
    """Only what a reader of images may do to one."""

    def __init__(self) -> None:
        self.size_bytes = SIZE

    async def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= self.size_bytes

    async def write_zeroes(self, offset: int, length: int) -> None:
        await self.write(offset, b"")

    async def flush(self) -> None:
        return None


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 10_000):
        yield data[at : at + 10_000]


def damage_anywhere(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.choice((chance.randrange(len(damaged)), chance.randrange(1600), chance.randrange(300_000)))
        damaged[at : at + 8] = chance.choice((chance.randbytes(8), bytes(8), b"\xff" * 8))[: len(damaged) - at]
    return bytes(damaged)


def sealed_again(data: bytes) -> bytes:
    """A VHD whose checksums are right again, so that what is behind them is looked at."""
    damaged = bytearray(data)
    for start, length, at in ((0, 512, 64), (512, 1024, 36)):
        damaged[start + at : start + at + 4] = bytes(4)
        total = ~sum(damaged[start : start + length]) & 0xFFFFFFFF
        damaged[start + at : start + at + 4] = total.to_bytes(4, "big")
    return bytes(damaged)


async def code_of(reading: Awaitable[None]) -> str:
    """Of the refusal, if it is one."""
    try:
        await reading
    except XenApiError as error:
        return error.code
    return ""


@pytest.mark.parametrize(("name", "seal"), [("vhd", sealed_again), ("qcow2", bytes), ("qcow2 -c", bytes)])
async def test_damage_is_refused_or_harmless(tmp_path: Path, name: str, seal: Callable[[bytes], bytes]) -> None:
    (tmp_path / "raw").write_bytes(some_bytes()[: 3 * MIB])
    kind, *packed = name.split()
    words = ["convert", "-f", "raw", "-O", QEMU_FORMAT[kind], *packed]
    qemu_img(*words, tmp_path / "raw", tmp_path / "image")
    good = (tmp_path / "image").read_bytes()
    refused = 0
    for seed in range(120):
        damaged = seal(damage_anywhere(good, random.Random(seed)))
        reading = formats.read_into(Disk(), kind, in_pieces(damaged), lambda done: None)  # type: ignore[arg-type]
        code = await code_of(reading)
        assert code == "" or code.startswith("IMPORT_ERROR") or code == "VDI_TOO_SMALL", seed
        refused += code != ""
    assert refused > 2


async def test_a_table_that_points_back_is_no_stream() -> None:
    outline = qcow2.Outline(MIB, [(0, 1)])
    image = bytearray(outline.head() + b"".join(outline.tables()) + bytes(qcow2.CLUSTER_BYTES))
    l2 = outline.layout[3] * qcow2.CLUSTER_BYTES
    image[l2 : l2 + 8] = struct.pack(">Q", qcow2.CLUSTER_BYTES | qcow2.COPIED)
    with pytest.raises(XenApiError, match="cannot be read as a stream"):
        await formats.read_into(Disk(), "qcow2", in_pieces(bytes(image)), lambda done: None)  # type: ignore[arg-type]


async def test_a_footer_that_ends_too_early() -> None:
    with pytest.raises(EndedEarly):
        await vhd.Reader(Pieces(in_pieces(b"conectix"))).begin()
