"""Members of a tar archive, one after the other: nothing is ever written under a member's name.

Headers are made and read by the standard library's ``tarfile``; only ordinary files exist here. The archives of the
original have names of at most 100 bytes and plain ustar headers.
"""

import contextlib
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from gespann.pool.images.streams import EndedEarly, Pieces

BLOCK_BYTES = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK_BYTES)
#: extended headers (long names, attributes) hold nothing that is needed here; larger ones are not even skipped
EXTENDED_LIMIT_BYTES = 64 * 1024
EXTENDED_IN_A_ROW = 8
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class NoArchive(Exception):
    """This is not a tar archive, or holds something else than files; the text says what was found."""


def member(name: str, data: bytes) -> bytes:
    """A whole member: header, data, padding."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    head = info.tobuf(tarfile.USTAR_FORMAT)
    return b"".join((head, data, bytes(-len(data) % BLOCK_BYTES)))


@dataclass(frozen=True)
class Header:
    name: str
    size_bytes: int


class TarReader:
    def __init__(self, source: Pieces) -> None:
        self._source = source

    async def header(self) -> Header | None:
        """Of the next member, whose data must be read before the next header; None at the end of the archive.
        NoArchive; EndedEarly."""
        for _ in range(EXTENDED_IN_A_ROW):
            block = await self._source.exactly(BLOCK_BYTES)
            if block == bytes(BLOCK_BYTES):
                return None
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise NoArchive(f"not a tar archive: {error}") from None
            if info.type in _PLAIN and info.size >= 0:
                return Header(_printable(info.name), info.size)
            if info.type not in _EXTENDED or not 0 <= info.size <= EXTENDED_LIMIT_BYTES:
                raise NoArchive(f"{_printable(info.name)} is not a plain file")
            await self._source.skip(info.size + -info.size % BLOCK_BYTES)
        raise NoArchive("nothing but extended headers")

    async def data(self, header: Header, limit_bytes: int, refuse: Callable[[], Exception]) -> bytes:
        """All of a member; ``refuse`` makes the error for one that is larger than ``limit_bytes``."""
        if header.size_bytes > limit_bytes:
            raise refuse()
        data = await self._source.exactly(header.size_bytes)
        await self._source.exactly(-header.size_bytes % BLOCK_BYTES)
        return data

    async def drain(self, limit_bytes: int) -> None:
        """What follows the end: a client that sends padding is not cut off. At most ``limit_bytes``."""
        with contextlib.suppress(EndedEarly):
            await self._source.skip(limit_bytes)


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
