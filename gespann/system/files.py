"""The door to files that must survive: a write is whole and on the disk when it returns, or it never was."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

SECRET_MODE = 0o600


def write_durable(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces ``path`` by ``data``, atomically: written beside it, synced, renamed, and the directory synced.

    The file never exists with wider rights than ``mode``. OSError: nothing has changed.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode & 0o600)
    try:
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_secret(path: Path, data: bytes) -> None:
    """``write_durable`` for what only its owner may read."""
    write_durable(path, data, SECRET_MODE)


def read_secret(path: Path) -> bytes:
    """What ``write_secret`` wrote. PermissionError if others could have read or changed it meanwhile."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise PermissionError(f"{path} has mode {mode:o}; a secret must not be open to others: chmod 600 {path}")
        return file.read()


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: without it a crash can undo a rename."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def private_directory(path: Path) -> Path:
    """A directory that only its owner may enter, made if it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds a lock that the kernel drops when the process dies. BlockingIOError if another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process uses {path.parent}") from None
        yield
    finally:
        os.close(fd)
