"""A disk in memory, served as NBD: what the pool's own client, ``nbdcopy`` and ``qemu-img`` need, no more.

The fixed newstyle handshake, simple and structured replies, and the context ``base:allocation`` of the NBD protocol
document (NetworkBlockDevice/nbd doc/proto.md).
"""

import asyncio
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

CHUNK_BYTES = 64 * 1024
REQUEST_LIMIT_BYTES = 64 * 1024 * 1024

IHAVEOPT = b"IHAVEOPT"
REPLY_MAGIC = 0x0003E889045565A9
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 1, 2, 6, 7, 8, 10
REP_ACK, REP_INFO, REP_META_CONTEXT, REP_ERR_UNSUP = 1, 3, 4, 2**31 + 1
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
CHUNK_DATA, CHUNK_STATUS, CHUNK_ERROR, CHUNK_DONE = 1, 5, 2**15 + 1, 1
CONTEXT, CONTEXT_ID = b"base:allocation", 1
HOLE_AND_ZERO = 3
HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, MULTI_CONN = 1, 2, 4, 8, 32, 64, 256
EPERM, EINVAL = 1, 22


@dataclass
class FakeMedium:
    """The contents of a disk; what was never written, or trimmed, takes no memory and reads as zeroes."""

    size_bytes: int
    chunks: dict[int, bytearray] = field(default_factory=dict, repr=False)

    def read(self, offset: int, length: int) -> bytes:
        out = bytearray(length)
        for number, start, at, count in _pieces(offset, length):
            if number in self.chunks:
                out[at : at + count] = self.chunks[number][start : start + count]
        return bytes(out)

    def write(self, offset: int, data: bytes) -> None:
        for number, start, at, count in _pieces(offset, len(data)):
            chunk = self.chunks.setdefault(number, bytearray(CHUNK_BYTES))
            chunk[start : start + count] = data[at : at + count]

    def status(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """(bytes, whether they are held), neighbours joined."""
        found: list[tuple[int, bool]] = []
        for number, _, _, count in _pieces(offset, length):
            held = number in self.chunks
            if found and found[-1][1] == held:
                count += found.pop()[0]
            found.append((count, held))
        return found

    def zero(self, offset: int, length: int) -> None:
        for number, start, _, count in _pieces(offset, length):
            if count == CHUNK_BYTES:
                self.chunks.pop(number, None)
            elif number in self.chunks:
                self.chunks[number][start : start + count] = bytes(count)


class _Piece(NamedTuple):
    number: int
    start: int  # in the chunk
    at: int  # in the request
    length: int


def _pieces(offset: int, length: int) -> list[_Piece]:
    pieces = []
    at = 0
    while at < length:
        number, start = divmod(offset + at, CHUNK_BYTES)
        count = min(CHUNK_BYTES - start, length - at)
        pieces.append(_Piece(number, start, at, count))
        at += count
    return pieces


class NbdSession:
    """One client's connection, from handshake to its end."""

    def __init__(
        self, medium: FakeMedium, read_only: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._medium = medium
        self._read_only = read_only
        self._reader = reader
        self._writer = writer
        self._structured = False

    async def serve(self) -> None:
        try:
            if await self._handshake():
                while await self._command():
                    pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()

    def _flags(self) -> int:
        flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | MULTI_CONN
        return flags | READ_ONLY if self._read_only else flags

    async def _handshake(self) -> bool:
        self._writer.write(b"NBDMAGIC" + IHAVEOPT + struct.pack(">H", 3))
        no_zeroes = struct.unpack(">I", await self._reader.readexactly(4))[0] & 2
        while True:
            magic, option, length = struct.unpack(">8sII", await self._reader.readexactly(16))
            if magic != IHAVEOPT or length > 8192:
                return False
            data = await self._reader.readexactly(length)
            if option == OPT_STRUCTURED_REPLY:
                self._structured = True
                self._reply(option, REP_ACK)
            elif option == OPT_SET_META_CONTEXT:
                if CONTEXT in data:
                    self._reply(option, REP_META_CONTEXT, struct.pack(">I", CONTEXT_ID) + CONTEXT)
                self._reply(option, REP_ACK)
            elif option == OPT_EXPORT_NAME:
                padding = b"" if no_zeroes else bytes(124)
                self._writer.write(struct.pack(">QH", self._medium.size_bytes, self._flags()) + padding)
                return True
            elif option in (OPT_INFO, OPT_GO):
                self._reply(option, REP_INFO, struct.pack(">HQH", 0, self._medium.size_bytes, self._flags()))
                self._reply(option, REP_ACK)
                if option == OPT_GO:
                    return True
            elif option == OPT_ABORT:
                self._reply(option, REP_ACK)
                return False
            else:
                self._reply(option, REP_ERR_UNSUP)

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._writer.write(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

    async def _command(self) -> bool:
        header = await self._reader.readexactly(28)
        magic, _, command, handle, offset, length = struct.unpack(">IHHQQI", header)
        if magic != 0x25609513 or command == CMD_DISC or (length > REQUEST_LIMIT_BYTES and command <= CMD_WRITE):
            return False
        data = await self._reader.readexactly(length) if command == CMD_WRITE else b""
        error, answer = self._obey(command, offset, length, data)
        if self._structured and command in (CMD_READ, CMD_BLOCK_STATUS):
            kind = CHUNK_DATA if command == CMD_READ else CHUNK_STATUS
            head = struct.pack(">Q", offset) if command == CMD_READ else struct.pack(">I", CONTEXT_ID)
            body = struct.pack(">IH", error, 0) if error else head + answer
            kind = CHUNK_ERROR if error else kind
            self._writer.write(struct.pack(">IHHQI", 0x668E33EF, CHUNK_DONE, kind, handle, len(body)) + body)
        else:
            self._writer.write(struct.pack(">IIQ", 0x67446698, error, handle) + answer)
        await self._writer.drain()
        return True

    def _obey(self, command: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        if command not in (CMD_READ, CMD_WRITE, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS):
            return EINVAL, b""
        if offset + length > self._medium.size_bytes:
            return EINVAL, b""
        if self._read_only and command in (CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
            return EPERM, b""
        if command == CMD_READ:
            return 0, self._medium.read(offset, length)
        if command == CMD_BLOCK_STATUS:
            status = self._medium.status(offset, length)
            return 0, b"".join(struct.pack(">II", size, 0 if held else HOLE_AND_ZERO) for size, held in status)
        if command == CMD_WRITE:
            self._medium.write(offset, data)
        elif command != CMD_FLUSH:
            self._medium.zero(offset, length)
        return 0, b""
