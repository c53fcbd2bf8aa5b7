"""Image exports by ``qemu-nbd``: one process per image, supervised, and gone when the agent is.

The secret of an iSCSI disk goes to qemu-nbd in a file of mode 0600 that is deleted as soon as it has been read.

    RUN/images/<image id>/   nbd.sock, secret (briefly)
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.json_lines import SeamError
from gespann.system import processes
from gespann.system.files import private_directory, write_secret

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 60.0  # a flush of everything that the array still holds back
CLIENTS = 16  # connections of one image at a time: nbdcopy opens several
PATH_LIMIT_BYTES = 107  # sun_path with its zero


def portal(source: IscsiSource) -> str:
    return f"[{source.host}]:{source.port}" if ":" in source.host else f"{source.host}:{source.port}"


def image_words(source: IscsiSource | FileSource, secret_path: Path) -> list[str]:
    """The words that name the disk. ``spec_check`` has refused commas in everything but paths, where they double."""
    if isinstance(source, FileSource):
        path = source.path.replace(",", ",,")
        driver = f"driver={source.format},file.driver=file,file.filename={path}"
        return ["--image-opts", f"{driver},file.discard=unmap,discard=unmap"]
    options = [
        "driver=raw,discard=unmap,file.driver=iscsi,file.discard=unmap,file.transport=tcp",
        f"file.portal={portal(source)},file.target={source.target},file.lun={source.lun}",
        f"file.initiator-name={source.initiator}",
    ]
    words: list[str] = []
    if source.chap_user:
        words = ["--object", f"secret,id=chap,format=raw,file={os.fspath(secret_path).replace(',', ',,')}"]
        options.append(f"file.user={source.chap_user},file.password-secret=chap")
    if source.size_bytes:
        options.append(f"offset={source.offset_bytes},size={source.size_bytes}")
    return [*words, "--image-opts", ",".join(options)]


def export_words(source: IscsiSource | FileSource, read_only: bool, socket: Path, secret_path: Path) -> list[str]:
    """``setpriv --pdeathsig`` is the crash insurance: the kernel kills the export when the agent dies."""
    words = ["setpriv", "--pdeathsig", "KILL", "qemu-nbd", "--persistent", f"--shared={CLIENTS}"]
    words += [f"--socket={socket}", "--aio=threads"]
    words += ["--cache=none"] if isinstance(source, IscsiSource) else []
    # Zeroes that are written become holes: an image that comes as a plain stream must not fill a thin volume.
    words += ["--read-only"] if read_only else ["--discard=unmap", "--detect-zeroes=unmap"]
    return words + image_words(source, secret_path)


@dataclass
class _Export:
    process: asyncio.subprocess.Process
    directory: Path
    stderr: bytearray
    supervisor: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "nbd.sock"

    def words(self) -> str:
        return self.stderr.decode(errors="replace").strip()[-2000:]


class QemuNbdImages:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._exports: dict[str, _Export] = {}
        #: image -> held while it is opened or closed; forgotten when nobody holds it or waits for it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        """After a crash: the kernel has killed the exports; what is left is files."""
        shutil.rmtree(self._directory, ignore_errors=True)
        private_directory(self._directory)

    async def close(self) -> None:
        for image_id in list(self._exports):
            try:
                await self.end(image_id)
            except SeamError as error:
                log.error("image %s: %s", image_id, error.message)

    async def export(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> str:
        async with self._locks.setdefault(image_id, asyncio.Lock()):
            there = self._exports.get(image_id)
            if there is not None:
                return str(there.socket)
            export = await self._start(image_id, source, read_only)
            self._exports[image_id] = export
            export.supervisor = asyncio.create_task(self._supervise(image_id, export))
            return str(export.socket)

    async def end(self, image_id: str) -> None:
        async with self._locks.setdefault(image_id, asyncio.Lock()):
            export = self._exports.pop(image_id, None)
            if export is None:
                return
            try:
                await self._stop(export)
            finally:
                shutil.rmtree(export.directory, ignore_errors=True)

    async def _start(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> _Export:
        directory = private_directory(self._directory / image_id)
        socket, secret = directory / "nbd.sock", directory / "secret"
        if len(os.fsencode(socket)) > PATH_LIMIT_BYTES:
            raise SeamError("HYPERVISOR", f"{socket}: a socket's path has at most {PATH_LIMIT_BYTES} bytes")
        try:
            if isinstance(source, IscsiSource) and source.chap_user:
                write_secret(secret, source.chap_secret.encode())
            process = await processes.start(
                export_words(source, read_only, socket, secret), stderr=asyncio.subprocess.PIPE
            )
            export = _Export(process, directory, bytearray())
            try:
                await self._wait_open(export)
            except BaseException:
                await processes.end(process)
                raise
            return export
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            secret.unlink(missing_ok=True)

    async def _wait_open(self, export: _Export) -> None:
        """qemu-nbd listens first and opens the disk then: it is open when it greets a client."""
        reading = asyncio.create_task(_collect(export))
        greeting = asyncio.create_task(_greeted(export.socket))
        try:
            await asyncio.wait({reading, greeting}, timeout=OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                return
            if reading.done():
                raise SeamError("STORAGE", export.words() or "qemu-nbd ended without a word")
            raise SeamError("STORAGE", f"the disk did not open within {OPEN_TIMEOUT_S:g} s")
        finally:
            greeting.cancel()

    async def _supervise(self, image_id: str, export: _Export) -> None:
        status = await export.process.wait()
        if self._exports.get(image_id) is export:
            log.error("image %s: qemu-nbd ended with status %d: %s", image_id, status, export.words())
            del self._exports[image_id]
            shutil.rmtree(export.directory, ignore_errors=True)

    async def _stop(self, export: _Export) -> None:
        with contextlib.suppress(ProcessLookupError):
            export.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                status = await export.process.wait()
        except TimeoutError:
            await processes.end(export.process)
            raise SeamError("STORAGE", f"the disk did not flush within {CLOSE_TIMEOUT_S:g} s") from None
        if status != 0:
            raise SeamError("STORAGE", f"qemu-nbd ended with status {status}: {export.words()}")


async def _collect(export: _Export) -> None:
    """Reads what qemu-nbd says, for as long as it lives."""
    stream = export.process.stderr
    if stream is None:
        return
    while data := await stream.read(4096):
        export.stderr += data
        del export.stderr[:-8192]


async def _greeted(socket: Path) -> None:
    """Returns when the server behind the socket has said NBDMAGIC."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(socket)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        try:
            await reader.readexactly(8)
            return
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.sleep(0.01)
        finally:
            writer.close()
