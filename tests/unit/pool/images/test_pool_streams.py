"""Streams through other processes: whoever leaves one in the middle is not held up by what it still had to say."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from gespann.pool.images.streams import Pieces, compressed, decompressed

LARGE = bytes(8 * 1024 * 1024)  # more than pipes and readers hold


async def one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def test_a_reader_that_has_seen_enough() -> None:
    for _ in range(10):
        async with asyncio.timeout(120), decompressed(Pieces(one(gzip.compress(LARGE, 1)))) as pieces:
            assert await pieces.exactly(512) == bytes(512)


async def give_up() -> None:
    async def sink(piece: bytes) -> None:
        await asyncio.Event().wait()  # a client that takes nothing

    async with asyncio.timeout(120), compressed(sink, "zstd") as take:
        await take(b"something")
        raise ZeroDivisionError


async def test_a_writer_that_gives_up() -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await give_up()
