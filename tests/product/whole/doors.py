"""Doors in front of the seams: they let everything through, and strike when a counted message passes.

door.arm(2, strike, after=True)     the third counted message has been carried out, its answer is held back
... the operation runs ...
door.disarm()                       whether it came to that
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

Strike = Callable[[], Awaitable[None]]
PIECE = 64 * 1024
LINE_LIMIT_BYTES = 16 * 1024 * 1024


class Door:
    """One client's connection becomes one of ours to ``upstream``."""

    def __init__(self) -> None:
        self.open = True  # else nobody hears anything
        self.passed: list[str] = []  # the counted messages since ``arm``
        self.answers = 0  # how many of them could be struck at afterwards
        self.struck = False
        self._at, self._after, self._strike = -1, False, None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def arm(self, at: int, strike: Strike, *, after: bool = False) -> None:
        self.passed, self.answers, self.struck = [], 0, False
        self._at, self._after, self._strike = at, after, strike

    async def disarm(self) -> bool:
        """True if it came to the strike; that has ended then."""
        self._strike = None
        await self._idle.wait()
        return self.struck

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise NotImplementedError

    async def request(self, piece: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        raise NotImplementedError

    async def answer(self, piece: bytes) -> None:
        """Before an answer is handed on."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.read(PIECE)

    async def count(self, what: str) -> bool:
        """True if this is the one to strike after."""
        if self._strike is None:
            return False
        self.passed.append(what)
        if len(self.passed) - 1 != self._at:
            return False
        if self._after:
            return True
        await self.hit()
        return False

    async def hit(self) -> None:
        strike, self._strike = self._strike, None
        if strike is not None:
            self.struck = True
            self._idle.clear()
            await asyncio.shield(self._spawn(self._finish(strike)))  # the connection that it came by may end with it

    async def _finish(self, strike: Strike) -> None:
        try:
            await strike()
        finally:
            self._idle.set()

    async def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    def hang_up(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        await self.stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(reader, writer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            upstream, ours = await self.connect()

            async def send(piece: bytes) -> None:
                ours.write(piece)
                await ours.drain()

            async def there() -> None:
                while piece := await self.read(reader):
                    if self.open:
                        await self.request(piece, send)

            async def back() -> None:
                while piece := await self.read(upstream):
                    await self.answer(piece)
                    if self.open:
                        writer.write(piece)
                        await writer.drain()

            ways = {asyncio.ensure_future(there()), asyncio.ensure_future(back())}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            for end in (writer, ours):
                if end is not None:
                    end.close()


class LineDoor(Door):
    """For seams 4 and 5. Counts the requests whose ``op`` is in ``counted``."""

    def __init__(self, path: Path, upstream: Path, counted: frozenset[str]) -> None:
        super().__init__()
        self.path, self.upstream, self.counted = path, upstream, counted
        self._held: set[int] = set()  # ids whose answers are to be struck at

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._came, self.path, limit=LINE_LIMIT_BYTES)
        self.path.chmod(0o600)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.upstream, limit=LINE_LIMIT_BYTES)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        with contextlib.suppress(asyncio.IncompleteReadError):
            return await reader.readuntil(b"\n")
        return b""

    async def request(self, piece: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        line = json.loads(piece)
        if line["op"] in self.counted:
            self.answers += 1
            if await self.count(line["op"]):
                self._held.add(line["id"])
        await send(piece)

    async def answer(self, piece: bytes) -> None:
        if self._held and json.loads(piece).get("id") in self._held:
            self._held.clear()
            await self.hit()


class StreamDoor(Door):
    """For seam 3, which is encrypted: counts the pieces that the client sends, and, for ``after``, those that it would
    get."""

    def __init__(self, port: int, upstream_port: int) -> None:
        super().__init__()
        self.port, self.upstream_port = port, upstream_port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.upstream_port)

    async def request(self, piece: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        if not self._after:
            await self.count(f"{len(piece)} bytes")
        await send(piece)

    async def answer(self, piece: bytes) -> None:
        self.answers += 1
        if self._after and self._strike is not None:
            self.passed.append(f"answer of {len(piece)} bytes")
            if len(self.passed) - 1 == self._at:
                await self.hit()
