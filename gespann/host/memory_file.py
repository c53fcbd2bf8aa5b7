"""A volume as a file: one ``qemu-storage-daemon`` per image opens it and shows it through FUSE, where libvirt writes a
machine's memory to and reads it from. Nothing of the memory ever lies on the host's own disks.

libvirt holds its lock on the machine while it reads and writes, for as long as that takes. So whatever hangs is freed
by killing the daemon: every call on the file then fails at once.

    RUN/memory/<image id>/   image (the mount), pid, secret (briefly)

The options are those of QEMU's page qemu-storage-daemon(1).
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from gespann.host.nbd_export import portal
from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.json_lines import SeamError
from gespann.system import processes
from gespann.system.files import private_directory, write_secret

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 60.0  # a flush of everything that the array still holds back
POLL_S = 0.01


def escaped(path: Path | str) -> str:
    """For QEMU's option lists, where a comma begins the next option."""
    return os.fspath(path).replace(",", ",,")


def daemon_words(source: IscsiSource | FileSource, read_only: bool, directory: Path) -> list[str]:
    """``spec_check`` has refused commas in everything but paths. ``setpriv --pdeathsig``: the kernel ends the daemon
    when the agent dies. ``growable=off``: libvirt truncates what it writes to; a volume keeps its size."""
    words = ["setpriv", "--pdeathsig", "KILL", "qemu-storage-daemon", "--pidfile", str(directory / "pid")]
    access = "read-only=on" if read_only else "read-only=off"
    if isinstance(source, FileSource):
        disk = f"driver=file,filename={escaped(source.path)}"
    else:
        disk = f"driver=iscsi,transport=tcp,portal={portal(source)},target={source.target},lun={source.lun}"
        disk += f",initiator-name={source.initiator},cache.direct=on"
        if source.chap_user:
            words += ["--object", f"secret,id=chap,format=raw,file={escaped(directory / 'secret')}"]
            disk += f",user={source.chap_user},password-secret=chap"
    words += ["--blockdev", f"{disk},node-name=disk,{access}"]
    writable = "off" if read_only else "on"
    mount = escaped(directory / "image")
    return [*words, "--export", f"fuse,id=image,node-name=disk,mountpoint={mount},writable={writable},growable=off"]


@dataclass
class _Daemon:
    process: asyncio.subprocess.Process
    directory: Path
    stderr: bytearray = field(default_factory=bytearray)
    reading: asyncio.Task[None] | None = None

    def words(self) -> str:
        return self.stderr.decode(errors="replace").strip()[-2000:]


class MemoryFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemons: dict[str, _Daemon] = {}

    async def open(self) -> None:
        """After a crash: the kernel has ended the daemons; what is left are dead mounts and files."""
        for entry in sorted(self._directory.glob("*")):
            await _clear(entry)
        private_directory(self._directory)

    async def close(self) -> None:
        for image_id in list(self._daemons):
            await self.kill(image_id)

    async def show(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> Path:
        """The file. SeamError STORAGE if the volume cannot be opened; nothing is left then."""
        directory = private_directory(self._directory / image_id)
        try:
            daemon = await self._start(source, read_only, directory)
        except BaseException:
            await _clear(directory)
            raise
        finally:
            (directory / "secret").unlink(missing_ok=True)
        self._daemons[image_id] = daemon
        return directory / "image"

    async def _start(self, source: IscsiSource | FileSource, read_only: bool, directory: Path) -> _Daemon:
        (directory / "image").touch(mode=0o600)
        if isinstance(source, IscsiSource) and source.chap_user:
            write_secret(directory / "secret", source.chap_secret.encode())
        process = await processes.start(daemon_words(source, read_only, directory), stderr=asyncio.subprocess.PIPE)
        daemon = _Daemon(process, directory)
        daemon.reading = asyncio.create_task(_collect(daemon))
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                while not (directory / "pid").exists():  # written once the file is there
                    if process.returncode is not None:
                        await daemon.reading
                        raise SeamError("STORAGE", daemon.words() or "qemu-storage-daemon ended without a word")
                    await asyncio.sleep(POLL_S)
        except BaseException as error:
            processes.kill_session(process.pid)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise SeamError("STORAGE", f"the volume did not open within {OPEN_TIMEOUT_S:g} s") from None
            raise
        return daemon

    async def end(self, image_id: str) -> None:
        """Flushes and closes; only if this returns is what was written safe. SeamError STORAGE otherwise."""
        daemon = self._daemons.pop(image_id, None)
        if daemon is None:
            raise SeamError("STORAGE", "the volume's connection ended by itself")
        try:
            await asyncio.wait_for(asyncio.to_thread(_sync, daemon.directory / "image"), CLOSE_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                daemon.process.send_signal(signal.SIGTERM)
            status = await asyncio.wait_for(daemon.process.wait(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            raise SeamError("STORAGE", f"the volume did not flush within {CLOSE_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise SeamError("STORAGE", f"the volume did not flush: {error.strerror} {daemon.words()}") from None
        finally:
            await self._kill(daemon)
        if status != 0:
            raise SeamError("STORAGE", f"qemu-storage-daemon ended with status {status}: {daemon.words()}")

    async def kill(self, image_id: str) -> None:
        """Whoever reads or writes the file gets an error, at once. What was written is worth nothing."""
        daemon = self._daemons.pop(image_id, None)
        if daemon is not None:
            await self._kill(daemon)

    async def _kill(self, daemon: _Daemon) -> None:
        processes.kill_session(daemon.process.pid)
        await daemon.process.wait()
        await _clear(daemon.directory)


def _sync(path: Path) -> None:
    if os.access(path, os.W_OK):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


async def _collect(daemon: _Daemon) -> None:
    stream = daemon.process.stderr
    while stream is not None and (data := await stream.read(4096)):
        daemon.stderr += data
        del daemon.stderr[:-8192]


async def _clear(directory: Path) -> None:
    """Lazily: a process may still hold the file, and finds it dead."""
    with contextlib.suppress(processes.CommandFailed):
        await processes.run_async(["umount", "--lazy", str(directory / "image")], check=False)
    await asyncio.to_thread(shutil.rmtree, directory, True)
