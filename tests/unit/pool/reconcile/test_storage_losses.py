"""What the storage has lost is told once, shown in the record, and refused plainly."""

import pytest

from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World

MEASURES = 12


def told(world: World) -> list[tuple[str, str]]:
    messages = world.db.all("message").values()
    return [(one["obj_uuid"], one["body"]) for one in messages if one["name"] == "VDI_LOST_BY_STORAGE"]


async def test_a_snapshot_that_the_array_has_deleted(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    snapshot = await world.call("VM.snapshot", vm, "monday", [])
    vdi = world.get("VBD", world.get("VM", snapshot)["VBDs"][0])["VDI"]
    uuid = world.get("VDI", vdi)["uuid"]
    await world.reconciler.round(MEASURES)
    assert told(world) == []
    volumes = world.storage.srs[world.get("SR", sr)["uuid"]].volumes
    kept = volumes.pop(uuid)
    for _ in range(2):
        await world.reconciler.round(MEASURES)
    assert world.get("VDI", vdi)["missing"]
    ((about, body),) = told(world)
    assert about == uuid
    assert body.startswith("Snapshot web1 root of disk web1 root (")
    assert "this pool has not deleted it" in body
    before = world.snapshot()
    for message, *args in (
        ("VM.revert", snapshot),
        ("VM.clone", snapshot, "c"),
        ("VDI.clone", vdi, {}),
        ("VDI.copy", vdi, sr, NULL_REF, NULL_REF),
        ("VDI.checksum", vdi),
    ):
        with pytest.raises(XenApiError) as refused:
            await world.call(message, *args)
        assert (refused.value.code, refused.value.params) == ("VDI_MISSING", [sr, vdi]), message
    assert world.snapshot() == before
    assert set(world.get("VDI", vdi)["allowed_operations"]) == {"destroy", "forget", "update"}
    volumes[uuid] = kept
    await world.call("SR.scan", sr)
    assert not world.get("VDI", vdi)["missing"]
    del volumes[uuid]
    await world.call("SR.scan", sr)
    assert len(told(world)) == 2
    await world.call("VM.destroy", snapshot)
    await world.call("VDI.destroy", vdi)


@pytest.mark.parametrize("reachable", [True, False])
async def test_a_disk_whose_volume_is_gone(world: World, reachable: bool) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    world.storage.srs[world.get("SR", sr)["uuid"]].volumes.clear()
    world.storage.reachable = reachable
    await world.reconciler.round(MEASURES)
    assert world.get("VDI", vdi)["missing"] is reachable
    assert len(told(world)) == int(reachable)
