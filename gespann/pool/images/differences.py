"""What differs between two images."""

from collections.abc import AsyncIterator, Callable

from gespann.pool.images.changed_bits import BLOCK_BYTES as CHANGED_BYTES
from gespann.pool.images.changed_bits import ChangedBits
from gespann.pool.images.nbd import NbdClient

BLOCK_BYTES = 1024 * 1024
Progress = Callable[[float], None]


async def copy_differences(source: NbdClient, base: NbdClient, target: NbdClient, progress: Progress) -> None:
    """The blocks of ``source`` that ``base`` does not have, or has otherwise, into ``target``; flushed. Where the
    source is longer than the base, the base counts as zeroes."""
    async for number, data in differing_blocks(source, base, BLOCK_BYTES, progress):
        offset = number * BLOCK_BYTES
        if data.count(0) == len(data):
            await target.write_zeroes(offset, len(data))
        else:
            await target.write(offset, data)
    await target.flush()
    progress(1.0)


async def differing_blocks(
    source: NbdClient, base: NbdClient, block_bytes: int, progress: Progress
) -> AsyncIterator[tuple[int, bytes]]:
    """The number of each block that differs, and what the source has there."""
    async for number, data, other in _compared(source, base, block_bytes, progress):
        if data != other:
            yield number, data


async def changed_blocks(source: NbdClient, base: NbdClient, progress: Progress) -> bytes:
    """As ``ChangedBits`` of ``source``: where ``base`` has something else."""
    bits = ChangedBits(source.size_bytes)
    async for number, data, other in _compared(source, base, BLOCK_BYTES, progress):
        if data != other:
            for at in range(0, len(data), CHANGED_BYTES):
                if data[at : at + CHANGED_BYTES] != other[at : at + CHANGED_BYTES]:
                    bits.add(number * BLOCK_BYTES + at, 1)
    return bytes(bits)


async def _compared(
    source: NbdClient, base: NbdClient, block_bytes: int, progress: Progress
) -> AsyncIterator[tuple[int, bytes, bytes]]:
    """(number, what the source has, what the base has), of blocks that are not holes on both sides."""
    held = await _held(source, source.size_bytes, block_bytes) | await _held(base, source.size_bytes, block_bytes)
    numbers = sorted(held)

    async def row() -> AsyncIterator[int]:
        for number in numbers:
            yield number

    done = 0
    async for number, data in source.read_blocks(row(), block_bytes):
        offset = number * block_bytes
        length = max(0, min(len(data), base.size_bytes - offset))
        other = await base.read(offset, length) if length else b""
        yield number, data, other.ljust(len(data), b"\0")
        done += 1
        progress(done / len(numbers))


async def _held(image: NbdClient, size_bytes: int, block_bytes: int) -> set[int]:
    found: set[int] = set()
    async for offset, length in image.extents(0, min(size_bytes, image.size_bytes)):
        found.update(range(offset // block_bytes, (offset + length - 1) // block_bytes + 1))
    return found
