"""Storage pools keep to their own space: what the engine is told of them, and what a full pool answers."""

import asyncio

import pytest

from gespann.array.data_plane.fake_volumes import SpaceExhausted
from gespann.array.model.sizes import GB, MB


def told(group, code: str) -> list[str]:
    return [event.text for event in group.control.events.recent(100) if event.code == code]


async def thin_volume(group, name: str, pool: str):
    said = await group.cli(f"volume create {name} 4GB thin-provision thin-min-reserve 1% pool {pool}")
    assert said[0] == "Volume creation succeeded."
    return group.control.volumes.get(name)


def is_held(group, volume, offset: int = 3 * GB) -> bool:
    try:
        group.engine.write(volume.naa, offset, MB)
    except SpaceExhausted:
        return True
    return False


@pytest.fixture
async def two(group):
    """The pool ``small`` with 1 GB of its own is full; the group has 10 GB."""
    await group.cli("member select member1 capacity 10GB", "pool create small capacity 1GB")
    volumes = await thin_volume(group, "a", "small"), await thin_volume(group, "b", "default")
    group.engine.write(volumes[0].naa, 0, GB)
    return volumes


async def test_a_full_pool_holds_its_own_writers_until_it_has_space_again(group, two):
    a, b = two
    assert (is_held(group, a), is_held(group, b)) == (True, False)
    group.engine.write(a.naa, 0, 100 * MB)  # what has its space already
    assert await group.cli("pool select small capacity 2GB") == []
    assert not is_held(group, a)
    group.engine.write(a.naa, GB, GB - MB)
    assert is_held(group, a, 2 * GB)
    group.engine.unmap(a.naa, 0, GB)
    assert not is_held(group, a, 2 * GB)


async def test_the_others_do_not_take_what_is_set_aside(group, two):
    _, b = two
    await group.cli("pool select small capacity 7GB")
    group.engine.write(b.naa, 0, 3 * GB)
    assert is_held(group, b)
    assert not is_held(group, two[0])


async def test_pools_outlive_the_engine_and_the_group(group, two):
    a, b = two
    await group.cli("volume select a snapshot create-now")
    before = dict(group.engine.store.pool_of)
    assert sorted(before.values()) == ["default", "small", "small"]
    group.engine.lose()
    assert group.engine.store.pools == {}
    group.engine.come_back()
    async with asyncio.timeout(120):
        await group.control.data_plane.current.wait()
    assert (group.engine.store.pools, group.engine.store.pool_of) == ({"default": None, "small": GB}, before)
    assert (is_held(group, a), is_held(group, b)) == (True, False)
    await group.restart()
    assert group.engine.store.pool_of == before


async def test_nobody_is_let_in_before_the_engine_knows_the_pools(group, two):
    group.engine.lose()
    fault = group.engine.fail("space.pools", hang=True)
    group.engine.come_back()
    await fault.reached.wait()
    assert not group.engine.configured


async def test_a_volume_that_moves_takes_its_snapshots_along(group, two):
    a, _ = two
    await group.cli("volume select a snapshot create-now", "volume select a pool default")
    assert set(group.engine.store.pool_of.values()) == {"default"}
    assert not is_held(group, a)
    await group.cli("cli-settings confirmation off")
    assert await group.cli("pool delete small") == ["Storage pool deletion succeeded."]
    assert group.engine.store.pools == {"default": None}


async def test_figures_count_what_snapshots_keep(group, two):
    a, _ = two
    await group.cli("pool select small capacity 3GB", "volume select a snapshot create-now")
    group.engine.write(a.naa, 0, GB)
    shown = "\n".join(await group.cli("pool select small show"))
    assert "SpaceInUse: 2GB" in shown
    assert "FreeSpace: 1013MB" in shown  # the volume has 11 MB promised: it is given space in steps of 15 MB
    assert await group.cli("pool select small capacity 1GB") == [
        "% Error - The volumes of storage pool small need 2.01GB."
    ]


async def test_each_pool_has_its_own_warning(group, two):
    a, b = two
    assert await group.cli("pool select small space-warn 50%", "pool select small capacity 2GB") == []
    assert "Space-Warn: 50%" in "\n".join(await group.cli("pool select small show"))
    await group.control.look_at_space()
    assert told(group, "7.2.1") == ["Storage pool small's space is used to 50%, warning limit 50%: 1GB left."]
    group.engine.write(b.naa, 0, 4 * GB)
    await group.control.look_at_space()
    assert len(told(group, "7.2.1")) == 1  # the other pool has a limit of 90% and 8 GB
    group.engine.write(a.naa, GB, GB)
    await group.control.look_at_space()
    assert told(group, "7.2.2") == [
        "Storage pool small has no free space: writes that need new space wait until there is some."
    ]
    group.engine.unmap(a.naa, 0, 2 * GB)
    await group.control.look_at_space()
    assert told(group, "7.2.3") == ["Storage pool small's space is used to 0% again."]
    assert told(group, "8.9.1") == []
