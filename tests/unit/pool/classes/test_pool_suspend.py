"""Suspending to a volume and resuming from it, on fakes."""

import asyncio
from typing import Any

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, cd_fields, until, vif_fields


async def running(world: World, **fields: Any) -> str:
    """A VM with a disk, a medium in its drive and a NIC, whose guest has booted; the pool has a place for memory."""
    sr = await world.make_sr()
    await world.call("pool.set_suspend_image_SR", next(iter(world.db.all("pool"))), sr)
    vm = await world.make_vm(**fields)
    await world.make_vbd(vm, await world.make_vdi(sr, "root"), bootable=True)
    await world.call("VBD.create", cd_fields(vm, await world.make_vdi(sr, "cd", read_only=True)))
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    await world.call("VM.start", vm, False, False)
    await booted(world, vm)
    return vm


async def booted(world: World, vm: str) -> None:
    await until(lambda: guest(world, vm).has_address)


def guest(world: World, vm: str) -> Any:
    return world.hypervisor._running[world.get("VM", vm)["uuid"]]


async def refusal(world: World, method: str, *params: Any) -> tuple[str, list[str]]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return refused.value.code, refused.value.params


async def test_a_suspended_vm_uses_nothing_of_its_host_and_goes_on_as_it_was(world: World) -> None:
    vm = await running(world)
    started = world.get("VM_metrics", world.get("VM", vm)["metrics"])["start_time"]
    boots = guest(world, vm).generation

    await world.call("VM.suspend", vm)
    record = world.get("VM", vm)
    assert (record["power_state"], record["resident_on"], record["domid"]) == ("Suspended", NULL_REF, -1)
    assert (record["consoles"], world.hypervisor._running, world.openings()) == ([], {}, [])
    image = world.get("VDI", record["suspend_VDI"])
    assert (image["type"], image["name_label"], image["managed"]) == ("suspend", "Suspend image", True)
    assert image["virtual_size"] > 128 * MIB
    allowed = {"resume", "resume_on", "shutdown", "hard_shutdown", "power_state_reset", "export", "metadata_export"}
    allowed = set(record["allowed_operations"])
    assert allowed >= {"resume", "resume_on", "shutdown", "hard_shutdown", "power_state_reset"}
    assert not allowed & {"start", "start_on", "suspend", "pause", "destroy", "changing_static_range"}

    world.clock.advance(3600)
    await world.call("VM.resume", vm, False, False)
    record = world.get("VM", vm)
    assert (record["power_state"], record["resident_on"], record["suspend_VDI"]) == ("Running", world.host, NULL_REF)
    assert guest(world, vm).generation == boots  # it has not booted again
    assert world.get("VM_metrics", record["metrics"])["start_time"] == started
    assert {world.get("console", c)["protocol"] for c in record["consoles"]} == {"vt100", "rfb"}
    assert "suspend" not in {vdi["type"] for vdi in world.db.all("VDI").values()}
    assert len(world.openings()) == 2
    await until(lambda: world.db.find("VM_guest_metrics", world.get("VM", vm)["guest_metrics"]) is not None)
    world.assert_nothing_orphaned()


async def test_each_resume_has_names_and_secrets_of_its_own(world: World) -> None:
    vm = await running(world)
    before = world.openings()
    await world.call("VM.suspend", vm)
    await world.call("VM.resume", vm, False, False)
    assert len(set(before) | set(world.openings())) == 4


async def test_resumed_to_a_pause_the_guest_stands_still(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    await world.call("VM.resume_on", vm, world.host, True, False)
    assert world.get("VM", vm)["power_state"] == "Paused"
    assert guest(world, vm).domain.state == "paused"
    await world.call("VM.unpause", vm)
    assert guest(world, vm).domain.state == "running"


async def test_what_a_suspended_vm_refuses(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    disk = next(v for v in world.get("VM", vm)["VBDs"] if world.get("VBD", v)["type"] == "Disk")
    vdi, image = world.get("VBD", disk)["VDI"], world.get("VM", vm)["suspend_VDI"]
    suspended = [vm, "halted", "suspended"]
    assert await refusal(world, "VM.start", vm, False, False) == ("VM_BAD_POWER_STATE", suspended)
    assert await refusal(world, "VM.destroy", vm) == ("VM_BAD_POWER_STATE", suspended)
    assert await refusal(world, "VM.set_memory_static_max", vm, 256 * MIB) == ("VM_BAD_POWER_STATE", suspended)
    assert await refusal(world, "VM.suspend", vm) == ("VM_BAD_POWER_STATE", [vm, "running", "suspended"])
    assert await refusal(world, "VDI.destroy", vdi) == ("VDI_IN_USE", [vdi, "destroy"])
    assert await refusal(world, "VDI.destroy", image) == ("VDI_IN_USE", [image, "destroy"])
    assert await refusal(world, "VDI.forget", image) == ("VDI_IN_USE", [image, "forget"])
    assert "destroy" not in world.get("VDI", image)["allowed_operations"]
    other = await world.make_vm("other")
    await world.make_vbd(other, vdi)
    assert await refusal(world, "VM.start", other, False, False) == ("VDI_IN_USE", [vdi, "attach"])
    await world.call("VM.resume", vm, False, False)


async def test_only_what_runs_is_suspended_and_only_what_is_suspended_resumed(world: World) -> None:
    vm = await running(world)
    assert await refusal(world, "VM.resume", vm, False, False) == ("VM_BAD_POWER_STATE", [vm, "suspended", "running"])
    await world.call("VM.pause", vm)
    assert await refusal(world, "VM.suspend", vm) == ("VM_BAD_POWER_STATE", [vm, "running", "paused"])


async def test_without_a_place_for_memory_nothing_happens(world: World) -> None:
    vm = await running(world)
    pool = next(iter(world.db.all("pool")))
    await world.call("pool.set_suspend_image_SR", pool, NULL_REF)
    before = world.snapshot()
    assert await refusal(world, "VM.suspend", vm) == ("VM_NO_SUSPEND_SR", [vm])
    assert world.snapshot() == before
    other = await world.make_sr("other")
    await world.call("VM.set_suspend_SR", vm, other)
    await world.call("VM.suspend", vm)
    assert world.get("VDI", world.get("VM", vm)["suspend_VDI"])["SR"] == other


async def test_a_full_array_lets_the_guest_run_on(world: World) -> None:
    vm = await running(world)
    before = world.snapshot()
    world.storage.capacity_bytes = world.storage.allocated_bytes() + 100 * MIB
    assert (await refusal(world, "VM.suspend", vm))[0] == "SR_BACKEND_FAILURE_44"
    assert guest(world, vm).domain.state == "running"
    assert world.snapshot() == before


@pytest.mark.parametrize("end", ["VM.hard_shutdown", "VM.shutdown", "VM.power_state_reset"])
async def test_ending_a_suspended_vm_throws_its_memory_away(world: World, end: str) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    image = world.get("VM", vm)["suspend_VDI"]
    await world.call(end, vm)
    record = world.get("VM", vm)
    assert (record["power_state"], record["suspend_VDI"]) == ("Halted", NULL_REF)
    assert world.db.find("VDI", image) is None
    assert not any(world.get("VBD", vbd)["currently_attached"] for vbd in record["VBDs"])
    world.assert_nothing_orphaned()
    await world.call("VM.start", vm, False, False)
    await booted(world, vm)


async def test_ended_while_the_array_is_out_of_reach_it_ends_once_that_answers(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    world.storage.reachable = False
    assert (await refusal(world, "VM.hard_shutdown", vm))[0] == "SR_BACKEND_FAILURE_164"
    assert world.get("VM", vm)["power_state"] == "Suspended"
    world.storage.reachable = True
    await world.work.retry_stalled()
    assert world.get("VM", vm)["power_state"] == "Halted"
    world.assert_nothing_orphaned()


async def test_a_hard_shutdown_does_not_wait_for_the_memory_to_be_written(world: World) -> None:
    vm = await running(world)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(save_s=3600))
    suspending = asyncio.create_task(world.call("VM.suspend", vm))
    await until(lambda: world.hypervisor.memory._stops)
    await world.call("VM.hard_shutdown", vm)
    with pytest.raises(XenApiError, match="TASK_CANCELLED"):
        await suspending
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert "suspend" not in {vdi["type"] for vdi in world.db.all("VDI").values()}
    world.assert_nothing_orphaned()


async def test_a_task_shows_how_much_is_written(world: World) -> None:
    vm = await running(world)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(save_s=0.2))
    task = await world.call("Async.VM.suspend", vm)
    await until(lambda: world.hypervisor.memory._times)
    began = world.get("task", task)["progress"]

    def later() -> bool:
        world.clock.advance(1)
        return bool(world.get("task", task)["progress"] > began)

    await until(later)
    await until(lambda: world.get("task", task)["status"] == "success")


async def test_cancelled_the_guest_goes_on(world: World) -> None:
    vm = await running(world)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(save_s=3600))
    before = world.snapshot()
    task = await world.call("Async.VM.suspend", vm)
    await until(lambda: world.hypervisor.memory._stops)
    assert list(world.get("VM", vm)["current_operations"].values()) == ["suspend"]
    await world.call("task.cancel", task)
    await until(lambda: world.get("task", task)["status"] == "cancelled")
    await until(lambda: world.work.journal.entries() == [])
    assert guest(world, vm).domain.state == "running"
    assert world.snapshot() == before


async def test_a_guest_that_crashes_before_its_memory_is_written_is_not_suspended(world: World) -> None:
    vm = await running(world)
    uuid = world.get("VM", vm)["uuid"]
    world.hypervisor.behave(uuid, GuestBehaviour())
    made = world.driver.volume_create

    async def then_crash(*args: Any) -> Any:
        volume = await made(*args)
        await world.hypervisor.crash(uuid)
        return volume

    world.driver.volume_create = then_crash  # type: ignore[method-assign]
    with pytest.raises(XenApiError):
        await world.call("VM.suspend", vm)
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    assert "suspend" not in {vdi["type"] for vdi in world.db.all("VDI").values()}


async def test_an_image_that_is_no_memory_leaves_the_vm_suspended(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    media = world.hypervisor.storage.media  # type: ignore[attr-defined]
    image = world.get("VDI", world.get("VM", vm)["suspend_VDI"])["uuid"]
    kept = media.pop(image)
    before = world.snapshot()
    assert (await refusal(world, "VM.resume", vm, False, False))[0] == "SR_BACKEND_FAILURE_46"
    assert world.snapshot() == before
    media[image] = kept
    await world.call("VM.resume", vm, False, False)


async def test_a_suspended_vm_needs_a_host_that_sees_its_memory(world: World) -> None:
    vm = await running(world)
    other = await world.make_sr("memories")
    await world.call("VM.set_suspend_SR", vm, other)
    await world.call("VM.suspend", vm)
    (pbd,) = world.get("SR", other)["PBDs"]
    await world.call("PBD.unplug", pbd)
    assert await refusal(world, "VM.resume", vm, False, False) == ("VM_REQUIRES_SR", [vm, other])
    assert await world.call("VM.get_possible_hosts", vm) == []
    await world.call("PBD.plug", pbd)
    assert await world.call("VM.get_possible_hosts", vm) == [world.host]
    await world.call("VM.resume", vm, False, False)


async def test_suspended_through_a_restart_of_the_coordinator(world: World) -> None:
    vm = await running(world)
    await world.call("VM.suspend", vm)
    await world.power_cut()
    await world.boot()
    assert world.get("VM", vm)["power_state"] == "Suspended"
    await world.call("VM.resume", vm, False, False)
    assert world.get("VM", vm)["power_state"] == "Running"
    world.assert_nothing_orphaned()
