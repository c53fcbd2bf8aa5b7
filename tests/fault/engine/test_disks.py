"""The campaign's own judgement: each kind of loss that it is for is seen, and what is legal is let through."""

from collections.abc import Callable

import pytest

from tests.fault.engine.disks import BLOCK, SECTOR, Clock, Disk, Instant, Lost, content

Made = tuple[Disk, Clock]


def written(disk: Disk, clock: Clock, block: int, *, answered: bool = True) -> int:
    write = clock.sent()
    disk.send(block, 1, write)
    if answered:
        clock.answer(write)
        disk.acknowledge(block, content(disk.number, block, write))
    return write


def with_block(data: bytes | bytearray, block: int, new: bytes) -> bytes:
    return bytes(data[: block * BLOCK]) + new + bytes(data[(block + 1) * BLOCK :])


@pytest.fixture
def made() -> Made:
    """A disk of four blocks, each written twice, and block 3 a third time without an answer."""
    disk, clock = Disk(1, 4 * BLOCK), Clock()
    for block in (0, 1, 2, 3, 0, 1, 2, 3):
        written(disk, clock, block)
    written(disk, clock, 3, answered=False)
    return disk, clock


def test_what_was_acknowledged_is_enough(made: Made) -> None:
    disk, clock = made
    disk.adopt(bytes(disk.blocks), clock)


def test_an_unanswered_write_may_be_there_whole_or_in_part(made: Made) -> None:
    disk, clock = made
    new = content(1, 3, disk.pending[3])
    torn = new[: 3 * SECTOR] + bytes(disk.blocks[3 * BLOCK + 3 * SECTOR :])
    disk.adopt(with_block(disk.blocks, 3, torn), clock)
    assert disk.torn == 1
    disk.send(3, 1, 9)
    disk.adopt(with_block(disk.blocks, 3, content(1, 3, 9)), clock)


def test_what_was_read_once_must_stay(made: Made) -> None:
    disk, clock = made
    before = bytes(disk.blocks)
    disk.adopt(with_block(disk.blocks, 3, content(1, 3, disk.pending[3])), clock)
    with pytest.raises(Lost, match="volume 1, block 3"):
        disk.adopt(before, clock)


LOSSES: dict[str, Callable[[bytes], bytes]] = {
    "an older write": lambda read: with_block(read, 1, content(1, 1, 3)),
    "zeroes": lambda read: with_block(read, 1, bytes(BLOCK)),
    "another block": lambda read: with_block(read, 1, read[:BLOCK]),
    "another volume": lambda read: with_block(read, 1, content(2, 1, 11)),
    "one bit": lambda read: read[:5000] + bytes([read[5000] ^ 1]) + read[5001:],
    "a sector of zeroes": lambda read: read[:4096] + bytes(SECTOR) + read[4096 + SECTOR :],
    "a short volume": lambda read: read[:-BLOCK],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_seen(made: Made, loss: str) -> None:
    disk, clock = made
    with pytest.raises(Lost):
        disk.adopt(LOSSES[loss](bytes(disk.blocks)), clock)


def copied(source: Disk, instant: Instant) -> Disk:
    copy = Disk(source.number + 100, source.size_bytes)
    copy.window = source.open_window(instant)
    return copy


def test_a_snapshot_holds_what_was_acknowledged_before_its_request(made: Made) -> None:
    disk, clock = made
    before = bytes(disk.blocks)
    copy = copied(disk, Instant())
    written(disk, clock, 0)
    copy.adopt(before, clock)
    later = copied(disk, Instant())
    with pytest.raises(Lost, match="volume 101, block 0"):
        later.adopt(before, clock)


def test_a_snapshot_holds_nothing_that_was_sent_after_its_answer(made: Made) -> None:
    disk, clock = made
    copy = copied(disk, Instant())
    disk.windows.clear()  # answered
    written(disk, clock, 0)
    with pytest.raises(Lost, match="volume 101, block 0"):
        copy.adopt(bytes(disk.blocks), clock)


def test_a_snapshot_is_of_one_moment(made: Made) -> None:
    disk, clock = made
    before = bytes(disk.blocks)
    copy = copied(disk, Instant())
    written(disk, clock, 0)
    second = content(1, 1, written(disk, clock, 1))
    with pytest.raises(Lost, match="of no one moment"):
        copy.adopt(with_block(before, 1, second), clock)


def test_a_snapshot_of_two_volumes_is_of_one_moment(made: Made) -> None:
    disk, clock = made
    other = Disk(2, 4 * BLOCK)
    instant = Instant()
    copies = [copied(disk, instant), copied(other, instant)]
    before = bytes(disk.blocks)
    written(disk, clock, 0)
    written(other, clock, 0)
    copies[0].adopt(before, clock)
    with pytest.raises(Lost, match="of no one moment"):
        copies[1].adopt(bytes(other.blocks), clock)


def test_a_rollback_that_was_cut_short_is_done_or_not(made: Made) -> None:
    disk, clock = made
    disk.pending.clear()
    other = Disk(2, disk.size_bytes)
    for result in (bytes(disk.blocks), bytes(other.blocks)):
        disk.maybe = other.open_window(Instant())
        disk.adopt(result, clock)
    disk.maybe = other.open_window(Instant())
    with pytest.raises(Lost):
        disk.adopt(with_block(disk.blocks, 2, b"\x01" * BLOCK), clock)


def test_what_grows_reads_as_zeroes_although_it_was_written_before(made: Made) -> None:
    disk, clock = made
    disk.pending.clear()
    before = bytes(disk.blocks)
    disk.resize(2 * BLOCK)
    disk.resize(4 * BLOCK)
    with pytest.raises(Lost, match="volume 1, block 2: expected zeroes"):
        disk.adopt(before, clock)
