"""Two byte streams joined: what comes in at one goes out at the other, until either side ends."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from gespann.system.json_lines import bind_unix

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[], Awaitable[Streams]]


async def join(one: Streams, other: Streams) -> None:
    """Closes both when either ends: half-closed channels are used by nobody here."""
    try:
        await until_one_ends(pump(one[0], other[1]), pump(other[0], one[1]))
    finally:
        for _, writer in (one, other):
            writer.close()


async def until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


class UnixRelay:
    """A Unix socket of mode 0600, each connection to which is joined to what ``open_far`` opens then."""

    def __init__(self, path: Path, open_far: Open) -> None:
        self.path = path
        self._open_far = open_far
        self._server: asyncio.Server | None = None
        self._joined: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=bind_unix(self.path, 0o600))

    def cut(self) -> None:
        """Whoever is connected now hears that it is over."""
        for task in list(self._joined):
            task.cancel()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._joined, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._joined.add(task)
        try:
            far = await self._open_far()
            await join((reader, writer), far)
        except (OSError, TimeoutError) as error:
            log.warning("%s leads nowhere: %s", self.path, error or type(error).__name__)
        finally:
            writer.close()
            self._joined.discard(task)
