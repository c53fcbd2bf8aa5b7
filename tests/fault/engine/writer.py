"""Random commands on one disk through one session; every answer is checked or remembered."""

import random
from collections import Counter

from tests.fault.engine.disks import BLOCK, Clock, Disk, Lost, compare, content
from tests.fault.engine.wire import SYNCHRONIZE_CACHE, Command, Session, read16, unmap, write16

DEPTH = 8
MOST_BLOCKS = 16
HOT_BLOCKS = 96  # half of the commands go here: blocks that are written again and again
READ_BLOCKS = 64
NO_SPACE = "7/27/07"


class Writer:
    def __init__(
        self, session: Session, disk: Disk, clock: Clock, chance: random.Random, tally: "Counter[str]"
    ) -> None:
        self.session = session
        self.disk = disk
        self.clock = clock
        self.chance = chance
        self.tally = tally
        self.held: list[Command] = []  # refused for want of space: to be sent again, as a paused host does

    def fill(self) -> None:
        """Keeps the session busy, unless the disk waits for space."""
        tries = DEPTH
        while tries and len(self.session.commands) < DEPTH and not self.held:
            tries -= 1
            self._one()
        self.session.push()

    def go_on(self) -> None:
        """There is space again."""
        held, self.held = self.held, []
        for command in held:
            self.session.submit(command)

    def _one(self) -> None:
        if self.chance.random() < 0.03:
            self.session.submit(Command(SYNCHRONIZE_CACHE, self._flushed))
            return
        limit = self.disk.limit_blocks
        span = min(HOT_BLOCKS, limit) if self.chance.random() < 0.5 else limit
        blocks = min(self.chance.randint(1, MOST_BLOCKS), span)
        start = self.chance.randrange(span - blocks + 1)
        if not self.disk.free(start, blocks):
            return
        kind = self.chance.random()
        if kind < 0.15:
            self._read(start, blocks)
        elif kind < 0.22:
            self._unmap(start, blocks)
        else:
            self._write(start, blocks)

    def _write(self, start: int, blocks: int) -> None:
        write = self.clock.sent()
        data = b"".join(content(self.disk.number, block, write) for block in range(start, start + blocks))
        self.disk.send(start, blocks, write)
        cdb = write16(start, data, fua=self.chance.random() < 0.02)
        command = Command(cdb, lambda *answer: self._changed(command, start, data, write, *answer), write=data)
        command.immediate = self.chance.random() < 0.85
        self.session.submit(command)

    def _unmap(self, start: int, blocks: int) -> None:
        write = -self.clock.sent()
        self.disk.send(start, blocks, write)
        cdb, listed = unmap(start, blocks)
        zeroes = bytes(blocks * BLOCK)
        command = Command(cdb, lambda *answer: self._changed(command, start, zeroes, write, *answer), write=listed)
        self.session.submit(command)

    def _changed(
        self, command: Command, start: int, data: bytes, write: int, status: int, sense: str, _read: bytes
    ) -> None:
        if (status, sense) == (2, NO_SPACE):
            self.tally["refused for want of space"] += 1
            self.held.append(command)
            return
        self._expect_good("a write" if write > 0 else "an unmap", status, sense)
        self.clock.answer(write)
        self.disk.acknowledge(start, data)
        self.tally["writes" if write > 0 else "unmaps"] += 1

    def _read(self, start: int, blocks: int) -> None:
        places = range(start, start + blocks)
        self.disk.reading.update(places)

        def done(status: int, sense: str, data: bytes) -> None:
            self._expect_good("a read", status, sense)
            self.disk.reading.difference_update(places)
            expected = bytes(self.disk.blocks[start * BLOCK : (start + blocks) * BLOCK])
            compare(f"{self.disk.name} from block {start}", expected, data)
            self.tally["reads"] += 1

        self.session.submit(Command(read16(start, blocks), done, read_bytes=blocks * BLOCK))

    def _flushed(self, status: int, sense: str, _data: bytes) -> None:
        self._expect_good("a flush", status, sense)
        self.tally["flushes"] += 1

    def _expect_good(self, what: str, status: int, sense: str) -> None:
        if status:
            raise Lost(f"{self.disk.name}: {what} was answered with status {status}, sense {sense or 'none'}")


def read_whole(session: Session, size_bytes: int) -> bytes:
    """All blocks of a disk that nobody writes."""
    read = bytearray(size_bytes)
    step = READ_BLOCKS * BLOCK
    starts = iter(range(0, size_bytes, step))
    left = len(range(0, size_bytes, step))

    def ask() -> None:
        start = next(starts, None)
        if start is not None:
            length = min(step, size_bytes - start)
            cdb = read16(start // BLOCK, length // BLOCK)
            session.submit(Command(cdb, lambda *answer: got(start, *answer), read_bytes=length))

    def got(start: int, status: int, sense: str, data: bytes) -> None:
        nonlocal left
        if status:
            raise Lost(f"a read was answered with status {status}, sense {sense}")
        read[start : start + len(data)] = data
        left -= 1
        ask()

    for _ in range(DEPTH):
        ask()
    session.socket.settimeout(120)
    while left:
        session.socket.sendall(session.outbox)
        session.outbox.clear()
        session.take_some()
    session.close()
    whole = bytes(read)
    read.clear()  # the two functions hold each other, and it, until somebody looks for such circles
    return whole
