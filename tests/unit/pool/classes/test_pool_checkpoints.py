"""Checkpoints: memory and disks of one instant, and back to them, on fakes."""

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams.xenapi.datamodel import NULL_REF
from tests.unit.pool.classes.test_pool_suspend import booted, guest, refusal, running
from tests.unit.pool.world import MIB, World, until


def disk_content(world: World, vm: str) -> list[str]:
    vbds = [world.get("VBD", vbd) for vbd in world.get("VM", vm)["VBDs"]]
    disks = [world.get("VDI", vbd["VDI"])["uuid"] for vbd in vbds if vbd["type"] == "Disk"]
    return [world.volume(uuid).content for uuid in disks]


async def test_the_vm_runs_on_and_the_checkpoint_is_suspended(world: World) -> None:
    vm = await running(world)
    boots = guest(world, vm).generation
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    assert (guest(world, vm).domain.state, guest(world, vm).generation) == ("running", boots)
    assert world.get("VM", vm)["power_state"] == "Running"
    record = world.get("VM", checkpoint)
    assert (record["power_state"], record["is_a_snapshot"], record["snapshot_of"]) == ("Suspended", True, vm)
    assert world.get("VM", vm)["snapshots"] == [checkpoint]
    assert world.get("VDI", record["suspend_VDI"])["type"] == "suspend"
    assert set(record["allowed_operations"]) >= {"clone", "copy", "destroy", "revert"}
    assert not set(record["allowed_operations"]) & {"start", "resume", "resume_on", "hard_shutdown", "checkpoint"}
    assert not any(world.get("VBD", vbd)["currently_attached"] for vbd in record["VBDs"])
    world.assert_nothing_orphaned()


async def test_back_at_a_checkpoint_the_guest_goes_on_from_there(world: World) -> None:
    vm = await running(world)
    world.write(vm, "old")
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    boots = guest(world, vm).generation
    world.write(vm, "new")
    await world.call("VM.hard_reboot", vm)
    await booted(world, vm)
    for _ in range(2):  # as often as one likes
        await world.call("VM.revert", checkpoint)
        record = world.get("VM", vm)
        assert record["power_state"] == "Suspended"
        assert record["suspend_VDI"] not in (NULL_REF, world.get("VM", checkpoint)["suspend_VDI"])
        assert disk_content(world, vm) == ["old"]
        world.assert_nothing_orphaned()
        await world.call("VM.resume", vm, False, False)
        assert world.get("VM", vm)["power_state"] == "Running"
        assert guest(world, vm).generation == boots
        assert all(world.get("VBD", vbd)["currently_attached"] for vbd in world.get("VM", vm)["VBDs"])
        assert all(world.get("VIF", vif)["currently_attached"] for vif in world.get("VM", vm)["VIFs"])
        world.assert_nothing_orphaned()
        world.write(vm, "newer")
    await world.call("VM.hard_shutdown", vm)
    assert world.openings() == []


async def test_back_from_suspended_its_own_memory_goes(world: World) -> None:
    vm = await running(world)
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    await world.call("VM.suspend", vm)
    await world.call("VM.revert", checkpoint)
    assert sum(vdi["type"] == "suspend" for vdi in world.db.all("VDI").values()) == 2
    await world.call("VM.resume", vm, False, False)
    world.assert_nothing_orphaned()


async def test_what_was_plugged_later_is_not_in_the_memory(world: World) -> None:
    vm = await running(world)
    sr = next(iter(world.db.all("SR")))
    idle = await world.make_vbd(vm, await world.make_vdi(sr, "idle"))
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    await world.call("VBD.plug", idle)
    await world.call("VM.revert", checkpoint)
    await world.call("VM.resume", vm, False, False)
    plugged = {world.get("VBD", v)["userdevice"]: world.get("VBD", v)["currently_attached"] for v in vbds(world, vm)}
    assert plugged == {"0": True, "1": True, "2": False}
    world.assert_nothing_orphaned()


def vbds(world: World, vm: str) -> list[str]:
    return list(world.get("VM", vm)["VBDs"])


async def test_its_memory_goes_with_the_checkpoint_and_not_before(world: World) -> None:
    vm = await running(world)
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    image = world.get("VM", checkpoint)["suspend_VDI"]
    assert await refusal(world, "VDI.destroy", image) == ("VDI_IN_USE", [image, "destroy"])
    await world.call("VM.destroy", checkpoint)
    assert world.db.find("VDI", image) is None
    assert guest(world, vm).domain.state == "running"


async def test_a_clone_of_a_checkpoint_is_halted(world: World) -> None:
    vm = await running(world)
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    clone = await world.call("VM.clone", checkpoint, "another")
    record = world.get("VM", clone)
    assert (record["power_state"], record["suspend_VDI"]) == ("Halted", NULL_REF)


async def test_a_paused_vm_stays_paused_and_goes_on_from_its_checkpoint(world: World) -> None:
    vm = await running(world)
    boots = guest(world, vm).generation
    await world.call("VM.pause", vm)
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    assert guest(world, vm).domain.state == "paused"
    assert world.get("VM", vm)["power_state"] == "Paused"
    assert world.get("VM", checkpoint)["power_state"] == "Suspended"
    await world.call("VM.hard_reboot", vm)
    await booted(world, vm)
    await world.call("VM.revert", checkpoint)
    await world.call("VM.resume", vm, False, False)
    assert guest(world, vm).generation == boots
    world.assert_nothing_orphaned()


@pytest.mark.parametrize("method", ["VM.snapshot", "VM.checkpoint"])
async def test_what_is_taken_of_a_suspended_vm_has_its_memory(world: World, method: str) -> None:
    vm = await running(world)
    world.write(vm, "old")
    boots = guest(world, vm).generation
    await world.call("VM.suspend", vm)
    own = world.get("VM", vm)["suspend_VDI"]
    taken = await world.call(method, vm, "monday")
    record = world.get("VM", taken)
    assert (record["power_state"], world.get("VM", vm)["suspend_VDI"]) == ("Suspended", own)
    assert record["snapshot_info"]["power-state-at-snapshot"] == "Suspended"
    assert record["suspend_VDI"] not in (own, NULL_REF)
    await world.call("VM.resume", vm, False, False)  # its own image goes, the other one stays
    world.write(vm, "new")
    await world.call("VM.hard_reboot", vm)
    await booted(world, vm)
    await world.call("VM.revert", taken)
    assert (world.get("VM", vm)["power_state"], disk_content(world, vm)) == ("Suspended", ["old"])
    await world.call("VM.resume", vm, False, False)
    assert guest(world, vm).generation == boots
    await world.call("VM.destroy", taken)
    assert "suspend" not in {vdi["type"] for vdi in world.db.all("VDI").values()}
    world.assert_nothing_orphaned()


async def test_without_its_image_nothing_is_taken_of_a_suspended_vm(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    with world.db.transaction() as tx:
        tx.set("VDI", world.get("VM", vm)["suspend_VDI"], missing=True)
    before = world.snapshot()
    for method in ("VM.snapshot", "VM.checkpoint"):
        assert await refusal(world, method, vm, "x") == ("VM_HAS_NO_SUSPEND_VDI", [vm])
    assert world.snapshot() == before


async def test_only_what_is_switched_on_or_suspended_has_a_memory(world: World) -> None:
    vm = await running(world)
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    for method in ("VM.resume", "VM.start"):
        assert (await refusal(world, method, checkpoint, False, False))[0] == "VM_IS_SNAPSHOT"
    assert (await refusal(world, "VM.checkpoint", checkpoint, "x"))[0] == "VM_IS_SNAPSHOT"
    await world.call("VM.hard_shutdown", vm)
    halted = ("VM_BAD_POWER_STATE", [vm, "paused, running, suspended", "halted"])
    assert await refusal(world, "VM.checkpoint", vm, "x") == halted


async def test_without_room_the_guest_runs_on(world: World) -> None:
    vm = await running(world)
    before = world.snapshot()
    world.storage.capacity_bytes = world.storage.allocated_bytes() + 100 * MIB
    assert (await refusal(world, "VM.checkpoint", vm, "x"))[0] == "SR_BACKEND_FAILURE_44"
    assert guest(world, vm).domain.state == "running"
    assert world.snapshot() == before


async def test_cancelled_nothing_is_left(world: World) -> None:
    vm = await running(world)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(save_s=3600))
    before = world.snapshot()
    task = await world.call("Async.VM.checkpoint", vm, "monday")
    await until(lambda: world.hypervisor.memory._stops)
    await world.call("task.cancel", task)
    await until(lambda: world.get("task", task)["status"] == "cancelled" and world.work.journal.entries() == [])
    assert guest(world, vm).domain.state == "running"
    assert world.snapshot() == before
