"""VHD images as streams, after Microsoft's "Virtual Hard Disk Image Format Specification" (version 1.0).

    copy of the footer, header, block table (BAT), then for each block a bitmap of its sectors and 2 MiB, footer
    or, if it is a fixed one: all that the disk holds, footer

The table comes first, so which blocks there are must be known before the first byte goes out; what comes in must have
its blocks after its table, as every writer of dynamic disks makes it, and is then read in one go. A differencing image
has only what differs from its parent.
"""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from gespann.pool.images.streams import Pieces, Sink
from gespann.seams.xenapi.errors import XenApiError

SECTOR = 512
BLOCK_BYTES = 2 * 1024 * 1024
BITMAP_BYTES = BLOCK_BYTES // SECTOR // 8
LARGEST_BYTES = 2040 * 1024**3
FOOTER, HEADER = ">8sIIQI4sIIQQHBBII16sB427x", ">8sQQIIII16sII512s192s256x"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOWHERE = 0xFFFFFFFF
#: readers take the size from the footer, not from its geometry, when one of these has made the image
CREATOR = b"tap\0"
COOKIE = b"conectix"
EPOCH_2000_S = 946_684_800
BLOCK_LIMIT_BYTES = 16 * 1024 * 1024
TABLE_OFFSET = 3 * SECTOR

Write = Callable[[int, bytes], Awaitable[None]]


def broken(text: str) -> XenApiError:
    return XenApiError("IMPORT_ERROR", [f"VHD: {text}"])


# -- out


@dataclass(frozen=True)
class Outline:
    """What will be in the image. ``blocks``: the numbers of those that are there, rising. ``parent``: uuid and name of
    the disk that the others are taken from, for a differencing image."""

    size_bytes: int
    uuid: str
    blocks: list[int]
    made_s: int
    parent: tuple[str, str] | None = None

    @property
    def entries(self) -> int:
        return -(-self.size_bytes // BLOCK_BYTES)

    @property
    def table_bytes(self) -> int:
        return -(-4 * self.entries // SECTOR) * SECTOR

    @property
    def length_bytes(self) -> int:
        """Of the whole image."""
        return TABLE_OFFSET + self.table_bytes + len(self.blocks) * (BITMAP_BYTES + BLOCK_BYTES) + SECTOR

    def footer(self) -> bytes:
        kind = DIFFERENCING if self.parent else DYNAMIC
        fields: list[int | bytes] = [
            COOKIE,
            2,
            0x10000,
            SECTOR,
            max(0, self.made_s - EPOCH_2000_S),
            CREATOR,
            0x10003,
            0,
        ]
        fields += [self.size_bytes, self.size_bytes, *geometry(self.size_bytes), kind, 0, UUID(self.uuid).bytes, 0]
        return _with_checksum(FOOTER, fields, 14)

    def header(self) -> bytes:
        parent, name = (UUID(self.parent[0]).bytes, self.parent[1]) if self.parent else (bytes(16), "")
        fields: list[int | bytes] = [
            b"cxsparse",
            (1 << 64) - 1,
            TABLE_OFFSET,
            0x10000,
            self.entries,
            BLOCK_BYTES,
            0,
            parent,
        ]
        fields += [0, 0, name.encode("utf-16-be"), bytes(192)]
        return _with_checksum(HEADER, fields, 6)

    def table(self) -> bytes:
        table = [NOWHERE] * (self.table_bytes // 4)
        at = (TABLE_OFFSET + self.table_bytes) // SECTOR
        for number in self.blocks:
            table[number] = at
            at += (BITMAP_BYTES + BLOCK_BYTES) // SECTOR
        return struct.pack(f">{len(table)}I", *table)


async def write(outline: Outline, blocks: AsyncIterator[tuple[int, bytes]], sink: Sink) -> None:
    """``blocks``: those of the outline, in its order; the last one may be short."""
    await sink(outline.footer() + outline.header())
    await sink(outline.table())
    for_all = b"\xff" * BITMAP_BYTES
    async for _, data in blocks:
        await sink(for_all + data + bytes(BLOCK_BYTES - len(data)))
    await sink(outline.footer())


def geometry(size_bytes: int) -> tuple[int, int, int]:
    """Cylinders, heads, sectors: the specification's appendix."""
    total = min(size_bytes // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    sectors = 17
    tracks = total // sectors
    heads = max((tracks + 1023) // 1024, 4)
    for sectors_then, heads_then in ((31, 16), (63, 16)):
        if tracks >= heads * 1024 or heads > 16:
            sectors, heads = sectors_then, heads_then
            tracks = total // sectors
    return tracks // heads, heads, sectors


def _with_checksum(layout: str, fields: list[int | bytes], at: int) -> bytes:
    """The ones' complement of the sum of all bytes, but for the checksum's own."""
    fields[at] = ~sum(struct.pack(layout, *fields)) & 0xFFFFFFFF
    return struct.pack(layout, *fields)


# -- in


FIXED_PIECE_BYTES = 1024 * 1024


async def read_fixed(source: Pieces, most_bytes: int, write: Write, progress: Callable[[float], None]) -> None:
    """A fixed image, which says only at its end that it is one: what comes before its last 512 bytes is the disk.
    VDI_TOO_SMALL, IMPORT_ERROR; what has been written by then is not what was wanted."""
    at = 0

    async def put(data: bytes) -> None:
        nonlocal at
        if at + len(data) > most_bytes:
            raise XenApiError("VDI_TOO_SMALL", [str(most_bytes), str(at + len(data))])
        if data.count(0) != len(data):  # the disk is empty
            await write(at, data)
        at += len(data)
        progress(at / most_bytes)

    while len(await source.peek(FIXED_PIECE_BYTES + SECTOR)) == FIXED_PIECE_BYTES + SECTOR:
        await put(await source.exactly(FIXED_PIECE_BYTES))
    rest = await source.peek(FIXED_PIECE_BYTES + SECTOR)
    if len(rest) < SECTOR:
        raise broken("it ends before it has begun")
    await put(rest[:-SECTOR])
    held = rest[-SECTOR:]
    fields = struct.unpack(FOOTER, held)
    if fields[0] != COOKIE:
        raise broken("it neither begins nor ends like one, or was cut short")
    _assert_checksum(held, fields[14])
    if fields[13] != FIXED or fields[9] != at:
        raise broken(f"it ends like one of type {fields[13]} with {fields[9]} bytes, after {at}")


@dataclass(frozen=True)
class Incoming:
    """``is_difference``: what is not there is as it was before; otherwise it is zero."""

    size_bytes: int
    is_difference: bool
    block_bytes: int
    places: list[tuple[int, int]]  # (where in the stream, number of the block), in the stream's order


class Reader:
    def __init__(self, source: Pieces) -> None:
        self._source = source
        self._at = 0

    async def begin(self) -> Incoming:
        """EndedEarly; IMPORT_ERROR."""
        size_bytes, kind, header_at = self._read_footer(await self._take(SECTOR))
        await self._go_to(header_at, "its header")
        table_at, entries, block_bytes = self._read_header(await self._take(2 * SECTOR))
        if entries * block_bytes < size_bytes:
            raise broken(f"{entries} blocks are too few for {size_bytes} bytes")
        await self._go_to(table_at, "its table")
        needed = -(-size_bytes // block_bytes)
        table = struct.unpack(f">{needed}I", await self._take(4 * needed))
        places = [(sector * SECTOR, number) for number, sector in enumerate(table) if sector != NOWHERE]
        return Incoming(size_bytes, kind == DIFFERENCING, block_bytes, sorted(places))

    async def write_to(self, incoming: Incoming, write: Write, progress: Callable[[float], None]) -> None:
        bitmap_bytes = -(-incoming.block_bytes // SECTOR // 8 // SECTOR) * SECTOR
        for done, (place, number) in enumerate(incoming.places):
            await self._go_to(place, f"block {number}")
            bitmap = await self._take(bitmap_bytes)
            data = await self._take(incoming.block_bytes)
            start = number * incoming.block_bytes
            data = data[: incoming.size_bytes - start]
            for first, after in _runs(bitmap, -(-len(data) // SECTOR)):
                await write(start + first * SECTOR, data[first * SECTOR : after * SECTOR])
            progress((done + 1) / len(incoming.places))

    async def _take(self, count: int) -> bytes:
        self._at += count
        return await self._source.exactly(count)

    async def _go_to(self, offset: int, what: str) -> None:
        if offset < self._at:
            raise broken(f"{what} is not behind what it needs: this image cannot be read as a stream")
        await self._source.skip(offset - self._at)
        self._at = offset

    def _read_footer(self, data: bytes) -> tuple[int, int, int]:
        """Size, type, where the header is."""
        fields = struct.unpack(FOOTER, data)
        if fields[0] != COOKIE:
            raise broken("it does not begin like one")
        _assert_checksum(data, fields[14])
        header_at, size_bytes, kind = fields[3], fields[9], fields[13]
        if kind not in (DYNAMIC, DIFFERENCING):
            raise broken(f"type {kind} is neither dynamic nor differencing")
        if not 0 < size_bytes <= LARGEST_BYTES or size_bytes % SECTOR:
            raise broken(f"it cannot have {size_bytes} bytes")
        return size_bytes, kind, header_at

    def _read_header(self, data: bytes) -> tuple[int, int, int]:
        """Where the table is, its entries, bytes of a block."""
        fields = struct.unpack(HEADER, data)
        if fields[0] != b"cxsparse":
            raise broken("it has no header")
        _assert_checksum(data, fields[6])
        table_at, entries, block_bytes = fields[2], fields[4], fields[5]
        if not 8 * SECTOR <= block_bytes <= BLOCK_LIMIT_BYTES or block_bytes & (block_bytes - 1):
            raise broken(f"blocks of {block_bytes} bytes")
        return table_at, entries, block_bytes


def _assert_checksum(data: bytes, said: int) -> None:
    """Over all bytes, also those that mean nothing to us."""
    if ~(sum(data) - sum(said.to_bytes(4, "big"))) & 0xFFFFFFFF != said:
        raise XenApiError("IMPORT_ERROR_SOME_CHECKSUMS_FAILED", [])


def _runs(bitmap: bytes, sectors: int) -> list[tuple[int, int]]:
    """(first, after) of the sectors whose bits are set; the highest bit comes first."""
    if bitmap.startswith(b"\xff" * (sectors // 8)) and sectors % 8 == 0:
        return [(0, sectors)]
    bits = "".join(f"{byte:08b}" for byte in bitmap)[:sectors]
    found, at = [], 0
    while (first := bits.find("1", at)) >= 0:
        after = bits.find("0", first)
        after = sectors if after < 0 else after
        found.append((first, after))
        at = after
    return found
