"""The space that the group's volumes share: its limit, its warnings, and what a full group answers."""

import pytest

from gespann.array.data_plane.fake_volumes import SpaceExhausted
from gespann.array.model.sizes import GB, MB


def told(group, code: str) -> list[str]:
    return [event.text for event in group.control.events.recent(100) if event.code == code]


async def thin_volume(group, name="v", size_bytes=GB):
    lifecycle = group.control.lifecycle
    return await lifecycle.create(lifecycle.draft(name, size_bytes, 1, thin=True))


async def test_the_capacity_of_the_member_is_the_engines_limit(group):
    await group.cli("member select member1 capacity 2GB", "member select member1 space-warn 80%")
    limit = group.engine.store.limit
    assert (limit.limit_bytes, limit.warn_percent) == (2 * GB, 80)
    assert "Space-Warn: 80%" in "\n".join(await group.cli("member select member1 show"))
    assert "2GB" in "\n".join(await group.cli("pool show"))
    await group.restart()
    assert group.engine.store.limit.limit_bytes == 2 * GB
    await group.cli("member select member1 no capacity")
    assert group.engine.store.limit.limit_bytes is None


async def test_no_capacity_below_what_is_occupied(group):
    volume = await thin_volume(group)
    group.engine.write(volume.naa, 0, 600 * MB)
    said = await group.cli("member select member1 capacity 500MB")
    assert said == ["% Error - The volumes occupy 600MB already."]
    assert group.engine.store.limit.limit_bytes is None


async def test_a_volume_that_the_capacity_cannot_take_is_refused(group):
    await group.cli("member select member1 capacity 2GB")
    said = await group.cli("volume create big 3GB")
    assert "not enough free space" in said[0]


async def test_warned_when_space_runs_short_and_told_when_it_is_well_again(group):
    volume = await thin_volume(group)
    await group.cli("member select member1 capacity 1000MB")
    for used_mb, warnings, full, well in (
        (800, 0, 0, 0),
        (900, 1, 0, 0),
        (920, 1, 0, 0),
        (960, 2, 0, 0),
        (1000, 3, 1, 0),
        (1000, 3, 1, 0),
        (100, 3, 1, 1),
        (910, 4, 1, 1),
    ):
        group.engine.unmap(volume.naa, 0, GB)
        group.engine.write(volume.naa, 0, used_mb * MB)
        await group.control.look_at_space()
        counts = (len(told(group, "8.9.1")), len(told(group, "8.9.2")), len(told(group, "8.9.3")))
        assert counts == (warnings, full, well), used_mb


async def test_a_full_group_takes_writes_again_when_it_has_space(group):
    volume = await thin_volume(group)
    await group.cli("member select member1 capacity 500MB")
    group.engine.write(volume.naa, 0, 480 * MB)
    with pytest.raises(SpaceExhausted):
        group.engine.write(volume.naa, 480 * MB, 100 * MB)
    group.engine.write(volume.naa, 0, 100 * MB)  # what has its space already
    await group.cli("member select member1 capacity 1GB")
    group.engine.write(volume.naa, 480 * MB, 100 * MB)
