"""What each volume must hold, block by block, while an engine is killed again and again under its writers.

A write is numbered by one count that goes up at each sending and at each answer, over all volumes: the order in which
the writer saw things. A number names its contents, so what comes back tells which write it is of.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

BLOCK = 4096
STAMP = struct.Struct(">8sIIQ")  # magic, volume, block, write
MAGIC = b"gespann\0"
POOL = random.Random(4096).randbytes(1 << 20)  # each part of a block is of one place in it, and of one write
SECTOR = 512
STEP = 64 * BLOCK  # compared at once


class Lost(AssertionError):
    """The engine gave back something that it must not."""


def content(volume: int, block: int, write: int) -> bytes:
    """One block of a write; of write 0, or of one below 0 (an unmap), zeroes."""
    if write <= 0:
        return bytes(BLOCK)
    stamp = STAMP.pack(MAGIC, volume, block, write)
    stamp += struct.pack(">I", zlib.crc32(stamp))
    start = (write * 131 + block * 17) % (len(POOL) - BLOCK)
    return stamp + POOL[start : start + BLOCK - len(stamp)]


def described(data: bytes) -> str:
    """What a block seems to be, for a person."""
    magic, volume, block, write = STAMP.unpack_from(data)
    if magic == MAGIC and data[STAMP.size : STAMP.size + 4] == struct.pack(">I", zlib.crc32(data[: STAMP.size])):
        whole = "" if data == content(volume, block, write) else ", not whole"
        return f"write {write} of volume {volume} block {block}{whole}"
    return "zeroes" if not any(data) else f"unknown bytes {data[:32].hex()}"


@dataclass
class Clock:
    """The count, and when each write was answered."""

    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    answered: dict[int, int] = field(default_factory=dict)

    def sent(self) -> int:
        return next(self.numbers)

    def answer(self, write: int) -> None:
        self.answered[abs(write)] = next(self.numbers)


@dataclass
class Instant:
    """The one moment at which a snapshot of one or more volumes was taken: after the sending of every write that is in
    it, before the answer of every write that is not."""

    latest_in: int = 0
    earliest_out: int | None = None

    def include(self, write: int) -> None:
        self.latest_in = max(self.latest_in, abs(write))

    def leave_out(self, answered: int | None) -> None:
        if answered is not None:
            self.earliest_out = min(answered, self.earliest_out or answered)

    def check(self, name: str) -> None:
        if self.earliest_out is not None and self.latest_in > self.earliest_out:
            raise Lost(
                f"{name} is of no one moment: write {self.latest_in} is in it, but one that was acknowledged before, "
                f"at {self.earliest_out}, is not"
            )


class Window:
    """The time from the request of a snapshot or clone to its answer: what each block may hold in the copy."""

    def __init__(self, source: "Disk", instant: Instant) -> None:
        self.source = source
        self.instant = instant
        self.base = bytes(source.blocks)
        self.later = {block: [write] for block, write in source.pending.items()}

    def sent(self, block: int, write: int) -> None:
        self.later.setdefault(block, []).append(write)

    def judge(self, name: str, read: bytes, clock: Clock) -> None:
        """Raises Lost if the copy, as read, is not the source at one moment of the window."""
        expected = bytearray(self.base)
        for block, writes in self.later.items():
            here = slice(block * BLOCK, (block + 1) * BLOCK)
            versions = [self.base[here], *[content(self.source.number, block, write) for write in writes]]
            found = [index for index, version in enumerate(versions) if version == read[here]]
            if not found:
                self.source.explain(f"{name}, block {block}", read[here], versions)
            expected[here] = read[here]
            if len(found) == 1:  # zeroes may be of several writes: they say nothing then
                self._place(found[0], writes, clock)
        compare(name, bytes(expected), read)
        self.instant.check(name)

    def _place(self, index: int, writes: list[int], clock: Clock) -> None:
        if index > 0:
            self.instant.include(writes[index - 1])
        if index < len(writes):
            self.instant.leave_out(clock.answered.get(abs(writes[index])))


def compare(name: str, expected: bytes, read: bytes) -> None:
    if expected == read:
        return
    if len(expected) != len(read):
        raise Lost(f"{name} has {len(read)} bytes, not {len(expected)}")
    for block in differing(expected, read):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        raise Lost(f"{name}, block {block}: expected {described(expected[here])}, read {described(read[here])}")


def differing(one: bytes | bytearray, other: bytes) -> Iterator[int]:
    for start in range(0, len(other), STEP):
        if one[start : start + STEP] != other[start : start + STEP]:
            for at in range(start, min(start + STEP, len(other)), BLOCK):
                if one[at : at + BLOCK] != other[at : at + BLOCK]:
                    yield at // BLOCK


class Disk:
    """A volume. ``blocks``: what was acknowledged. ``pending``: the write under way to a block; one at a time, as any
    host does. ``window``: set while nobody has read what a snapshot or rollback put there."""

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number = number
        self.blocks = bytearray(size_bytes)
        self.pending: dict[int, int] = {}
        self.reading: set[int] = set()
        self.windows: list[Window] = []
        self.window: Window | None = None
        self.maybe: Window | None = None  # what it holds if the rollback that was cut short was done
        self.limit_blocks = size_bytes // BLOCK  # lower while the volume is about to shrink
        self.written = False  # by the writers; a disk that is not must stay the same for ever
        self.claimed = False  # a control request is about it
        self.torn = 0

    @property
    def volume(self) -> str:
        return f"6090a028a030f846d8d6546f{self.number:08x}"

    @property
    def iqn(self) -> str:
        return f"iqn.2026-01.test:volume{self.number}"

    @property
    def name(self) -> str:
        return f"volume {self.number}"

    @property
    def size_bytes(self) -> int:
        return len(self.blocks)

    def open_window(self, instant: Instant) -> Window:
        self.windows.append(Window(self, instant))
        return self.windows[-1]

    def replace(self, window: Window) -> None:
        """By what was taken in that window."""
        self.window = window
        self.resize(len(window.base))

    def free(self, start: int, blocks: int) -> bool:
        return all(block not in self.pending and block not in self.reading for block in range(start, start + blocks))

    def send(self, start: int, blocks: int, write: int) -> None:
        for block in range(start, start + blocks):
            self.pending[block] = write
            for window in self.windows:
                window.sent(block, write)

    def acknowledge(self, start: int, data: bytes) -> None:
        self.blocks[start * BLOCK : start * BLOCK + len(data)] = data
        for block in range(start, start + len(data) // BLOCK):
            del self.pending[block]

    def resize(self, size_bytes: int) -> None:
        grown = size_bytes - len(self.blocks)
        if grown < 0:
            del self.blocks[size_bytes:]
        self.blocks.extend(bytes(max(grown, 0)))
        self.limit_blocks = size_bytes // BLOCK

    def adopt(self, read: bytes, clock: Clock) -> None:
        """After a restart: each block holds what was acknowledged, or what was sent last and never answered. What has
        been read once is there to stay."""
        if self.maybe is not None and read != self.blocks:
            self.window = self.maybe
        self.maybe = None
        if self.window is not None:
            self.window.judge(self.name, read, clock)
            self.window = None
            self.blocks = bytearray(read)
        if len(read) != len(self.blocks):
            raise Lost(f"{self.name} has {len(read)} bytes, not {len(self.blocks)}")
        for block in differing(self.blocks, read):
            self._adopt_block(block, read[block * BLOCK : (block + 1) * BLOCK])
        self.blocks[:] = read
        self.pending.clear()
        self.reading.clear()

    def _adopt_block(self, block: int, read: bytes) -> None:
        versions = [bytes(self.blocks[block * BLOCK : (block + 1) * BLOCK])]
        if block in self.pending:
            versions.append(content(self.number, block, self.pending[block]))
        if read in versions:
            return
        sectors = range(0, BLOCK, SECTOR)
        if all(any(read[at : at + SECTOR] == version[at : at + SECTOR] for version in versions) for at in sectors):
            self.torn += 1  # an unanswered command may have done a part of its work (SBC-4 4.9)
            return
        self.explain(f"{self.name}, block {block}", read, versions)

    def explain(self, where: str, read: bytes, versions: list[bytes]) -> None:
        legal = ", or ".join(described(version) for version in versions)
        raise Lost(f"{where}: expected {legal}; read {described(read)}")
