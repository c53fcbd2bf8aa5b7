"""qcow2 images as streams, after QEMU's "docs/interop/qcow2.txt".

Out: header, reference counts, first level (L1), all tables of the second level (L2), data: everything that points comes
before what it points at. In: any image whose tables come before what they point at, which is what ``qemu-img convert``
writes; compressed clusters too. Images that need a second file (backing file, data file) are refused unread: nothing of
the coordinator's machine may be opened for a stranger's image.
"""

import heapq
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from gespann.pool.images.streams import Pieces, Sink
from gespann.seams.xenapi.errors import XenApiError

MAGIC = b"QFI\xfb"
HEADER = ">4sIQIIQIIQQIIQQQQII"
HEADER_BYTES = struct.calcsize(HEADER)
CLUSTER_BITS = 16
CLUSTER_BYTES = 1 << CLUSTER_BITS
ENTRIES = CLUSTER_BYTES // 8  # of an L2 table
REFCOUNTS = CLUSTER_BYTES // 2  # of a block of 16-bit counts
COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
OFFSET_MASK = 0x00FFFFFFFFFFFE00
DIRTY, COMPRESSION_TYPE = 1, 8  # incompatible features that a reader may meet
L1_LIMIT_BYTES = 32 * 1024 * 1024
#: runs of clusters that are known but have not come yet; a stranger's image must not fill the memory
RUNS_LIMIT = 1_000_000

Write = Callable[[int, bytes], Awaitable[None]]


def broken(text: str) -> XenApiError:
    return XenApiError("IMPORT_ERROR", [f"qcow2: {text}"])


# -- out


def _up(count: int, unit: int) -> int:
    return -(-count // unit)


@dataclass(frozen=True)
class Outline:
    """``runs``: (first cluster, clusters) of the disk that are there, rising."""

    size_bytes: int
    runs: list[tuple[int, int]]

    @cached_property
    def clusters(self) -> int:
        return sum(count for _, count in self.runs)

    @cached_property
    def l2_tables(self) -> list[int]:
        found: dict[int, None] = {}
        for first, count in self.runs:
            found.update(dict.fromkeys(range(first // ENTRIES, (first + count - 1) // ENTRIES + 1)))
        return sorted(found)

    @property
    def l1_entries(self) -> int:
        return max(1, _up(self.size_bytes, CLUSTER_BYTES * ENTRIES))

    @cached_property
    def layout(self) -> tuple[int, int, int, int, int]:
        """Clusters of the table of counts and of its blocks; where L1, L2 and data begin, in clusters."""
        fixed = 1 + _up(8 * self.l1_entries, CLUSTER_BYTES) + len(self.l2_tables) + self.clusters
        blocks = table = 1
        while (whole := fixed + blocks + table) > blocks * REFCOUNTS or blocks * 8 > table * CLUSTER_BYTES:
            blocks, table = _up(whole, REFCOUNTS), _up(8 * _up(whole, REFCOUNTS), CLUSTER_BYTES)
        l1 = 1 + table + blocks
        l2 = l1 + _up(8 * self.l1_entries, CLUSTER_BYTES)
        return table, blocks, l1, l2, l2 + len(self.l2_tables)

    @property
    def length_bytes(self) -> int:
        return (self.layout[4] + self.clusters) * CLUSTER_BYTES

    def head(self) -> bytes:
        """Everything before L2."""
        table, blocks, l1, l2, data = self.layout
        fields = [MAGIC, 3, 0, 0, CLUSTER_BITS, self.size_bytes, 0, self.l1_entries, l1 * CLUSTER_BYTES, CLUSTER_BYTES]
        header = struct.pack(HEADER, *fields, table, 0, 0, 0, 0, 0, 4, HEADER_BYTES)
        table_of_blocks = b"".join(struct.pack(">Q", (1 + table + n) * CLUSTER_BYTES) for n in range(blocks))
        counts = b"\0\1" * (data + self.clusters)
        entries = [0] * self.l1_entries
        for at, number in enumerate(self.l2_tables):
            entries[number] = (l2 + at) * CLUSTER_BYTES | COPIED
        return b"".join(
            (
                header.ljust(CLUSTER_BYTES, b"\0"),
                table_of_blocks.ljust(table * CLUSTER_BYTES, b"\0"),
                counts.ljust(blocks * CLUSTER_BYTES, b"\0"),
                struct.pack(f">{len(entries)}Q", *entries).ljust((l2 - l1) * CLUSTER_BYTES, b"\0"),
            )
        )

    def tables(self) -> Iterator[bytes]:
        """The L2 tables, one by one."""
        at, current, table = self.layout[4] * CLUSTER_BYTES, -1, [0] * ENTRIES
        for first, count in self.runs:
            for cluster in range(first, first + count):
                if cluster // ENTRIES != current:
                    if current >= 0:
                        yield struct.pack(f">{ENTRIES}Q", *table)
                    current, table = cluster // ENTRIES, [0] * ENTRIES
                table[cluster % ENTRIES] = at | COPIED
                at += CLUSTER_BYTES
        if current >= 0:
            yield struct.pack(f">{ENTRIES}Q", *table)


async def write(outline: Outline, clusters: AsyncIterator[tuple[int, bytes]], sink: Sink) -> None:
    """``clusters``: those of the outline, in its order; the last one may be short."""
    await sink(outline.head())
    for table in outline.tables():
        await sink(table)
    async for _, data in clusters:
        await sink(data.ljust(CLUSTER_BYTES, b"\0"))


# -- in


@dataclass(frozen=True)
class Incoming:
    size_bytes: int
    cluster_bits: int
    l1_entries: int
    l1_offset: int

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits


@dataclass(order=True)
class _Piece:
    """Something that will come at ``offset``. ``kind``: "l2", "data" or "packed"; ``at``: where it belongs on the disk;
    ``length``: in the stream."""

    offset: int
    kind: str = field(compare=False)
    at: int = field(compare=False)
    length: int = field(compare=False)


class Reader:
    def __init__(self, source: Pieces) -> None:
        self._source = source
        self._at = 0
        self._coming: list[_Piece] = []

    async def begin(self) -> Incoming:
        """EndedEarly; IMPORT_ERROR."""
        fields = struct.unpack(HEADER, (await self._source.exactly(HEADER_BYTES)).ljust(HEADER_BYTES))
        self._at = HEADER_BYTES
        magic, version, backing, _, bits, size_bytes, crypt, l1_entries, l1_offset = fields[:9]
        if magic != MAGIC or version not in (2, 3):
            raise broken("it does not begin like one")
        incompatible = fields[13] if version == 3 else 0
        if backing or crypt or incompatible & ~(DIRTY | COMPRESSION_TYPE):
            raise broken("it needs another file or a key, or something that is not known here")
        if version == 3 and incompatible & COMPRESSION_TYPE:
            raise broken("it is compressed by something else than zlib")
        if not 9 <= bits <= 21 or not size_bytes or size_bytes > 1 << 62 or 8 * l1_entries > L1_LIMIT_BYTES:
            raise broken("its header cannot be")
        if l1_entries << (2 * bits - 3) < size_bytes:
            raise broken("its first table is too short")
        return Incoming(size_bytes, bits, l1_entries, l1_offset)

    async def write_to(self, incoming: Incoming, write: Write, progress: Callable[[float], None]) -> None:
        """The disk must hold zeroes: clusters that are not there are not written."""
        data = await self._take(_Piece(incoming.l1_offset, "l1", 0, 8 * incoming.l1_entries))
        for number, entry in enumerate(struct.unpack(f">{incoming.l1_entries}Q", data)):
            if entry & OFFSET_MASK:
                span = number << (2 * incoming.cluster_bits - 3)
                self._expect(_Piece(entry & OFFSET_MASK, "l2", span, incoming.cluster_bytes))
        while self._coming:
            piece = heapq.heappop(self._coming)
            if piece.kind == "l2":
                self._read_table(incoming, piece.at, await self._take(piece))
            elif piece.kind == "packed":
                await _write_within(incoming, piece.at, _unpacked(await self._take(piece), incoming), write)
            else:
                await self._copy(incoming, piece, write)
            progress(piece.at / incoming.size_bytes)

    async def _copy(self, incoming: Incoming, piece: _Piece, write: Write) -> None:
        """Cluster by cluster: a run may be long."""
        for done in range(0, piece.length, incoming.cluster_bytes):
            part = _Piece(piece.offset + done, "data", piece.at + done, incoming.cluster_bytes)
            await _write_within(incoming, part.at, await self._take(part), write)

    def _read_table(self, incoming: Incoming, start: int, data: bytes) -> None:
        size, last = incoming.cluster_bytes, None
        shift = 62 - (incoming.cluster_bits - 8)
        for number, entry in enumerate(struct.unpack(f">{len(data) // 8}Q", data)):
            at = start + number * size
            if entry & COMPRESSED:
                offset = entry & ((1 << shift) - 1)
                sectors = (entry & (COMPRESSED - 1)) >> shift
                self._expect(_Piece(offset, "packed", at, (sectors + 1) * 512 - (offset & 511)))
            elif entry & OFFSET_MASK and not entry & ZERO:
                offset = entry & OFFSET_MASK
                if last is not None and (last.offset + last.length, last.at + last.length) == (offset, at):
                    last.length += size
                else:
                    last = _Piece(offset, "data", at, size)
                    self._expect(last)

    def _expect(self, piece: _Piece) -> None:
        if piece.offset < self._at:
            raise broken("a table comes after what it points at: this image cannot be read as a stream")
        if len(self._coming) >= RUNS_LIMIT:
            raise broken(f"it is in more than {RUNS_LIMIT} pieces")
        heapq.heappush(self._coming, piece)

    async def _take(self, piece: _Piece) -> bytes:
        """Compressed clusters are packed by the byte and read by the sector: what is behind one stays for the next."""
        if piece.offset < self._at:
            raise broken("pieces of it overlap")
        await self._source.skip(piece.offset - self._at)
        self._at = piece.offset
        if piece.kind == "packed":
            return await self._source.peek(piece.length)
        self._at += piece.length
        return await self._source.exactly(piece.length)


async def _write_within(incoming: Incoming, at: int, data: bytes, write: Write) -> None:
    if at < incoming.size_bytes:
        await write(at, data[: incoming.size_bytes - at])


def _unpacked(data: bytes, incoming: Incoming) -> bytes:
    try:
        unpacked = zlib.decompressobj(-15).decompress(data, incoming.cluster_bytes)
    except zlib.error as error:
        raise broken(f"a compressed cluster is damaged: {error}") from None
    if len(unpacked) != incoming.cluster_bytes:
        raise broken("a compressed cluster is too short")
    return unpacked
