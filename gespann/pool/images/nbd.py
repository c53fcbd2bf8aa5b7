"""A client of NBD on a Unix socket: reads and writes at any place of an opened image, many requests at once.

Written after the protocol document (NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle handshake, structured replies
and the context ``base:allocation`` where the server has them. Without them every byte counts as data.
"""

import asyncio
import contextlib
import itertools
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gespann.seams.xenapi.errors import XenApiError

IHAVEOPT = b"IHAVEOPT"
OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 7, 8, 10
REP_ACK, REP_INFO, REP_META_CONTEXT, REP_ERRORS = 1, 3, 4, 1 << 31
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 0, 1, 2, 3, 6, 7
REQUEST_MAGIC, SIMPLE_MAGIC, STRUCTURED_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERRORS = 1, 2, 5, 1 << 15
CHUNK_DONE = 1
CONTEXT = b"base:allocation"
HOLE, ZERO = 1, 2
REPLY_LIMIT_BYTES = 64 * 1024 * 1024
#: one request for the state of blocks, or for zeroes; a length has 32 bits
SPAN_BYTES = 1 << 30
IN_FLIGHT = 4


class NbdError(XenApiError):
    """The image does not answer as it should; the text says how."""

    def __init__(self, text: str) -> None:
        super().__init__("VDI_IO_ERROR", [text])


@dataclass
class _Waiting:
    """A request on its way: where its bytes go, or what is known of its blocks."""

    done: "asyncio.Future[None]"
    offset: int
    data: bytearray = field(default_factory=bytearray)
    extents: list[tuple[int, int]] = field(default_factory=list)  # (bytes, flags)
    error: int = 0


class NbdClient:
    """``size_bytes``: of the image. ``knows_holes``: whether ``extents`` says more than "all data"."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()
        self._broken: NbdError | None = None
        self._replies: asyncio.Task[None] | None = None
        self.size_bytes = 0
        self.knows_holes = False

    # -- requests

    async def read(self, offset: int, length: int) -> bytes:
        waiting = _Waiting(_future(), offset, bytearray(length))
        await self._ask(CMD_READ, length, waiting)
        return bytes(waiting.data)

    async def write(self, offset: int, data: bytes) -> None:
        await self._ask(CMD_WRITE, len(data), _Waiting(_future(), offset), data)

    async def write_zeroes(self, offset: int, length: int) -> None:
        """As a hole, where the storage can."""
        while length > 0:
            step = min(length, SPAN_BYTES)
            await self._ask(CMD_WRITE_ZEROES, step, _Waiting(_future(), offset))
            offset, length = offset + step, length - step

    async def flush(self) -> None:
        await self._ask(CMD_FLUSH, 0, _Waiting(_future(), 0))

    async def extents(self, offset: int = 0, length: int | None = None) -> AsyncIterator[tuple[int, int]]:
        """The (offset, bytes) of what may hold something other than zeroes, in order, neighbours joined."""
        end = self.size_bytes if length is None else offset + length
        start = offset
        while offset < end:
            for size, flags in await self._status(offset, min(end - offset, SPAN_BYTES)):
                if flags & ZERO:
                    if offset > start:
                        yield start, offset - start
                    start = offset + size
                offset += size
        if end > start:
            yield start, end - start

    async def _status(self, offset: int, length: int) -> list[tuple[int, int]]:
        if not self.knows_holes:
            return [(length, 0)]
        waiting = _Waiting(_future(), offset)
        await self._ask(CMD_BLOCK_STATUS, length, waiting)
        found, at = [], 0
        for size, flags in waiting.extents:
            found.append((min(size, length - at), flags))
            at += size
            if at >= length:
                break
        if not found or any(size <= 0 for size, _ in found):
            raise NbdError("the image does not say which blocks it has")
        return found

    async def blocks(self, block_bytes: int) -> AsyncIterator[tuple[int, bytes]]:
        """Each block of the image that holds anything but zeroes, by its number; the first and the last one always."""
        async for number, data in self.read_blocks(self._wanted(block_bytes), block_bytes):
            if number in (0, (self.size_bytes - 1) // block_bytes) or data.count(0) != len(data):
                yield number, data

    async def _wanted(self, block_bytes: int) -> AsyncIterator[int]:
        last, following = (self.size_bytes - 1) // block_bytes, 1
        yield 0
        async for offset, length in self.extents():
            for number in range(max(following, offset // block_bytes), (offset + length - 1) // block_bytes + 1):
                yield number
                following = number + 1
        if following <= last:
            yield last

    async def read_blocks(self, numbers: AsyncIterator[int], block_bytes: int) -> AsyncIterator[tuple[int, bytes]]:
        """Some are read ahead."""
        ahead: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        try:
            async for number in numbers:
                offset = number * block_bytes
                length = min(block_bytes, self.size_bytes - offset)
                ahead.append((number, asyncio.ensure_future(self.read(offset, length))))
                if len(ahead) > IN_FLIGHT:
                    first, reading = ahead.popleft()
                    yield first, await reading
            while ahead:
                first, reading = ahead.popleft()
                yield first, await reading
        finally:
            for _, reading in ahead:
                reading.cancel()

    async def _ask(self, command: int, length: int, waiting: _Waiting, data: bytes = b"") -> None:
        if self._broken is not None:
            raise self._broken
        number = next(self._numbers)
        self._waiting[number] = waiting
        try:
            self._writer.write(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, command, number, waiting.offset, length))
            self._writer.write(data)
            async with self._lock:
                await self._writer.drain()
            await waiting.done
        except ConnectionError as error:
            raise self._broken or NbdError(f"the image is gone: {error}") from error
        if waiting.error:
            raise NbdError(f"error {waiting.error} at byte {waiting.offset}")

    # -- replies

    async def _receive(self) -> None:
        try:
            while True:
                await self._reply()
        except asyncio.CancelledError:
            raise
        except (asyncio.IncompleteReadError, ConnectionError, NbdError) as error:
            self._broken = error if isinstance(error, NbdError) else NbdError("the image is gone")
        for waiting in self._waiting.values():
            if not waiting.done.done():
                waiting.done.set_exception(self._broken)
        self._waiting.clear()

    async def _reply(self) -> None:
        (magic,) = struct.unpack(">I", await self._reader.readexactly(4))
        if magic == SIMPLE_MAGIC:
            error, number = struct.unpack(">IQ", await self._reader.readexactly(12))
            waiting = self._find(number)
            waiting.error = error
            if not error and waiting.data:
                waiting.data[:] = await self._reader.readexactly(len(waiting.data))
            self._finish(number)
        elif magic == STRUCTURED_MAGIC:
            flags, kind, number, length = struct.unpack(">HHQI", await self._reader.readexactly(16))
            if length > REPLY_LIMIT_BYTES:
                raise NbdError("a reply that is too long")
            self._take(self._find(number), kind, await self._reader.readexactly(length))
            if flags & CHUNK_DONE:
                self._finish(number)
        else:
            raise NbdError("no reply of NBD")

    def _take(self, waiting: _Waiting, kind: int, body: bytes) -> None:
        if kind & CHUNK_ERRORS:
            waiting.error = struct.unpack_from(">I", body)[0] or 1
        elif kind == CHUNK_DATA:
            at = struct.unpack_from(">Q", body)[0] - waiting.offset
            if not 0 <= at <= len(waiting.data) - (len(body) - 8):
                raise NbdError("data that nobody asked for")
            waiting.data[at : at + len(body) - 8] = memoryview(body)[8:]
        elif kind == CHUNK_STATUS:
            waiting.extents += struct.iter_unpack(">II", body[4:])
        # a hole needs nothing: the bytes are zero already

    def _find(self, number: int) -> _Waiting:
        try:
            return self._waiting[number]
        except KeyError:
            raise NbdError("a reply that nobody asked for") from None

    def _finish(self, number: int) -> None:
        waiting = self._waiting.pop(number)
        if not waiting.done.done():
            waiting.done.set_result(None)

    # -- beginning and end

    async def begin(self) -> None:
        magic, options, flags = struct.unpack(">8s8sH", await self._reader.readexactly(18))
        if (magic, options) != (b"NBDMAGIC", IHAVEOPT) or not flags & 1:
            raise NbdError("no server of NBD")
        self._writer.write(struct.pack(">I", flags & 3))
        if await self._option(OPT_STRUCTURED_REPLY) is not None:
            query = struct.pack(">III", 0, 1, len(CONTEXT)) + CONTEXT
            contexts = await self._option(OPT_SET_META_CONTEXT, query)
            self.knows_holes = bool(contexts)
        for kind, body in await self._option(OPT_GO, struct.pack(">IH", 0, 0)) or []:
            if kind == REP_INFO and body[:2] == b"\0\0":
                (self.size_bytes,) = struct.unpack_from(">Q", body, 2)
        if not self.size_bytes:
            raise NbdError("an image without a size")
        self._replies = asyncio.create_task(self._receive())

    async def _option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]] | None:
        """What the server answers before it agrees; None if it does not."""
        self._writer.write(IHAVEOPT + struct.pack(">II", option, len(data)) + data)
        answers: list[tuple[int, bytes]] = []
        while True:
            _, _, kind, length = struct.unpack(">QIII", await self._reader.readexactly(20))
            if length > REPLY_LIMIT_BYTES:
                raise NbdError("an answer that is too long")
            body = await self._reader.readexactly(length)
            if kind == REP_ACK:
                return answers
            if kind & REP_ERRORS:
                return None
            answers.append((kind, body))

    async def end(self) -> None:
        if self._replies is not None:
            self._replies.cancel()
        if self._broken is None:
            self._writer.write(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, CMD_DISC, 0, 0, 0))
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@contextlib.asynccontextmanager
async def nbd_client(socket: str) -> AsyncIterator[NbdClient]:
    """NbdError: nobody answers there, or not as NBD."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise NbdError(f"the image cannot be reached: {error}") from error
    client = NbdClient(reader, writer)
    try:
        await client.begin()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        writer.close()
        raise NbdError("the image is gone") from error
    except BaseException:
        writer.close()
        raise
    try:
        yield client
    finally:
        await client.end()
