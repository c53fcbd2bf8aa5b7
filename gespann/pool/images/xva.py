"""Disks in an archive of a VM: members ``Ref:7/00000012`` of 1 MiB, each followed by its checksum.

The layout of XenServer's XVA: ``ova.xml`` comes first, then disk by disk in the order of their names as text. Blocks of
zeroes may be left out, but for the first and the last one of a disk. A block's place follows from those before it: a
number that is left out stands for one block of zeroes, and a block of no bytes (sent to keep a connection alive)
takes a number and no place. A checksum is a member of the same name with ``.xxhash`` (XXH64, 16 hex digits, upper case)
or ``.checksum`` (SHA-1, 40 hex digits, lower case).
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import xxhash

from gespann.pool.images.nbd import NbdClient
from gespann.pool.images.streams import EndedEarly, Sink
from gespann.pool.images.tar import Header, NoArchive, TarReader, member
from gespann.seams.xenapi.errors import XenApiError

BLOCK_BYTES = 1024 * 1024
OVA_XML = "ova.xml"
OVA_LIMIT_BYTES = 16 * 1024 * 1024
#: no writer of these archives makes blocks of another size than 1 MiB; a larger one would have to be held in memory
BLOCK_LIMIT_BYTES = 4 * BLOCK_BYTES
CHECKSUM_LIMIT_BYTES = 256
AFTER_END_BYTES = 1024 * 1024
_NUMBER = re.compile(r"[0-9]{8,12}")
Progress = Callable[[float], None]
Write = Callable[[int, bytes], Awaitable[None]]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def xxh64(data: bytes) -> str:
    return xxhash.xxh64(data).hexdigest().upper()


CHECKSUMS: dict[str, Callable[[bytes], str]] = {".xxhash": xxh64, ".checksum": sha1}


def failed(text: str) -> XenApiError:
    return XenApiError("IMPORT_ERROR", [text])


def unexpected(expected: str, found: str) -> XenApiError:
    return XenApiError("IMPORT_ERROR_UNEXPECTED_FILE", [expected, found[:200]])


async def write_disk(image: NbdClient, name: str, sink: Sink, progress: Progress) -> None:
    """``name``: of the disk in the archive, ``Ref:7``."""
    async for number, data in image.blocks(BLOCK_BYTES):
        path = f"{name}/{number:08d}"
        await sink(member(path, data))
        await sink(member(f"{path}.xxhash", xxh64(data).encode()))
        progress((number + 1) * BLOCK_BYTES / image.size_bytes)


@dataclass
class ArchiveReader:
    """An archive on its way in. ``force``: wrong checksums are passed over."""

    tar: TarReader
    force: bool = False

    async def ova_xml(self) -> bytes:
        header = await self._header(OVA_XML)
        if header.name != OVA_XML:
            raise unexpected(OVA_XML, header.name)
        return await self._data(header, OVA_LIMIT_BYTES)

    async def blocks(self, name: str, size_bytes: int) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, data) of one disk, until its last byte has come."""
        offset, last, unit_bytes = 0, -1, 0
        while offset < size_bytes:
            expected = f"{name}/{last + 1:08d}"
            header = await self._header(expected)
            directory, _, number_text = header.name.partition("/")
            if directory != name or not _NUMBER.fullmatch(number_text):
                raise unexpected(expected, header.name)
            number = int(number_text)
            if number <= last:
                raise unexpected(expected, header.name)
            data = await self._data(header, BLOCK_LIMIT_BYTES)
            unit_bytes = unit_bytes or len(data)
            offset += (number - last - 1) * unit_bytes
            if offset + len(data) > size_bytes:
                raise failed(f"{name} has more than its {size_bytes} bytes")
            await self._check(header.name, data)
            if data:
                yield offset, data
            offset, last = offset + len(data), number

    async def end(self) -> None:
        """After the last disk: nothing but the end may follow; an archive that just stops there is whole, too."""
        try:
            header = await self.tar.header()
        except EndedEarly:
            return
        except NoArchive as error:
            raise failed(str(error)) from None
        if header is not None:
            raise unexpected("the end of the archive", header.name)

    async def _check(self, name: str, data: bytes) -> None:
        header = await self._header(f"{name}.xxhash")
        suffix = header.name.removeprefix(name)
        if not header.name.startswith(name) or suffix not in CHECKSUMS:
            raise unexpected(f"{name}.xxhash", header.name)
        said = await self._data(header, CHECKSUM_LIMIT_BYTES)
        if said.strip() != CHECKSUMS[suffix](data).encode() and not self.force:
            raise XenApiError("IMPORT_ERROR_SOME_CHECKSUMS_FAILED", [])

    async def _header(self, expected: str) -> Header:
        try:
            header = await self.tar.header()
        except EndedEarly:
            raise premature() from None
        except NoArchive as error:
            raise failed(str(error)) from None
        if header is None:
            raise unexpected(expected, "the end of the archive")
        return header

    async def _data(self, header: Header, limit_bytes: int) -> bytes:
        def refuse() -> XenApiError:
            return failed(f"{header.name} has {header.size_bytes} bytes; at most {limit_bytes} are taken")

        try:
            return await self.tar.data(header, limit_bytes, refuse)
        except EndedEarly:
            raise premature() from None


def premature() -> XenApiError:
    return XenApiError("IMPORT_ERROR_PREMATURE_EOF", [])
