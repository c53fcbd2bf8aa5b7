"""The NBD client against qemu-nbd and against the fake host's server: both must be understood."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gespann.host.fake.nbd import FakeMedium, NbdSession
from gespann.pool.images.nbd import NbdError, nbd_client
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import processes
from tests.listening import listens

MIB = 1024 * 1024
SIZE = 9 * MIB + 4096


@contextlib.asynccontextmanager
async def serve_qemu(directory: Path, read_only: bool = False) -> AsyncIterator[str]:
    (directory / "disk").touch()
    with (directory / "disk").open("r+b") as file:
        file.truncate(SIZE)
    words = ["qemu-nbd", "--persistent", "--format=raw", "--discard=unmap", "--detect-zeroes=unmap", "--shared=4"]
    words += ["--read-only"] if read_only else []
    process = await processes.start([*words, f"--socket={directory}/nbd", str(directory / "disk")])
    try:
        async with asyncio.timeout(120):
            while not listens(directory / "nbd"):
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield f"{directory}/nbd"
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def serve_fake(directory: Path, read_only: bool = False) -> AsyncIterator[str]:
    medium = FakeMedium(SIZE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await NbdSession(medium, read_only, reader, writer).serve()

    server = await asyncio.start_unix_server(serve, directory / "nbd")
    yield f"{directory}/nbd"
    server.close()


SERVERS = pytest.mark.parametrize("serve", [serve_qemu, serve_fake])


@SERVERS
async def test_what_is_written_is_read_and_the_rest_is_holes(serve, tmp_path: Path) -> None:
    async with serve(tmp_path) as socket, nbd_client(socket) as image:
        assert (image.size_bytes, image.knows_holes) == (SIZE, True)
        await image.write(3 * MIB + 512, b"fox " * 1024)
        await image.write(7 * MIB, b"x" * MIB)
        await image.write_zeroes(7 * MIB, MIB)
        await image.flush()
        assert await image.read(3 * MIB + 510, 10) == b"\0\0fox fox "
        held = [extent async for extent in image.extents()]
        assert all(offset >= 3 * MIB and offset + length <= 4 * MIB for offset, length in held)
        assert sum(length for _, length in held) <= 128 * 1024
        blocks = {number: data async for number, data in image.blocks(MIB)}
        assert sorted(blocks) == [0, 3, 9]
        assert (blocks[3].count(b"fox "), blocks[9]) == (1024, bytes(4096))


@SERVERS
async def test_many_requests_at_once(serve, tmp_path: Path) -> None:
    async with serve(tmp_path) as socket, nbd_client(socket) as image:
        await asyncio.gather(*(image.write(n * 65536, bytes([n]) * 65536) for n in range(100)))
        read = await asyncio.gather(*(image.read(n * 65536, 65536) for n in range(100)))
        assert [data[0] for data in read] == list(range(100))
        assert all(data.count(data[:1]) == 65536 for data in read)


@SERVERS
async def test_a_refused_write_is_said(serve, tmp_path: Path) -> None:
    async with serve(tmp_path, read_only=True) as socket, nbd_client(socket) as image:
        with pytest.raises(XenApiError, match="VDI_IO_ERROR"):
            await image.write(0, b"x" * 512)
        with pytest.raises(XenApiError, match="VDI_IO_ERROR"):
            await image.read(SIZE, 512)
        assert await image.read(0, 512) == bytes(512)  # and it goes on


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"NBDMAGIC",
        b"NBDMAGICIHAVEOPT\0\3" + b"\xff" * 200,
        b"NBDMAGICIHAVEOPT\0\3" + (bytes(16) + b"\x7f\xff\xff\xff"),
    ],
)
async def test_a_server_that_is_none(says: bytes, tmp_path: Path) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "nbd")
    with pytest.raises(NbdError):
        async with nbd_client(f"{tmp_path}/nbd"):
            pass
    server.close()


async def test_a_server_that_dies_in_the_middle(tmp_path: Path) -> None:
    writers = []
    medium = FakeMedium(SIZE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await NbdSession(medium, False, reader, writer).serve()

    server = await asyncio.start_unix_server(serve, tmp_path / "nbd")
    async with nbd_client(f"{tmp_path}/nbd") as image:
        await image.read(0, 512)
        writers[0].transport.abort()
        for _ in range(2):  # and whoever asks later hears it too
            with pytest.raises(NbdError):
                await image.read(0, 512)
    server.close()
