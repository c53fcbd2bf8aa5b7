"""The thin client as the engine sees it: it prints, prompts, reads files and opens HTTP connections for us."""

import asyncio
from collections.abc import AsyncIterator

from gespann.xe import frames
from gespann.xe.failures import CommandFailure, ExitWith
from gespann.xe.frames import Message

FROM_CLIENT_LIMIT_BYTES = 1024 * 1024
UPLOAD_LIMIT_BYTES = 200 * 1024 * 1024  # a file given to Load is held in memory: certificates, licences, patches
READ_BYTES = 65536
GREETING_TIMEOUT_S = 30.0


class ClientChannel:
    """Commands to the client and its answers, over one stream. Not for use by two tasks at once.

    ConnectionError: the client is gone. FrameError: it does not speak the protocol.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = frames.FrameReader(FROM_CLIENT_LIMIT_BYTES)

    async def greet(self) -> None:
        """Sends our version and reads the client's."""
        await self._send(frames.GREETING)
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            greeting = await self._reader.readexactly(len(frames.GREETING))
        if greeting[: len(frames.MAGIC) + 4] != frames.GREETING[: len(frames.MAGIC) + 4]:
            raise frames.FrameError("the client speaks another protocol or version")

    @property
    def gone(self) -> bool:
        """True once the client has hung up."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def print(self, text: str) -> None:
        """On the client's stdout; the client adds the line break."""
        await self._command(frames.PRINT, text)

    async def print_error(self, text: str) -> None:
        """On the client's stderr, as it is."""
        await self._command(frames.PRINT_STDERR, text)

    async def error(self, code: str, params: list[str]) -> None:
        await self._command(frames.ERROR, code, params)

    async def exit(self, status: int) -> None:
        await self._command(frames.EXIT, status)

    async def prompt(self) -> str:
        """One line that the user typed, without its line break."""
        await self._command(frames.PROMPT)
        line = b"".join([data async for data in self._chunks()])
        return line.decode("utf-8", "replace").rstrip("\r\n")

    async def load(self, path: str) -> bytes:
        """A file of the client. ExitWith(1), with a line on stderr, if the client cannot or may not read it."""
        await self._command(frames.LOAD, path)
        answer = await self._receive()
        if (answer.family, answer.tag) != (frames.RESPONSE, frames.OK):
            await self.print_error(f"Failed to read {path}\n")
            raise ExitWith(1)
        found = bytearray()
        async for data in self._chunks():
            found += data
            if len(found) > UPLOAD_LIMIT_BYTES:
                raise CommandFailure(f"{path} is larger than {UPLOAD_LIMIT_BYTES} bytes, the most that can be sent")
        return bytes(found)

    async def http_get(self, path: str, url: str) -> bool:
        """The client fetches ``url`` from this server into its file. True: it says that it did."""
        await self._command(frames.HTTP_GET, path, url)
        return await self._transferred()

    async def http_put(self, path: str, url: str) -> bool:
        """The client sends its file to ``url`` of this server. True: it says that it did."""
        await self._command(frames.HTTP_PUT, path, url)
        return await self._transferred()

    async def http_connect(self, url: str) -> bool:
        """The client's terminal becomes the console behind ``url`` until its user leaves it."""
        await self._command(frames.HTTP_CONNECT, url)
        return await self._transferred()

    async def _transferred(self) -> bool:
        while True:
            answer = await self._receive()
            if answer.family == frames.RESPONSE and answer.tag != frames.WAIT:
                return answer.tag == frames.OK

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            answer = await self._receive()
            if (answer.family, answer.tag) == (frames.BLOB, frames.END):
                return
            if (answer.family, answer.tag) != (frames.BLOB, frames.CHUNK):
                raise frames.FrameError("expected a piece of a file")
            yield answer.data

    async def _command(self, tag: int, *values: str | int | list[str]) -> None:
        await self._send(frames.encode(frames.COMMAND, tag, *values))

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _receive(self) -> Message:
        while (message := self._frames.next()) is None:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the client hung up")
            self._frames.feed(data)
        return message
