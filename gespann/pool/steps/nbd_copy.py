"""Bytes into, out of and between NBD exports, by ``nbdcopy`` (package libnbd-bin)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from gespann.seams.xenapi.errors import XenApiError
from gespann.system.processes import Word, end, start

CHUNK_BYTES = 1024 * 1024
ERRORS_SHOWN_CHARS = 500
Progress = Callable[[float], None]


def export_uri(socket: str) -> str:
    return f"nbd+unix:///?socket={socket}"


class _Copying:
    """A running nbdcopy, and what it said if it failed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stderr is not None
        self._errors = asyncio.ensure_future(process.stderr.read())

    async def finish(self) -> None:
        code = await self.process.wait()
        said = (await self._errors).decode(errors="replace").strip()
        if code != 0:
            raise XenApiError("VDI_COPY_FAILED", [said[-ERRORS_SHOWN_CHARS:] or f"nbdcopy ended with status {code}"])


@contextlib.asynccontextmanager
async def _nbdcopy(words: list[Word], *, stdin: bool = False, stdout: bool = False) -> AsyncIterator[_Copying]:
    """Dead at the end of the block, however that is left."""
    process = await start(
        ["nbdcopy", *words],
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if stdout else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield _Copying(process)
    finally:
        await end(process)


async def copy_image(source: str, target: str, progress: Progress) -> None:
    """The whole of one export into the other; holes stay holes where both sides know them."""
    async with _nbdcopy(["--flush", "--progress=1", export_uri(source), export_uri(target)], stdout=True) as copying:
        assert copying.process.stdout is not None
        async for line in copying.process.stdout:
            done, _, whole = line.partition(b"/")  # 37/100
            if done.strip().isdigit() and whole.strip().isdigit():
                progress(int(done) / max(int(whole), 1))
        await copying.finish()


async def write_image(socket: str, body: AsyncIterator[bytes], size_bytes: int, progress: Progress) -> int:
    """``body`` from the start of the export on. VDI_TOO_SMALL if it is longer than the export; a shorter one leaves the
    rest as it is. Gives the bytes written, all flushed."""
    written = 0
    async with _nbdcopy(["--flush", "-", export_uri(socket)], stdin=True) as copying:
        stdin = copying.process.stdin
        assert stdin is not None
        try:
            async for piece in body:
                written += len(piece)
                if written > size_bytes:
                    raise XenApiError("VDI_TOO_SMALL", [str(size_bytes), str(written)])
                stdin.write(piece)
                await stdin.drain()
                progress(written / size_bytes)
            stdin.close()
            await stdin.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            pass  # nbdcopy says why
        await copying.finish()
    return written


async def read_image(
    socket: str, sink: Callable[[bytes], Awaitable[None]], size_bytes: int, progress: Progress
) -> None:
    """The whole export, in order."""
    read = 0
    async with _nbdcopy([export_uri(socket), "-"], stdout=True) as copying:
        stdout = copying.process.stdout
        assert stdout is not None
        while piece := await stdout.read(CHUNK_BYTES):
            await sink(piece)
            read += len(piece)
            progress(read / size_bytes)
        await copying.finish()
