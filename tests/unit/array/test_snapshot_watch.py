"""What snapshots hold, and what happens when it is more than their reserve."""

import random

import pytest

from gespann.array.data_plane.fake_volumes import CHUNK_BYTES
from gespann.array.model.refusals import Refusal
from gespann.array.model.sizes import GB, MB
from gespann.array.model.snapshots import PER_VOLUME_MOST


def told(group, code: str) -> list[str]:
    return [event.text for event in group.control.events.recent(100) if event.code == code]


async def volume_of(group, name: str = "v", **settings):
    lifecycle = group.control.lifecycle
    return await lifecycle.create(lifecycle.draft(name, GB, 1, thin=True, **settings))


def truly_held(group, volume) -> int:
    """Counted by hand: what only the snapshots have."""
    volumes = group.engine.volumes
    snapshots = [volumes[one.naa].chunks.items() for one in group.control.snapshots.of(volume.id)]
    return len(set().union(*snapshots) - volumes[volume.naa].chunks.items()) * CHUNK_BYTES


@pytest.mark.parametrize("seed", range(8))
async def test_what_snapshots_hold_is_counted_exactly_whatever_happens(group, seed):
    chance = random.Random(seed)
    control = group.control
    volume = await volume_of(group, online=False)
    for _ in range(40):
        snapshots = control.snapshots.of(volume.id)
        one = chance.choice(snapshots) if snapshots else None
        await happen(group, volume, one, chance)
        volume = control.volumes.get("v")
        assert await control.snapshot_watch.held_bytes(volume) == truly_held(group, volume)


async def happen(group, volume, one, chance) -> None:
    control, offset = group.control, chance.randrange(10) * CHUNK_BYTES
    match chance.randrange(6):
        case 0 | 1:
            group.engine.write(volume.naa, offset, 3 * CHUNK_BYTES)
        case 2:
            group.engine.unmap(volume.naa, offset, 2 * CHUNK_BYTES)
        case 3:
            await control.snapshot_lifecycle.create(volume)
        case 4 if one is not None:
            await control.snapshot_lifecycle.delete(volume, one)
        case 5 if one is not None and chance.random() < 0.5:
            await control.lifecycle.restore(volume, one, control.snapshot_lifecycle.first)
        case 5 if one is not None:  # somebody works with the snapshot itself
            await control.snapshot_lifecycle.set_online(volume, one, True)
            group.engine.write(one.naa, offset, CHUNK_BYTES)
            assert await control.snapshot_watch.held_bytes(volume) == truly_held(group, volume)
            await control.snapshot_lifecycle.set_online(volume, control.snapshots.get_by_id(one.id, one.name), False)


async def test_the_oldest_goes_when_the_reserve_is_used_up(group):
    """The reserve is 20% of 10% of 1 GB, rounded up: 30 MB."""
    control = group.control
    volume = await volume_of(group, snap_reserve=20)
    await control.policy.create_record(volume, initiator="iqn.2000-01.a:b", apply_to="snapshot")
    for number in range(3):
        group.engine.write(volume.naa, 0, 20 * MB)
        await control.snapshot_lifecycle.create(volume, f"s{number}", online=True)
    group.engine.login(control.snapshots.of(volume.id)[0].target_name, "iqn.2000-01.a:b")
    await control.look_at_snapshots()
    assert [one.name for one in control.snapshots.of(volume.id)] == ["s1", "s2"]
    assert group.engine.sessions == {}
    assert "its oldest snapshot s0 is deleted" in told(group, "8.9.2")[0]
    group.engine.write(volume.naa, 0, 20 * MB)
    await control.look_at_snapshots()
    assert [one.name for one in control.snapshots.of(volume.id)] == ["s2"]
    assert volume.online


async def test_volume_and_snapshots_go_offline_if_that_is_the_policy(group):
    control = group.control
    volume = await volume_of(group, snap_reserve=20, snap_depletion="volume-offline")
    group.engine.write(volume.naa, 0, 40 * MB)
    await control.snapshot_lifecycle.create(volume, "s", online=True)
    await control.look_at_snapshots()
    assert control.volumes.get("v").online
    group.engine.write(volume.naa, 0, 40 * MB)
    await control.look_at_snapshots()
    await control.look_at_snapshots()
    assert not control.volumes.get("v").online
    assert [one.online for one in control.snapshots.of(volume.id)] == [False]
    assert len(told(group, "8.9.3")) == 1


async def test_warned_once_when_little_of_the_reserve_is_left(group):
    control = group.control
    volume = await volume_of(group, snap_reserve=20, snap_warn=50)
    group.engine.write(volume.naa, 0, 20 * MB)
    await control.snapshot_lifecycle.create(volume, "s")
    await control.look_at_snapshots()
    assert told(group, "8.9.1") == []
    group.engine.write(volume.naa, 0, 20 * MB)
    await control.look_at_snapshots()
    await control.look_at_snapshots()
    assert told(group, "8.9.1") == ["Snapshots of volume v hold 20MB of their reserve of 30MB."]
    lines = await group.cli("cli-settings formatoutput off", "volume select v show")
    assert "Snap-Reserve-Avail: 33% (10MB)" in lines


async def test_a_volume_has_512_snapshots_at_most(group):
    control = group.control
    volume = await volume_of(group)
    for _ in range(PER_VOLUME_MOST):
        await control.snapshot_lifecycle.create(volume)
    with pytest.raises(Refusal, match="has 512 snapshots"):
        await control.snapshot_lifecycle.create(volume)
    names = {one.name for one in control.snapshots.of(volume.id)}
    assert len(names) == PER_VOLUME_MOST
    assert f"v-2010-02-16-09:30:00.{PER_VOLUME_MOST}" in names


async def test_records_say_whether_they_are_for_snapshots(group):
    control = group.control
    volume = await volume_of(group)
    snapshot = await control.snapshot_lifecycle.create(volume, "s", online=True)
    for apply_to in ("volume", "snapshot", "both"):
        await control.policy.create_record(volume, initiator=f"iqn.2000-01.a:{apply_to}", apply_to=apply_to)

    def admitted(naa: str) -> list[str]:
        return [record.initiator.split(":")[1] for record in group.engine.targets[naa].access]

    assert admitted(volume.naa) == ["volume", "both"]
    assert admitted(snapshot.naa) == ["snapshot", "both"]
    await control.policy.delete_record(volume, 2)
    assert admitted(snapshot.naa) == ["both"]
    await group.restart()
    assert admitted(snapshot.naa) == ["both"]
