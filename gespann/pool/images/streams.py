"""Bytes as they come: exact counts from a stream of pieces, and streams through gzip or zstd.

Compression is a process of its own: it works beside the coordinator, and what it holds is bounded by its pipes however
much a hostile stream expands to.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from gespann.seams.xenapi.errors import XenApiError
from gespann.system.processes import Word, end, start

Sink = Callable[[bytes], Awaitable[None]]
PIECE_BYTES = 256 * 1024
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSORS: dict[str, list[Word]] = {"gzip": ["gzip", "-1", "-c"], "zstd": ["zstd", "-q", "-3", "-c"]}
DECOMPRESSORS: dict[bytes, list[Word]] = {
    GZIP_MAGIC: ["gzip", "-dc"],
    ZSTD_MAGIC: ["zstd", "-q", "-dc", "--memory=128MB"],
}


class EndedEarly(Exception):
    """The stream ended before all that was needed had come."""


class Source(Protocol):
    async def exactly(self, count: int) -> bytes:
        """EndedEarly if there is not so much."""
        ...


class Pieces:
    """A Source over what comes in pieces of any size."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()
        self._ended = False

    async def exactly(self, count: int) -> bytes:
        if not await self._fill(count):
            raise EndedEarly(f"{count} bytes wanted, {len(self._held)} there")
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    async def skip(self, count: int) -> None:
        while count > 0:
            count -= len(await self.exactly(min(count, PIECE_BYTES)))

    async def peek(self, count: int) -> bytes:
        """The next bytes, fewer at the end, which stay there."""
        await self._fill(count)
        return bytes(self._held[:count])

    async def rest(self) -> AsyncIterator[bytes]:
        """All that follows, as it comes."""
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            yield held
        async for piece in self._pieces:
            yield piece
        self._ended = True

    async def _fill(self, count: int) -> bool:
        while len(self._held) < count and not self._ended:
            try:
                self._held += await anext(self._pieces)
            except StopAsyncIteration:
                self._ended = True
        return len(self._held) >= count


@contextlib.asynccontextmanager
async def decompressed(source: Pieces) -> AsyncIterator[Pieces]:
    """What is in the stream, if it is compressed by gzip or zstd, as its first bytes say; else the stream itself."""
    head = await source.peek(len(ZSTD_MAGIC))
    words = next((words for magic, words in DECOMPRESSORS.items() if head.startswith(magic)), None)
    if words is None:
        yield source
        return
    process = await start(
        words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    feeding = asyncio.ensure_future(_feed(source, process))
    try:
        yield Pieces(_output(process, feeding))
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await end(process)


async def _feed(source: Pieces, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    try:
        async for piece in source.rest():
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has seen enough, or something that it does not like; its status tells


async def _output(process: asyncio.subprocess.Process, feeding: "asyncio.Future[None]") -> AsyncIterator[bytes]:
    assert process.stdout is not None
    while piece := await process.stdout.read(PIECE_BYTES):
        yield piece
    if feeding.done() and not feeding.cancelled() and (error := feeding.exception()) is not None:
        raise error  # the client is gone: that counts more than what the decompressor made of it
    if await process.wait() != 0:
        raise EndedEarly("the compressed stream is damaged or cut short")


@contextlib.asynccontextmanager
async def compressed(sink: Sink, algorithm: str) -> AsyncIterator[Sink]:
    """What goes into the sink that is given reaches ``sink`` compressed, all of it at the end of the block.
    ``algorithm``: gzip, zstd, or "" for none."""
    if not algorithm:
        yield sink
        return
    process = await start(COMPRESSORS[algorithm], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    async def drain() -> None:
        while piece := await stdout.read(PIECE_BYTES):
            await sink(piece)

    draining = asyncio.ensure_future(drain())

    async def take(piece: bytes) -> None:
        if draining.done():
            draining.result()  # its error, if it has one
        stdin.write(piece)
        try:
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise XenApiError("INTERNAL_ERROR", [f"{algorithm} ended too early"]) from None

    try:
        yield take
        stdin.close()
        await draining
        if await process.wait() != 0:
            raise XenApiError("INTERNAL_ERROR", [f"{algorithm} failed"])
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await end(process)
