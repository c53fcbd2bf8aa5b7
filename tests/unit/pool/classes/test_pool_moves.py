"""A disk that moves to another SR."""

import pytest

from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World


async def refusal(world: World, *params: object) -> list[str]:
    before = world.snapshot()
    with pytest.raises(XenApiError) as refused:
        await world.call("VDI.pool_migrate", *params)
    assert world.snapshot() == before
    return [refused.value.code, *refused.value.params]


async def disk_of_vm(world: World) -> tuple[str, str, str]:
    here, there = await world.make_sr("here"), await world.make_sr("there")
    vm = await world.make_vm()
    await world.make_vbd(vm, await world.make_vdi(here, "root"), bootable=True)
    return vm, world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"], there


async def test_a_disk_moves_with_its_contents_and_its_vm_starts_from_there(world: World) -> None:
    vm, vdi, there = await disk_of_vm(world)
    uuid = world.get("VDI", vdi)["uuid"]
    await world.call("VDI.add_to_other_config", vdi, "owner", "me")
    world.medium(vdi).write(5 * MIB, b"what was written")
    moved = await world.call("VDI.pool_migrate", vdi, there, {})
    record = world.get("VDI", moved)
    assert (record["SR"], record["name_label"], record["other_config"]) == (there, "root", {"owner": "me"})
    assert world.medium(moved).read(5 * MIB, 16) == b"what was written"
    (vbd,) = record["VBDs"]
    assert world.get("VBD", vbd)["VM"] == vm
    assert world.db.find("VDI", vdi) is None
    assert world.storage.find(uuid) is None
    await world.call("VM.start", vm, False, False)
    world.assert_nothing_orphaned()


async def test_what_does_not_move(world: World) -> None:
    vm, vdi, there = await disk_of_vm(world)
    own = world.get("VDI", vdi)["SR"]
    assert await refusal(world, vdi, own, {}) == ["OPERATION_NOT_ALLOWED", "The VDI is on that SR already"]
    assert (await refusal(world, vdi, NULL_REF, {}))[0] == "HANDLE_INVALID"
    snapshot = await world.call("VDI.snapshot", vdi, {})
    assert (await refusal(world, snapshot, there, {}))[0] == "OPERATION_NOT_ALLOWED"
    (pbd,) = world.get("SR", there)["PBDs"]
    await world.call("PBD.unplug", pbd)
    assert (await refusal(world, vdi, there, {}))[0] == "SR_NOT_ATTACHED"
    await world.call("PBD.plug", pbd)
    await world.call("VM.start", vm, False, False)
    await world.call("VM.set_suspend_SR", vm, there)
    await world.call("VM.suspend", vm)
    assert await refusal(world, vdi, there, {}) == ["VDI_IN_USE", vdi, "mirror"]
