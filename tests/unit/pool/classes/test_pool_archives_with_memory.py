"""Suspended VMs and checkpoints as archives, with what they have in memory."""

import io
import tarfile
from pathlib import Path

import pytest

from gespann.seams.xenapi.datamodel import NULL_REF
from tests.unit.pool.classes.test_pool_archives import export, put
from tests.unit.pool.classes.test_pool_checkpoints import disk_content
from tests.unit.pool.classes.test_pool_suspend import booted, guest, running
from tests.unit.pool.world import World

PRESERVE = "&preserve_power_state=true"


async def suspended(world: World) -> tuple[str, int]:
    """And how often its guest has booted."""
    vm = await running(world)
    await world.call("VM.hard_reboot", vm)
    await booted(world, vm)
    boots = guest(world, vm).generation
    await world.call("VM.suspend", vm)
    return vm, boots


async def remove(world: World, vm: str) -> None:
    """With its disks and its memory."""
    disks = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]]
    if world.get("VM", vm)["power_state"] != "Halted":
        await world.call("VM.hard_shutdown", vm)
    await world.call("VM.destroy", vm)
    for vdi in disks:
        if world.get("VDI", vdi)["name_label"] == "root":
            await world.call("VDI.destroy", vdi)


def sr_of(world: World) -> str:
    return next(iter(world.db.all("SR")))


def left_behind(world: World) -> list[str]:
    found = world.db.all("message").values()
    return [message["body"] for message in found if message["name"] == "VM_IMPORTED_WITHOUT_MEMORY"]


@pytest.mark.parametrize("compression", ["", "&use_compression=zstd"])
async def test_a_suspended_vm_goes_on_where_it_stood_after_its_way_through_a_file(
    world: World, door: Path, compression: str
) -> None:
    vm, boots = await suspended(world)
    uuid = world.get("VM", vm)["uuid"]
    archive = await export(world, door, vm, PRESERVE + compression)
    assert world.get("VM", vm)["power_state"] == "Suspended"
    await remove(world, vm)
    status, (back,) = await put(world, door, archive, f"sr_id={sr_of(world)}&restore=true")
    assert status == "success", back
    record = world.get("VM", back)
    assert (record["uuid"], record["power_state"]) == (uuid, "Suspended")
    assert world.get("VDI", record["suspend_VDI"])["type"] == "suspend"
    assert all(world.get("VIF", vif)["currently_attached"] for vif in record["VIFs"])
    world.assert_nothing_orphaned()
    await world.call("VM.resume", back, False, False)
    assert guest(world, back).generation == boots
    assert left_behind(world) == []
    world.assert_nothing_orphaned()


async def test_without_being_asked_for_memory_is_not_in_the_file(world: World, door: Path) -> None:
    vm, _ = await suspended(world)
    archive = await export(world, door, vm)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        prefixes = {name.split("/")[0] for name in read.getnames()}
    assert len(prefixes) == 2  # the records, and the disk
    status, (made,) = await put(world, door, archive, f"sr_id={sr_of(world)}")
    assert (status, world.get("VM", made)["power_state"]) == ("success", "Halted")
    assert left_behind(world) == []


async def test_another_machine_cannot_go_on_from_it(world: World, door: Path) -> None:
    vm, _ = await suspended(world)
    archive = await export(world, door, vm, PRESERVE)
    status, (made,) = await put(world, door, archive, f"sr_id={sr_of(world)}")
    record = world.get("VM", made)
    assert (status, record["power_state"], record["suspend_VDI"]) == ("success", "Halted", NULL_REF)
    assert not any(world.get("VBD", vbd)["currently_attached"] for vbd in record["VBDs"])
    assert sum(vdi["type"] == "suspend" for vdi in world.db.all("VDI").values()) == 1  # that of the first one
    (told,) = left_behind(world)
    assert "preserve=true" in told
    await world.call("VM.start", made, False, False)
    await world.call("VM.resume", vm, False, False)


async def test_memory_of_another_kind_of_hypervisor_is_left_behind(world: World, door: Path) -> None:
    """As in an archive of a XenServer: nothing in it says which of the devices were plugged."""
    vm, _ = await suspended(world)
    archive = await export(world, door, vm, PRESERVE)
    for wrong in (b"xemory-devices", b"memory-devicex"):
        await_this = archive.replace(b"memory-devices", wrong)
        status, (made,) = await put(world, door, await_this, f"sr_id={sr_of(world)}")
        assert (status, world.get("VM", made)["power_state"]) == ("success", "Halted")
    assert all("another kind of hypervisor" in text for text in left_behind(world))
    assert len(left_behind(world)) == 2


async def test_memory_of_another_machine_is_left_behind(world: World, door: Path) -> None:
    vm, _ = await suspended(world)
    uuid = world.get("VM", vm)["uuid"]
    archive = await export(world, door, vm, PRESERVE)
    await remove(world, vm)
    other = archive.replace(uuid.encode(), b"0" * 7 + uuid[7:].encode(), 1)
    status, (made,) = await put(world, door, other, f"sr_id={sr_of(world)}&restore=true")
    assert status == "success", made
    if world.get("VM", made)["power_state"] == "Halted":
        (told,) = left_behind(world)
        assert "another machine" in told
    world.assert_nothing_orphaned()


async def test_a_checkpoint_goes_out_as_the_machine_that_it_was(world: World, door: Path) -> None:
    vm = await running(world)
    uuid, boots = world.get("VM", vm)["uuid"], guest(world, vm).generation
    world.write(vm, "then")
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    await world.call("VM.hard_reboot", vm)
    await booted(world, vm)
    archive = await export(world, door, checkpoint, PRESERVE)
    await remove(world, vm)
    await world.call("VM.destroy", checkpoint)
    status, made = await put(world, door, archive, f"sr_id={sr_of(world)}&restore=true")
    assert status == "success", made
    (back,) = made
    record = world.get("VM", back)
    assert (record["uuid"], record["power_state"], record["is_a_template"]) == (uuid, "Suspended", False)
    await world.call("VM.resume", back, False, False)
    assert guest(world, back).generation == boots
    assert disk_content(world, back) == [""]  # what the array was told is the array's; the blocks went through the file


async def test_memory_that_is_gone_is_not_promised(world: World, door: Path) -> None:
    vm, _ = await suspended(world)
    with world.db.transaction() as tx:
        tx.set("VDI", world.get("VM", vm)["suspend_VDI"], missing=True)
    with pytest.raises(AssertionError, match="VM_HAS_NO_SUSPEND_VDI"):
        await export(world, door, vm, PRESERVE)
