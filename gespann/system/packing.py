"""Files made smaller for the way to another host."""

import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

from gespann.system.files import SECRET_MODE

_READ_BYTES = 1024 * 1024
_QUICK = 1  # of zlib's levels: most of the gain for the least time


def pack(source: Path, target: Path) -> tuple[str, int]:
    """``target``, readable by its owner only: ``source`` compressed. Gives its SHA-256 and its size in bytes."""
    deflate, digest, size_bytes = zlib.compressobj(_QUICK), hashlib.sha256(), 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, SECRET_MODE)
    with source.open("rb") as file, open(fd, "wb") as packed:
        while True:
            piece = file.read(_READ_BYTES)
            out = deflate.compress(piece) if piece else deflate.flush()
            digest.update(out)
            size_bytes += packed.write(out)
            if not piece:
                return digest.hexdigest(), size_bytes


def unpack(source: Path, target: Any) -> None:
    """Into an open file. zlib.error for what is not whole."""
    inflate = zlib.decompressobj()
    with source.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            target.write(inflate.decompress(piece))
    target.write(inflate.flush())
    if not inflate.eof:
        raise zlib.error("it ends too early")
