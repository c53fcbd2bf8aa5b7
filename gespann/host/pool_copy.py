"""The copy of the pool by which this host's coordinator could lead it: DATA/pool-copy-*, and pool-copy.json about it.

Both are replaced together: the file bears the copy's id in its name, and what is said about it names the file.
"""

import asyncio
import hashlib
import os
import sqlite3
import tempfile
import zlib
from pathlib import Path

import msgspec

from gespann.seams.engine_socket import Empty
from gespann.seams.host_succession import (
    COPY_LIMIT_BYTES,
    PART_BYTES,
    CopyAbout,
    CopyPart,
    CopyShowReply,
)
from gespann.seams.json_lines import SeamError
from gespann.system.files import SECRET_MODE, read_secret, sync_directory, write_secret
from gespann.system.packing import unpack

ABOUT, PREFIX, ARRIVING = "pool-copy.json", "pool-copy-", "pool-copy.part"


class PoolCopy:
    def __init__(self, data_dir: Path) -> None:
        self._data = data_dir
        self._arriving = ""  # the id of what is sent just now
        self._turn = asyncio.Lock()
        self.about = self._read()

    def show(self) -> CopyShowReply:
        return CopyShowReply(about=self.about, path=str(self._path(self.about)) if self.about else "")

    async def part(self, request: CopyPart) -> Empty:
        async with self._turn:
            _check_id(request.copy_id)
            end = request.offset_bytes + len(request.data)
            if not 0 < len(request.data) <= PART_BYTES or request.offset_bytes < 0 or end > COPY_LIMIT_BYTES:
                raise SeamError("BAD_REQUEST", "not a part of a copy")
            if request.offset_bytes == 0:
                self._arriving = request.copy_id
                (self._data / ARRIVING).unlink(missing_ok=True)
            await asyncio.to_thread(self._write, request)
        return Empty()

    def _write(self, request: CopyPart) -> None:
        fd = os.open(self._data / ARRIVING, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
        with open(fd, "wb") as file:
            if request.copy_id != self._arriving or os.fstat(fd).st_size < request.offset_bytes:
                raise SeamError("BAD_STATE", "parts before this one are missing")
            file.seek(request.offset_bytes)
            file.write(request.data)

    async def keep(self, about: CopyAbout) -> CopyShowReply:
        async with self._turn:
            _check_id(about.copy_id)
            if self.about is not None and self.about.copy_id == about.copy_id:
                if self.about != about:  # nothing has changed there since: it is as good as a later one
                    write_secret(self._data / ABOUT, msgspec.json.encode(about))
                    self.about = about
            else:
                await asyncio.to_thread(self._check_and_keep, about)
            return self.show()

    def _check_and_keep(self, about: CopyAbout) -> None:
        arrived = self._data / ARRIVING
        if self._arriving != about.copy_id:
            raise SeamError("BAD_STATE", "that copy has not been sent")
        with arrived.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        if (found, size_bytes) != (about.copy_id, about.size_bytes):
            raise SeamError("BAD_STATE", "what has arrived is not the copy that was sent")
        check_database(arrived)
        arrived.replace(self._path(about))
        sync_directory(self._data)
        write_secret(self._data / ABOUT, msgspec.json.encode(about))
        self.about, self._arriving = about, ""
        self._forget_others()

    def forget(self) -> None:
        (self._data / ABOUT).unlink(missing_ok=True)
        (self._data / ARRIVING).unlink(missing_ok=True)
        self.about, self._arriving = None, ""
        self._forget_others()

    def _forget_others(self) -> None:
        for path in self._data.glob(f"{PREFIX}*"):
            if self.about is None or path != self._path(self.about):
                path.unlink()

    def _path(self, about: CopyAbout) -> Path:
        return self._data / f"{PREFIX}{about.copy_id[:16]}"

    def _read(self) -> CopyAbout | None:
        if not (self._data / ABOUT).exists():
            return None
        return msgspec.json.decode(read_secret(self._data / ABOUT), type=CopyAbout)


def _check_id(copy_id: str) -> None:
    if len(copy_id) != 64 or not set(copy_id) <= set("0123456789abcdef"):
        raise SeamError("BAD_REQUEST", "not the id of a copy")


def check_database(path: Path) -> None:
    """BAD_STATE unless it unpacks to a sound SQLite file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".check-") as unpacked:
        try:
            unpack(path, unpacked)
            unpacked.flush()
            connection = sqlite3.connect(unpacked.name)
            try:
                (word,) = connection.execute("PRAGMA integrity_check").fetchone()
            finally:
                connection.close()
        except (zlib.error, sqlite3.DatabaseError) as error:
            raise SeamError("BAD_STATE", f"the copy is no database: {error}") from None
        if word != "ok":
            raise SeamError("BAD_STATE", f"the copy is damaged: {str(word)[:200]}")
