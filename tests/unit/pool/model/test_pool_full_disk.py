"""The disk with the coordinator's database is full: it is said, nothing changes, and it is over when there is room."""

import errno

import pytest

from gespann.pool.api.unforeseen import told_of
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World

WHERE = "the data directory of the coordinator"


def limit_pages(world: World, pages: int) -> None:
    world.db.sqlite.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_is_told_and_nothing_changes(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    (pages,) = world.db.sqlite.execute("PRAGMA page_count").fetchone()
    limit_pages(world, pages)
    text = "x" * 100_000
    with pytest.raises(XenApiError) as refused:
        await world.call("VM.set_name_description", vm, text)
    assert [refused.value.code, *refused.value.params] == ["OUT_OF_SPACE", WHERE]
    assert world.get("VM", vm)["name_description"] != text
    limit_pages(world, pages + 1000)
    await world.call("VM.set_name_description", vm, text)
    assert world.get("VM", vm)["name_description"] == text


def test_other_files_of_the_coordinator() -> None:
    assert told_of(OSError(errno.ENOSPC, "No space left on device")).code == "OUT_OF_SPACE"
    assert told_of(OSError(errno.EIO, "hush")).params == ["OSError"]
