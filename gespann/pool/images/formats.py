"""Disks as files of other formats, streamed: what has to be known before the first byte, then the bytes."""

import struct
from collections.abc import AsyncIterator, Callable, Iterable

from gespann.pool.images import qcow2, vhd
from gespann.pool.images.differences import differing_blocks
from gespann.pool.images.nbd import NbdClient
from gespann.pool.images.streams import EndedEarly, Pieces, Sink
from gespann.pool.images.xva import premature
from gespann.seams.xenapi.errors import XenApiError

VHD, QCOW2, CHUNKED = "vhd", "qcow2", "chunked"
Progress = Callable[[float], None]
Begin = Callable[[int], None]  # told the length of what will come
#: one piece of a raw image that says where it belongs; a longer one would have to be held in memory
CHUNK_LIMIT_BYTES = 64 * 1024 * 1024


async def write_vhd(image: NbdClient, uuid: str, made_s: int, sink: Sink, begin: Begin, progress: Progress) -> None:
    """A dynamic image of all that the disk holds."""
    blocks = [number async for number in _held(image, vhd.BLOCK_BYTES)]
    await _write_vhd(image, vhd.Outline(image.size_bytes, uuid, blocks, made_s), sink, begin, progress)


async def write_vhd_difference(
    image: NbdClient,
    base: NbdClient,
    uuids: tuple[str, str],
    made_s: int,
    sink: Sink,
    begin: Begin,
    progress: Progress,
) -> None:
    """``uuids``: of the disk and of its base, whose differences make the image."""
    blocks = [
        number async for number, _ in differing_blocks(image, base, vhd.BLOCK_BYTES, lambda done: progress(done / 2))
    ]
    parent = (uuids[1], f"{uuids[1]}.vhd")
    outline = vhd.Outline(image.size_bytes, uuids[0], blocks, made_s, parent)
    await _write_vhd(image, outline, sink, begin, lambda done: progress(0.5 + done / 2))


async def _write_vhd(image: NbdClient, outline: vhd.Outline, sink: Sink, begin: Begin, progress: Progress) -> None:
    begin(outline.length_bytes)
    blocks = _told(image.read_blocks(_row(outline.blocks), vhd.BLOCK_BYTES), len(outline.blocks), progress)
    await vhd.write(outline, blocks, sink)


async def write_qcow2(image: NbdClient, sink: Sink, begin: Begin, progress: Progress) -> None:
    runs: list[tuple[int, int]] = []
    async for number in _held(image, qcow2.CLUSTER_BYTES):
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    outline = qcow2.Outline(image.size_bytes, runs)
    begin(outline.length_bytes)
    numbers = (number for first, count in runs for number in range(first, first + count))
    clusters = image.read_blocks(_row(numbers), qcow2.CLUSTER_BYTES)
    await qcow2.write(outline, _told(clusters, outline.clusters, progress), sink)


async def _held(image: NbdClient, block_bytes: int) -> AsyncIterator[int]:
    """The numbers of blocks that may hold something, rising."""
    following = 0
    async for offset, length in image.extents():
        for number in range(max(following, offset // block_bytes), (offset + length - 1) // block_bytes + 1):
            yield number
            following = number + 1


async def _row(numbers: Iterable[int]) -> AsyncIterator[int]:
    for number in numbers:
        yield number


async def _told(
    blocks: AsyncIterator[tuple[int, bytes]], count: int, progress: Progress
) -> AsyncIterator[tuple[int, bytes]]:
    done = 0
    async for block in blocks:
        yield block
        done += 1
        progress(done / count)


async def read_into(image: NbdClient, format_name: str, body: AsyncIterator[bytes], progress: Progress) -> None:
    """A stranger's image into the disk, which is as large or larger; flushed. IMPORT_ERROR and its like;
    VDI_TOO_SMALL."""
    try:
        pieces = Pieces(body)
        if format_name == VHD:
            await _read_vhd(image, pieces, progress)
        elif format_name == QCOW2:
            await _read_qcow2(image, pieces, progress)
        else:
            await _read_chunks(image, pieces, progress)
    except EndedEarly:
        raise premature() from None
    await image.flush()


async def _read_vhd(image: NbdClient, pieces: Pieces, progress: Progress) -> None:
    if not (await pieces.peek(len(vhd.COOKIE))).startswith(vhd.COOKIE):
        await image.write_zeroes(0, image.size_bytes)
        await vhd.read_fixed(pieces, image.size_bytes, image.write, progress)
        return
    reader = vhd.Reader(pieces)
    incoming = await reader.begin()
    _assert_fits(image, incoming.size_bytes)
    if not incoming.is_difference:
        await image.write_zeroes(0, image.size_bytes)
    await reader.write_to(incoming, image.write, progress)


async def _read_qcow2(image: NbdClient, pieces: Pieces, progress: Progress) -> None:
    reader = qcow2.Reader(pieces)
    incoming = await reader.begin()
    _assert_fits(image, incoming.size_bytes)
    await image.write_zeroes(0, image.size_bytes)
    await reader.write_to(incoming, image.write, progress)


async def _read_chunks(image: NbdClient, pieces: Pieces, progress: Progress) -> None:
    """Raw pieces, each behind its offset (64 bits, little-endian) and its length (32 bits); zeroes for both end
    them."""
    while True:
        offset, length = struct.unpack("<QI", await pieces.exactly(12))
        if offset == 0 and length == 0:
            return
        if length > CHUNK_LIMIT_BYTES:
            raise XenApiError("IMPORT_ERROR", [f"a piece of {length} bytes; at most {CHUNK_LIMIT_BYTES} are taken"])
        _assert_fits(image, offset + length)
        await image.write(offset, await pieces.exactly(length))
        progress((offset + length) / image.size_bytes)


def _assert_fits(image: NbdClient, size_bytes: int) -> None:
    if size_bytes > image.size_bytes:
        raise XenApiError("VDI_TOO_SMALL", [str(image.size_bytes), str(size_bytes)])
