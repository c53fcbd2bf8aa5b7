"""VDI.data_destroy: the data of a snapshot goes, and what has changed since can still be told."""

import base64
import random

import pytest

from gespann.pool.model.kept_changes import dataless
from gespann.pool.reconcile.storage_scan import scan_sr
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.door import ask
from tests.unit.pool.world import MIB, World

CHUNK = 64 * 1024
CHUNKS = 30 * MIB // CHUNK


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await world.call(method, *params)
    return [caught.value.code, *caught.value.params]


async def changed(world: World, older: str, newer: str) -> set[int]:
    bits = base64.b64decode(await world.call("VDI.list_changed_blocks", older, newer))
    size = world.get("VDI", newer)["virtual_size"]
    assert len(bits) == -(-size // CHUNK // 8)
    return {number for number in range(len(bits) * 8) if bits[number // 8] >> (7 - number % 8) & 1}


async def tracked_disk(world: World) -> str:
    vdi = await world.make_vdi(await world.make_sr())
    await world.call("VDI.enable_cbt", vdi)
    return vdi


async def snapshot(world: World, vdi: str) -> str:
    world.clock.advance(1.0)
    return await world.call("VDI.snapshot", vdi, {})


def on_storage(world: World, vdi: str) -> bool:
    return world.storage.find(world.get("VDI", vdi)["uuid"]) is not None


async def test_one_backup_after_another(world: World) -> None:
    """As backup tools do it: the snapshot that was saved loses its data, the next one is compared with it."""
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    assert world.get("VDI", monday)["type"] == "cbt_metadata"
    assert on_storage(world, monday)  # nobody else can tell what is written from now on
    world.medium(vdi).write(5 * CHUNK, b"tuesday")
    tuesday = await snapshot(world, vdi)
    assert await changed(world, monday, tuesday) == {5}
    await world.call("VDI.data_destroy", monday)  # again: looks whether it can go now
    assert not on_storage(world, monday)
    world.medium(vdi).write(9 * CHUNK, b"wednesday")
    wednesday = await snapshot(world, vdi)
    assert await changed(world, monday, tuesday) == {5}
    assert await changed(world, monday, wednesday) == {5, 9}
    assert await changed(world, monday, vdi) == {5, 9}
    assert await changed(world, monday, monday) == set()
    await world.call("VDI.data_destroy", tuesday)
    assert not on_storage(world, tuesday)
    assert await changed(world, monday, tuesday) == {5}
    assert await changed(world, tuesday, wednesday) == {9}
    assert await changed(world, monday, wednesday) == {5, 9}
    await scan_sr(world.pool, world.get("VDI", vdi)["SR"])
    assert not world.get("VDI", monday)["missing"]
    await world.call("VDI.destroy", tuesday)
    assert await changed(world, monday, wednesday) == {5, 9}
    await world.call("VDI.destroy", monday)
    assert dataless(world.db) == set()
    assert world.db.sqlite.execute("SELECT count(*) FROM kept_changes").fetchone() == (0,)


async def test_the_reconciler_lets_go_when_the_next_snapshot_is_there(world: World) -> None:
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    await world.reconciler.round(12)
    assert on_storage(world, monday)
    await snapshot(world, vdi)
    await world.reconciler.round(12)
    assert not on_storage(world, monday)
    await world.call("VDI.set_name_label", monday, "what was on monday")
    assert await world.reconciler.sweep() == 0


async def test_of_a_disk_that_is_gone(world: World) -> None:
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    world.medium(vdi).write(CHUNK, b"x")
    tuesday = await snapshot(world, vdi)
    await world.call("VDI.destroy", vdi)
    for one in (tuesday, monday):
        await world.call("VDI.data_destroy", one)
        assert not on_storage(world, one)
    assert await changed(world, monday, tuesday) == {1}


@pytest.mark.parametrize("seed", range(6))
async def test_never_less_than_what_has_changed(world: World, seed: int) -> None:
    """Snapshots lose their data and go in any order."""
    chance = random.Random(seed)
    vdi = await tracked_disk(world)
    states: dict[str, dict[int, int]] = {}
    now: dict[int, int] = {}
    for step in range(40):
        match chance.choice(["write", "write", "snapshot", "data_destroy", "destroy", "round"]):
            case "write":
                chunk = chance.randrange(CHUNKS)
                world.medium(vdi).write(chunk * CHUNK, step.to_bytes(2, "big") + b"!")
                now[chunk] = step
            case "snapshot":
                states[await snapshot(world, vdi)] = dict(now)
            case "data_destroy" if states:
                await world.call("VDI.data_destroy", chance.choice(list(states)))
            case "destroy" if len(states) > 3:
                gone = chance.choice(list(states))
                await world.call("VDI.destroy", gone)
                del states[gone]
            case "round":
                await world.reconciler.round(12)
    states[vdi] = now
    for older, then in states.items():
        for newer, here in states.items():
            expected = {chunk for chunk in then.keys() | here.keys() if then.get(chunk) != here.get(chunk)}
            assert await changed(world, older, newer) >= expected
    world.assert_nothing_orphaned()


async def test_a_disk_that_grew_in_between(world: World) -> None:
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    await world.call("VDI.resize", vdi, 60 * MIB)
    tuesday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    assert not on_storage(world, monday)
    await world.call("VDI.resize", vdi, 90 * MIB)
    wednesday = await snapshot(world, vdi)
    assert await changed(world, monday, tuesday) == set()
    assert await changed(world, monday, wednesday) == set(range(2 * CHUNKS, 3 * CHUNKS))  # nobody kept that for sure
    assert await changed(world, tuesday, monday) == set()


async def test_what_is_written_into_a_snapshot_is_not_told_wrongly(world: World) -> None:
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    tuesday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    vm = await world.make_vm_with_disk(world.get("VDI", vdi)["SR"])
    vbd = {"VM": vm, "VDI": tuesday, "userdevice": "1", "mode": "RW", "type": "Disk", "bootable": False, "empty": False}
    await world.call("VBD.create", {**vbd, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    await world.call("VM.start", vm, False, False)
    await world.call("VM.hard_shutdown", vm)
    assert (await refusal(world, "VDI.list_changed_blocks", monday, tuesday))[:2] == ["SR_BACKEND_FAILURE_460", ""]


async def test_whose_data_cannot_go(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    plain = await snapshot(world, vdi)
    assert await refusal(world, "VDI.data_destroy", vdi) == ["OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {vdi}"]
    assert await refusal(world, "VDI.data_destroy", plain) == ["VDI_NO_CBT_METADATA", plain]
    await world.call("VDI.enable_cbt", vdi)
    monday = await snapshot(world, vdi)
    assert "data_destroy" in world.get("VDI", monday)["allowed_operations"]
    assert "data_destroy" not in world.get("VDI", vdi)["allowed_operations"]
    vm = await world.make_vm_with_disk(sr)
    vbd = {"VM": vm, "VDI": monday, "userdevice": "1", "mode": "RO", "type": "Disk", "bootable": False, "empty": False}
    vbd |= {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    await world.call("VBD.create", vbd)
    await world.call("VM.start", vm, False, False)
    assert await refusal(world, "VDI.data_destroy", monday) == ["VDI_IN_USE", monday, "data_destroy"]
    await world.call("VM.hard_shutdown", vm)
    await world.call("VDI.data_destroy", monday)
    assert world.get("VDI", monday)["VBDs"] == []


async def test_what_cannot_be_done_without_data(world: World, door) -> None:
    vdi = await tracked_disk(world)
    sr = world.get("VDI", vdi)["SR"]
    monday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    incompatible = ["VDI_INCOMPATIBLE_TYPE", monday, "cbt_metadata"]
    assert await refusal(world, "VDI.clone", monday, {}) == incompatible
    assert await refusal(world, "VDI.copy", monday, sr) == incompatible
    assert await refusal(world, "VDI.snapshot", monday, {}) == incompatible
    assert await refusal(world, "VDI.resize", monday, 60 * MIB) == incompatible
    vm = await world.make_vm_with_disk(sr)
    vbd = {"VM": vm, "VDI": monday, "userdevice": "1", "mode": "RO", "type": "Disk", "bootable": False, "empty": False}
    vbd |= {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    assert await refusal(world, "VBD.create", vbd) == incompatible
    status, body = await ask(door, world, f"GET /export_raw_vdi?vdi={world.get('VDI', monday)['uuid']}")
    assert status != 200
    assert b"cbt_metadata" in body or b"VDI_INCOMPATIBLE_TYPE" in body
    assert set(world.get("VDI", monday)["allowed_operations"]) == {
        *("destroy", "forget", "update", "list_changed_blocks", "data_destroy")
    }


async def test_where_the_storage_cannot_tell_the_volume_stays(world: World) -> None:
    world.storage.block_differences = None
    vdi = await tracked_disk(world)
    monday = await snapshot(world, vdi)
    world.medium(vdi).write(3 * CHUNK, b"x")
    tuesday = await snapshot(world, vdi)
    await world.call("VDI.data_destroy", monday)
    await world.reconciler.round(12)
    assert on_storage(world, monday)
    assert await changed(world, monday, tuesday) == {3}
    await world.call("VDI.destroy", monday)
    assert [ref for ref, record in world.db.all("VDI").items() if record["type"] == "cbt_metadata"] == []
