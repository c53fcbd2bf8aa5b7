"""Every request to the engine fails in turn, before and after its effect, in every way: nothing is orphaned, what was
answered holds, and the next try works."""

import asyncio

import pytest

from gespann.array.data_plane.fake import FakeEngine, FakeVolume
from gespann.array.model.records import SnapCollection
from gespann.array.model.refusals import Refusal
from gespann.array.model.sizes import GB
from gespann.seams.json_lines import SeamError, SeamLost

STEPS = {
    "create": ["space.pools", "volume.create", "target.put"],
    "clone": ["space.pools", "volume.clone", "target.put"],
    "delete": ["target.remove", "volume.delete"],
    "resize": ["volume.resize"],
    "thin": ["volume.thick"],
    "delete with snapshots": ["target.remove", "volume.delete"],
    "snapshot": ["volume.snapshot"],
    "snapshot online": ["volume.snapshot", "target.put"],
    "collection": ["volume.snapshot"],
    "snapshot delete": ["target.remove", "volume.delete"],
    "restore": ["volume.snapshot", "volume.rollback"],
    "resize after a snapshot": ["volume.snapshot", "volume.resize"],
    "clone of a snapshot": ["volume.clone", "target.put"],
    "move": ["space.pools"],
    "lease": ["target.put", "volume.drain"],
}
CASES = [
    (operation, op, after, way)
    for operation, ops in STEPS.items()
    for op in ops
    for after in (False, True)
    for way in ("lost", "refused", "killed")
    if not (after and way == "refused")  # a refusal has no effect
]


async def prepare(control) -> None:
    lifecycle = control.lifecycle
    control.pools.create("other", 20 * GB)
    await control.data_plane.push_pools()
    await lifecycle.create(lifecycle.draft("old", GB, 1))
    await control.policy.create_record(control.volumes.get("old"), initiator="iqn.2000-01.a:b")
    await lifecycle.create(lifecycle.draft("gone", GB, 1, thin=True, online=False))
    await lifecycle.create(lifecycle.draft("kept", GB, 1, thin=True, online=False))
    kept = control.volumes.get("kept")
    for name in ("first", "second"):
        await control.snapshot_lifecycle.create(kept, name)
    await lifecycle.grow(kept, 2 * GB)


async def act(control, operation: str) -> None:
    lifecycle = control.lifecycle
    old = control.volumes.get("old")
    match operation:
        case "create":
            await lifecycle.create(lifecycle.draft("new", 2 * GB, 1), unrestricted=True)
        case "clone":
            await lifecycle.clone(old, lifecycle.draft("new", GB, 1))
        case "delete":
            await lifecycle.delete(control.volumes.get("gone"))
        case "resize":
            await lifecycle.grow(old, 3 * GB)
        case "move":
            await lifecycle.move(control.volumes.get("kept"), control.pools.get("other").id)
        case "lease":
            await control.leases.grant(old, "iqn.2000-01.a:b")
        case "thin":
            await lifecycle.set_thin(old, True)
        case _:
            await act_on_snapshots(control, operation)


async def act_on_snapshots(control, operation: str) -> None:
    lifecycle, snapshots = control.lifecycle, control.snapshot_lifecycle
    kept = control.volumes.get("kept")
    first = control.snapshots.of(kept.id)[0]
    match operation:
        case "delete with snapshots":
            await lifecycle.delete(kept)
        case "snapshot":
            await snapshots.create(kept, "new")
        case "snapshot online":
            await snapshots.create(kept, "new", online=True)
        case "collection":
            together = SnapCollection(collection_id=collection_of(control).id, name="new")
            await snapshots.create_together([control.volumes.get("old"), kept], together=together)
        case "snapshot delete":
            await snapshots.delete(kept, first)
        case "restore":
            await lifecycle.restore(kept, first, snapshots.first)
        case "resize after a snapshot":
            await lifecycle.grow(kept, 3 * GB, snapshots.first)
        case "clone of a snapshot":
            await lifecycle.clone(kept, lifecycle.draft("new", GB, 1, thin=True), snapshot=first)


def collection_of(control):
    if not control.collections.all():
        control.collections.create("c")
    return control.collections.get("c")


def succeeded(control, operation: str) -> bool:
    names = [volume.name for volume in control.volumes.all()]
    snapshots = [] if "kept" not in names else control.snapshots.of(control.volumes.get("kept").id)
    match operation:
        case "create" | "clone" | "clone of a snapshot":
            return "new" in names
        case "delete with snapshots":
            return "kept" not in names
        case "snapshot":
            return "new" in [snapshot.name for snapshot in snapshots]
        case "snapshot online":
            return ("new", True) in [(snapshot.name, snapshot.online) for snapshot in snapshots]
        case "collection":
            return [snap.name for snap in control.collections.snaps(collection_of(control).id)] == ["new"]
        case "snapshot delete":
            return "first" not in [snapshot.name for snapshot in snapshots]
        case "restore":
            return control.volumes.get("kept").asked_bytes == GB
        case "resize after a snapshot":
            return control.volumes.get("kept").asked_bytes == 3 * GB
        case "delete":
            return "gone" not in names
        case "lease":
            return control.volumes.get("old").lease_holder == "iqn.2000-01.a:b"
        case "move":
            return control.volumes.get("kept").pool_id == control.pools.get("other").id
        case "resize":
            return control.volumes.get("old").asked_bytes == 3 * GB
        case _:
            return control.volumes.get("old").thin


def agree(control, engine: FakeEngine) -> None:
    """The database and the engine say the same, and nothing is half done."""
    rows = {volume.naa: volume for volume in control.volumes.rows()}
    snapshots = {one.naa: one for volume in rows.values() for one in control.snapshots.rows(volume.id)}
    assert control.volumes.intents() == []
    assert control.snapshots.intents() == []
    assert set(engine.volumes) == set(rows) | set(snapshots)
    assert set(engine.targets) == set(rows) | {naa for naa, one in snapshots.items() if one.online}
    pool_names = {pool.id: pool.name for pool in control.pools.all()}
    assert engine.store.pools == {pool.name: pool.capacity_bytes for pool in control.pools.all()}
    assert engine.store.pool_of == {naa: pool_names[pool_id] for naa, pool_id in control.pools.members()}
    for naa, snapshot in snapshots.items():
        assert engine.volumes[naa].size_bytes == snapshot.size_bytes
    for collection in control.collections.all():
        for snap in control.collections.snaps(collection.id):
            assert len(control.snapshots.of_snap_collection(snap.id)) == 2, "all of them or none"
    for naa, volume in rows.items():
        assert engine.volumes[naa].size_bytes == volume.size_bytes
        assert engine.volumes[naa].thick is not volume.thin
        assert engine.targets[naa].online is volume.online
        assert engine.targets[naa].writer == volume.lease_holder
        assert len(engine.targets[naa].access) == len(control.access.of(volume.id))


async def settled(group) -> None:
    """Whatever is pending is pushed and ended; the clock goes on for those who wait to try again."""
    async with asyncio.timeout(120):
        while not group.control.data_plane.current.is_set():
            group.clock.advance(1)
            await asyncio.sleep(0)


@pytest.mark.parametrize(("operation", "op", "after", "way"), CASES)
async def test_operation_that_fails_at_a_step(group, operation, op, after, way):
    await prepare(group.control)
    if way == "killed":
        await killed_at(group, operation, op, after)
    else:
        error = SeamLost("fault") if way == "lost" else SeamError("IO", "disk on fire")
        group.engine.fail(op, after=after, error=error)
        with pytest.raises((Refusal, SeamLost)):
            await act(group.control, operation)
    await settled(group)
    agree(group.control, group.engine)
    if operation in ("create", "clone", "snapshot", "collection", "clone of a snapshot"):
        assert not succeeded(group.control, operation)  # it was answered as failed, and can be asked for again
    if operation == "snapshot online" and "new" in snapshot_names(group.control):
        await open_new(group.control)  # it was made, and only that it is online was not in force
    elif not succeeded(group.control, operation):
        await act(group.control, operation)
    assert succeeded(group.control, operation)
    agree(group.control, group.engine)


def snapshot_names(control) -> list[str]:
    return [snapshot.name for snapshot in control.snapshots.of(control.volumes.get("kept").id)]


async def open_new(control) -> None:
    kept = control.volumes.get("kept")
    await control.snapshot_lifecycle.set_online(kept, control.snapshots.get(kept.id, "new"), True)


async def killed_at(group, operation: str, op: str, after: bool) -> None:
    """Group control dies while the engine has, or has just carried out, the request. The engine lives on."""
    fault = group.engine.fail(op, after=after, hang=True)
    task = asyncio.create_task(act(group.control, operation))
    await fault.reached.wait()
    group.control.database.close()  # nothing more can be written by the dead
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await group.restart()


@pytest.mark.parametrize("op", ["volume.create", "target.put"])
async def test_the_name_is_free_at_once_after_a_lost_answer(group, op):
    """The next try settles what the last one left, and does not have to wait for anybody."""
    group.engine.fail(op, after=True)
    with pytest.raises(Refusal, match="is not created"):
        await act_new(group.control)
    await act_new(group.control)
    agree(group.control, group.engine)


async def act_new(control) -> None:
    await control.lifecycle.create(control.lifecycle.draft("new", GB, 1))


async def test_undo_that_fails_too_is_tried_again(group):
    group.engine.fail("volume.create", error=SeamError("IO", "first"))
    group.engine.fail("target.remove", error=SeamError("IO", "second"))
    with pytest.raises(Refusal, match=r"first.*second"):
        await act_new(group.control)
    await settled(group)
    agree(group.control, group.engine)


async def test_engine_full_behind_the_groups_back(group):
    group.engine.fail("volume.create", error=SeamError("NO_SPACE", "no space left on device"))
    with pytest.raises(Refusal, match="not enough free space for volume new"):
        await act_new(group.control)
    agree(group.control, group.engine)


async def test_engine_dies_and_comes_back(group):
    await prepare(group.control)
    group.engine.lose()
    assert await group.cli("volume select old show") == ["% Error - The data plane does not answer. Try again later."]
    lines = await group.cli("volume select old access create initiator iqn.2000-01.a:c")
    assert lines[0].startswith("% Error - The change is recorded, but the data plane does not answer")
    group.engine.come_back()
    await settled(group)
    agree(group.control, group.engine)
    assert len(group.engine.targets[group.control.volumes.get("old").naa].access) == 2
    texts = [event.text for event in group.control.events.recent(50)]
    assert "The data plane has gone; waiting for it." in texts


async def test_group_starts_without_an_engine_and_says_so(group):
    await prepare(group.control)
    await group.stop()
    group.engine.lose()
    await group.start(wait_for_engine_s=0.01)
    assert await group.cli("volume show") == ["% Error - The data plane does not answer. Try again later."]
    assert await group.cli("whoami") == ["grpadmin"]
    group.engine.come_back()
    await settled(group)
    assert len(await group.cli("volume show")) == 5


async def test_volume_that_the_engine_lost_is_offline_and_reported(group):
    await prepare(group.control)
    old = group.control.volumes.get("old")
    group.engine.lose()
    del group.engine.volumes[old.naa]
    group.engine.come_back()
    await settled(group)
    lines = await group.cli("cli-settings formatoutput off", "volume select old show")
    assert "DesiredStatus: online" in lines
    assert "Status: offline" in lines
    assert "Volume old is missing in the data plane; it is offline." in [
        event.text for event in group.control.events.recent(9)
    ]
    refused = await group.cli("volume select old online")
    assert refused == ["% Error - The data plane has no volume old; it cannot be set online."]


async def test_volume_that_the_group_does_not_know_is_reported_and_kept(group):
    naa = "6090a0" + "0" * 26
    group.engine.volumes[naa] = FakeVolume(size_bytes=GB)
    await group.restart()
    assert naa in group.engine.volumes
    assert any("does not know" in event.text for event in group.control.events.recent(9))


async def test_two_who_ask_for_the_last_space_get_it_once(group):
    group.engine.store.total_bytes = 3 * GB
    lifecycle = group.control.lifecycle
    results = await asyncio.gather(
        *(lifecycle.create(lifecycle.draft(f"v{n}", 2 * GB, 1)) for n in range(5)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    agree(group.control, group.engine)


async def test_two_who_want_the_same_name(group):
    lifecycle = group.control.lifecycle
    results = await asyncio.gather(
        *(lifecycle.create(lifecycle.draft("same", GB, 1)) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert all(isinstance(result, Refusal) for result in results if isinstance(result, Exception))
    agree(group.control, group.engine)


async def test_delete_while_a_clone_is_made_waits_for_it(group):
    await prepare(group.control)
    control = group.control
    gone = control.volumes.get("gone")
    made, deleted = await asyncio.gather(
        control.lifecycle.clone(gone, control.lifecycle.draft("new", GB, 1)), control.lifecycle.delete(gone)
    )
    assert made.name == "new"
    assert deleted is None
    assert [volume.name for volume in control.volumes.all()] == ["kept", "new", "old"]
    agree(control, group.engine)
