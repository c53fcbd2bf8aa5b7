"""inotify: what happens to names in a folder, as it happens. To kill a process just when it makes or moves a file."""

import ctypes
import os
import struct
from pathlib import Path

CREATE, DELETE, MOVED_FROM, MOVED_TO, CLOSE_WRITE = 0x100, 0x200, 0x40, 0x80, 0x8
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name: inotify(7)
LIBC = ctypes.CDLL(None, use_errno=True)


class FileEvents:
    """Of a folder and the folders in it."""

    def __init__(self, folder: Path) -> None:
        self.descriptor = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.descriptor >= 0, os.strerror(ctypes.get_errno())
        for path in [folder, *(entry for entry in folder.rglob("*") if entry.is_dir())]:
            mask = CREATE | DELETE | MOVED_FROM | MOVED_TO | CLOSE_WRITE
            watch = LIBC.inotify_add_watch(self.descriptor, os.fsencode(path), mask)
            assert watch >= 0, os.strerror(ctypes.get_errno())

    def fileno(self) -> int:
        return int(self.descriptor)

    def take(self) -> list[str]:
        """The names that something happened to since the last call."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return []
        names, at = [], 0
        while at < len(data):
            length = EVENT.unpack_from(data, at)[3]
            names.append(data[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0").decode())
            at += EVENT.size + length
        return names

    def close(self) -> None:
        os.close(self.descriptor)
