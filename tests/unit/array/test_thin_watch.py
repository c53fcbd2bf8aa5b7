"""Thin volumes at their limits."""

import asyncio

import pytest

from gespann.array.data_plane.fake_volumes import SpaceExhausted
from gespann.array.model.sizes import GB, MB


def told(group, code: str) -> list[str]:
    return [event.text for event in group.control.events.recent(100) if event.code == code]


async def volume_of(group, **settings):
    lifecycle = group.control.lifecycle
    return await lifecycle.create(lifecycle.draft("v", GB, 1, thin=True, **settings))


async def test_warned_once_at_the_limit_and_again_further_on(group):
    volume = await volume_of(group)
    for used_mb, warnings in ((500, 0), (622, 1), (640, 1), (700, 2), (100, 2), (630, 3)):
        group.engine.unmap(volume.naa, 0, GB)
        group.engine.write(volume.naa, 0, used_mb * MB)
        await group.control.look_at_thin_volumes()
        assert len(told(group, "8.6.1")) == warnings, used_mb


async def test_the_engine_is_told_the_maximum_and_its_changes(group):
    volume = await volume_of(group, thin_growth_max=80, thin_warn_mode="hard-only")
    limits = group.engine.store.volume_limits
    assert limits == {volume.naa: volume.size_bytes * 80 // 100}
    with pytest.raises(SpaceExhausted):
        group.engine.write(volume.naa, 0, 900 * MB)
    await group.control.look_at_thin_volumes()
    assert group.control.volumes.get("v").online
    await group.cli("volume select v size 2GB no-snap", "volume select v thin-growth-max 50%")
    size_bytes = group.control.volumes.get("v").size_bytes
    assert limits == {volume.naa: size_bytes // 2}
    group.engine.lose()
    group.engine.come_back()
    async with asyncio.timeout(120):
        while not group.control.data_plane.current.is_set():  # noqa: ASYNC110 - the group runs in this loop
            await asyncio.sleep(0)
    assert group.engine.store.volume_limits == {volume.naa: size_bytes // 2}
    await group.cli("volume select v thin-warn-mode soft-only")
    assert group.engine.store.volume_limits == {}


async def test_past_its_maximum_it_goes_offline(group):
    volume = await volume_of(group, thin_growth_max=80)
    await group.control.policy.create_record(volume, address="*.*.*.*")
    group.engine.login(volume.target_name, "iqn.2000-01.a:b")
    group.engine.write(volume.naa, 0, volume.size_bytes * 80 // 100)
    await group.control.look_at_thin_volumes()
    assert group.engine.sessions == {}
    assert not group.control.volumes.get("v").online
    assert len(told(group, "8.6.2")) == 1


async def test_full_but_allowed_to_be(group):
    volume = await volume_of(group)
    group.engine.write(volume.naa, 0, volume.size_bytes)
    await group.control.look_at_thin_volumes()
    assert group.control.volumes.get("v").online


async def test_looks_by_itself_and_not_while_the_engine_is_away(group):
    volume = await volume_of(group)
    group.engine.write(volume.naa, 0, 700 * MB)
    group.engine.lose()
    group.clock.advance(60)
    group.engine.come_back()
    while not told(group, "8.6.1"):
        group.clock.advance(10)
        await group.cli("whoami")


async def test_a_maximum_is_looked_at_closely(group):
    volume = await volume_of(group, thin_growth_max=80)
    group.engine.write(volume.naa, 0, volume.size_bytes * 80 // 100)
    async with asyncio.timeout(120):
        while group.clock.sleepers < 1:  # noqa: ASYNC110 - the group runs in this loop
            await asyncio.sleep(0)
    group.clock.advance(1)
    async with asyncio.timeout(120):
        while not told(group, "8.6.2"):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not group.control.volumes.get("v").online


async def stopped_at_its_maximum(group):
    volume = await volume_of(group, thin_growth_max=80)
    group.engine.write(volume.naa, 0, volume.size_bytes * 80 // 100)
    await group.control.look_at_thin_volumes()
    assert not group.control.volumes.get("v").online
    return volume


@pytest.mark.parametrize(
    "command",
    [
        "thin-growth-max 90%",
        "size 2GB no-snap",
        "thin-warn-mode hard-only",
        "thin-growth-max 100%",
        "no thin-provision",
    ],
)
async def test_it_is_online_again_when_its_maximum_is_raised(group, command):
    await stopped_at_its_maximum(group)
    await group.restart()
    await group.control.look_at_thin_volumes()
    assert not group.control.volumes.get("v").online
    assert await group.cli(f"volume select v {command}") == []
    await group.control.look_at_thin_volumes()
    assert group.control.volumes.get("v").online
    assert len(told(group, "8.6.3")) == 1


@pytest.mark.parametrize("first", ["offline", "online"])
async def test_what_a_person_says_counts_more_than_what_the_group_did(group, first):
    await stopped_at_its_maximum(group)
    await group.cli(f"volume select v {first}", "volume select v offline", "volume select v thin-growth-max 100%")
    await group.control.look_at_thin_volumes()
    assert not group.control.volumes.get("v").online


@pytest.mark.parametrize("stopped", [True, False])
async def test_what_a_person_says_while_the_group_looks_counts_more(group, stopped):
    """Whether the group was about to set it online again, or offline at its maximum (and online again later)."""
    control = group.control
    if stopped:
        volume = await stopped_at_its_maximum(group)
        control.volumes.change(volume.id, thin_growth_max=100)
    else:
        volume = await volume_of(group, thin_growth_max=80)
        group.engine.write(volume.naa, 0, volume.size_bytes * 80 // 100)
    async with control.lifecycle.turn(control.volumes.get("v")):
        said = asyncio.create_task(control.lifecycle.set_online(control.volumes.get("v"), False))
        await asyncio.sleep(0)  # it waits for its turn
        looking = asyncio.create_task(control.look_at_thin_volumes())
        async with asyncio.timeout(120):
            while len(control.lifecycle._turns[volume.id]._waiters) < 2:  # noqa: ASYNC110 - the group runs in this loop
                await asyncio.sleep(0)
    await asyncio.gather(said, looking)
    control.volumes.change(volume.id, thin_growth_max=100)
    await control.look_at_thin_volumes()
    assert not control.volumes.get("v").online
