"""Snapshots of VMs and of their disks, in the words of the XenAPI."""

import json
from pathlib import Path
from typing import Any

import pytest

from gespann.host import holds
from gespann.host.fake.guest import GuestBehaviour
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, cd_fields, until, vbd_fields, vif_fields


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = await World.begin(tmp_path)
    yield made
    made.assert_nothing_orphaned()
    await made.end()


async def refused(world: World, method: str, *params: Any) -> list[str]:
    """Nothing has changed then."""
    before = world.snapshot()
    with pytest.raises(XenApiError) as error:
        await world.call(method, *params)
    assert world.snapshot() == before
    return [error.value.code, *map(str, error.value.params)]


async def machine(world: World, disks: int = 2) -> str:
    sr = await world.make_sr()
    vm = await world.make_vm("web1", name_description="of the shop")
    for number in range(disks):
        await world.make_vbd(vm, await world.make_vdi(sr, f"disk {number}"), bootable=number == 0)
    await world.call("VBD.create", cd_fields(vm))
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    return vm


async def with_guest(world: World, vm: str) -> None:
    await world.call("VM.start", vm, False, False)
    await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))


def disks(world: World, vm: str) -> list[str]:
    vbds = [world.get("VBD", vbd) for vbd in world.get("VM", vm)["VBDs"]]
    found = [vbd for vbd in vbds if vbd["type"] == "Disk"]
    return [vbd["VDI"] for vbd in sorted(found, key=lambda vbd: int(vbd["userdevice"]))]


def contents(world: World, vm: str) -> list[str]:
    return [world.volume(world.get("VDI", vdi)["uuid"]).content for vdi in disks(world, vm)]


async def test_a_snapshot_is_a_template_of_that_instant(world: World) -> None:
    vm = await machine(world)
    await with_guest(world, vm)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    world.write(vm, "new")
    record, source = world.get("VM", snapshot), world.get("VM", vm)
    assert (record["name_label"], record["power_state"], source["power_state"]) == ("monday", "Halted", "Running")
    assert record["is_a_template"]
    assert record["is_a_snapshot"]
    assert (record["snapshot_of"], source["snapshots"], source["parent"]) == (vm, [snapshot], snapshot)
    assert record["snapshot_info"] == {
        "power-state-at-snapshot": "Running",
        "disk-snapshot-type": "crash_consistent",
    }
    assert record["snapshot_time"] == "20100216T09:30:00Z"
    assert json.loads(record["snapshot_metadata"])["name_description"] == "of the shop"
    assert [world.get("VIF", vif)["MAC"] for vif in record["VIFs"]] == ["02:00:00:00:00:07"]
    assert contents(world, snapshot) == ["old", "old"]
    for vdi, of in zip(disks(world, snapshot), disks(world, vm), strict=True):
        shown = world.get("VDI", vdi)
        assert (shown["is_a_snapshot"], shown["snapshot_of"]) == (True, of)
        assert world.get("VDI", of)["snapshots"] == [vdi]
    allowed = {"clone", "copy", "destroy", "export", "metadata_export", "power_state_reset", "revert"}
    assert set(world.get("VM", snapshot)["allowed_operations"]) == allowed
    assert "snapshot" in source["allowed_operations"]


async def test_all_disks_of_one_array_at_one_instant(world: World) -> None:
    vm = await machine(world, disks=8)
    await with_guest(world, vm)
    world.moments.passed.clear()
    await world.call("VM.snapshot", vm, "monday")
    assert [moment for moment in world.moments.passed if moment.startswith("before")] == ["before volumes_snapshot"]


async def test_more_disks_than_go_together_stand_still_meanwhile(world: World) -> None:
    vm = await machine(world, disks=9)
    await with_guest(world, vm)
    world.moments.passed.clear()
    await world.call("VM.snapshot", vm, "monday")
    assert [moment.split()[1] for moment in world.moments.passed if moment.startswith("before")] == [
        *("domain.pause", "volumes_snapshot", "volumes_snapshot", "domain.unpause")
    ]
    assert world.get("VM", vm)["power_state"] == "Running"


async def test_disks_left_out(world: World) -> None:
    vm = await machine(world)
    ignored = disks(world, vm)[1]
    snapshot = await world.call("VM.snapshot", vm, "monday", [ignored])
    assert len(disks(world, snapshot)) == 1
    assert world.get("VDI", ignored)["snapshots"] == []


async def test_a_chain_of_snapshots_and_one_taken_out(world: World) -> None:
    vm = await machine(world)
    first, second, third = [await world.call("VM.snapshot", vm, name) for name in ("a", "b", "c")]
    assert [world.get("VM", ref)["parent"] for ref in (first, second, third, vm)] == [NULL_REF, first, second, third]
    await world.call("VM.destroy", second)
    assert world.get("VM", third)["parent"] == first
    await world.call("VM.destroy", third)
    assert world.get("VM", vm)["parent"] == first


async def test_what_a_snapshot_cannot_do(world: World) -> None:
    vm = await machine(world)
    snapshot = await world.call("VM.snapshot", vm, "monday")
    assert await refused(world, "VM.start", snapshot, False, False) == ["VM_IS_SNAPSHOT", snapshot, "start"]
    assert await refused(world, "VM.snapshot", snapshot, "again") == ["VM_IS_SNAPSHOT", snapshot, "snapshot"]
    assert await refused(world, "VM.revert", vm) == ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]
    (vdi,) = disks(world, snapshot)[:1]
    assert (await refused(world, "VDI.snapshot", vdi, {}))[0] == "SR_BACKEND_FAILURE_168"
    assert (await refused(world, "VM.snapshot_with_quiesce", vm, "x"))[0] == "VM_BAD_POWER_STATE"


async def test_back_to_a_snapshot(world: World) -> None:
    vm = await machine(world)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    before = disks(world, vm)
    world.write(vm, "new")
    await world.call("VM.set_name_label", vm, "renamed")
    await world.call("VM.set_memory", vm, 256 * MIB)
    await world.call("VDI.resize", before[0], 60 * MIB)
    later = await world.call("VM.snapshot", vm, "tuesday")
    await with_guest(world, vm)
    await world.call("VM.revert", snapshot)
    record = world.get("VM", vm)
    assert (record["name_label"], record["power_state"], record["parent"]) == ("web1", "Halted", snapshot)
    assert record["memory_static_max"] == 128 * MIB
    assert not record["is_a_template"]
    assert disks(world, vm) == before
    assert contents(world, vm) == ["old", "old"]
    assert world.get("VDI", before[0])["virtual_size"] == 30 * MIB
    assert len(world.db.all("VDI")) == 6
    await world.call("VM.revert", later)
    assert contents(world, vm) == ["new", "new"]
    assert world.get("VM", vm)["name_label"] == "renamed"
    await world.call("VM.start", vm, False, False)


async def test_a_disk_that_was_destroyed_comes_back_and_one_that_was_added_stays_apart(world: World) -> None:
    vm = await machine(world)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    gone = disks(world, vm)[1]
    await world.call("VDI.destroy", gone)
    sr = next(iter(world.db.all("SR")))
    added = await world.make_vdi(sr, "added")
    await world.make_vbd(vm, added)
    for _ in range(2):  # the second time it is the copy that goes back
        world.write(vm, "new")
        await world.call("VM.revert", snapshot)
        assert contents(world, vm) == ["old", "old"]
        assert world.get("VDI", disks(world, snapshot)[1])["snapshot_of"] == disks(world, vm)[1]
        assert world.get("VDI", added)["VBDs"] == []
        assert len(world.db.all("VDI")) == 5
    assert await world.call("VM.destroy", snapshot) is None


async def test_one_disk_goes_back(world: World) -> None:
    vm = await machine(world)
    world.write(vm, "old")
    first = disks(world, vm)[0]
    await world.call("VM.set_suspend_SR", vm, world.get("VDI", first)["SR"])
    snapshot = await world.call("VDI.snapshot", first, {})
    await world.call("VDI.resize", first, 60 * MIB)
    world.write(vm, "new")
    volumes = set(world.storage.srs[world.get("SR", world.get("VDI", first)["SR"])["uuid"]].volumes)
    await world.call("VDI.revert", snapshot)
    assert contents(world, vm) == ["old", "new"]
    assert world.get("VDI", first)["virtual_size"] == world.get("VDI", snapshot)["virtual_size"] != 60 * MIB
    assert set(world.storage.srs[world.get("SR", world.get("VDI", first)["SR"])["uuid"]].volumes) == volumes
    for state in ("Running", "Suspended"):
        await (world.call("VM.start", vm, False, False) if state == "Running" else world.call("VM.suspend", vm))
        assert await refused(world, "VDI.revert", snapshot) == ["VDI_IN_USE", first, "revert"]
        await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))
    await world.call("VM.hard_shutdown", vm)
    assert await refused(world, "VDI.revert", first) == ["OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {first}"]
    clone = await world.call("VDI.clone", snapshot, {})
    assert (await refused(world, "VDI.revert", clone))[0] == "OPERATION_NOT_ALLOWED"
    await world.call("VDI.set_read_only", first, True)
    assert await refused(world, "VDI.revert", snapshot) == ["VDI_READONLY", first]
    await world.call("VDI.set_read_only", first, False)
    await world.call("VDI.destroy", first)
    assert (await refused(world, "VDI.revert", snapshot))[0] == "HANDLE_INVALID"


async def test_snapshots_outlive_their_disk_and_their_machine(world: World) -> None:
    vm = await machine(world)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    for vdi in disks(world, vm):
        await world.call("VDI.destroy", vdi)
    await world.call("VM.destroy", vm)
    assert world.get("VM", snapshot)["snapshot_of"] == NULL_REF
    assert await refused(world, "VM.revert", snapshot) == ["VM_REVERT_FAILED", NULL_REF, snapshot]
    template = await world.call("VM.clone", snapshot, "again")
    await world.call("VM.provision", template)
    assert contents(world, template) == ["old", "old"]
    await with_guest(world, template)


async def test_a_machine_made_of_a_snapshot(world: World) -> None:
    vm = await machine(world)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    for method, more in (("VM.clone", []), ("VM.copy", [NULL_REF])):
        made = await world.call(method, snapshot, "made", *more)
        record = world.get("VM", made)
        assert (record["is_a_template"], record["is_a_snapshot"], record["snapshot_of"]) == (True, False, NULL_REF)
        assert contents(world, made) == ["old", "old"]
        assert [world.get("VIF", vif)["MAC"] for vif in record["VIFs"]] != ["02:00:00:00:00:07"]
        assert not any(world.get("VDI", vdi)["is_a_snapshot"] for vdi in disks(world, made))


@pytest.mark.parametrize("mode", ["RO", "RW"])
async def test_a_snapshot_of_a_disk_plugged_into_another_machine(world: World, mode: str) -> None:
    vm = await machine(world)
    await with_guest(world, vm)
    snapshot = await world.call("VM.snapshot", vm, "monday")
    other = await world.make_vm_with_disk(next(iter(world.db.all("SR"))), "backup")
    await with_guest(world, other)
    vbd = await world.call("VBD.create", vbd_fields(other, disks(world, snapshot)[0], mode=mode))
    await world.call("VBD.plug", vbd)
    (opening,) = world.volume(world.get("VDI", disks(world, snapshot)[0])["uuid"]).openings.values()
    assert opening.mode == mode
    assert (await refused(world, "VDI.destroy", disks(world, snapshot)[0]))[0] == "VDI_IN_USE"
    await world.call("VBD.unplug", vbd)


async def test_five_hundred_and_twelve_snapshots_of_one_disk(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    for _ in range(512):
        await world.call("VDI.snapshot", vdi, {})
    assert len(world.get("VDI", vdi)["snapshots"]) == 512
    error = await refused(world, "VDI.snapshot", vdi, {})
    assert error[0] == "SR_BACKEND_FAILURE_82"
    assert "512" in error[2]


async def test_snapshots_are_found_again_by_a_scan(world: World) -> None:
    vm = await machine(world, disks=1)
    await world.call("VM.snapshot", vm, "monday")
    (vdi,) = disks(world, vm)
    (snapshot,) = world.get("VDI", vdi)["snapshots"]
    uuids = [world.get("VDI", ref)["uuid"] for ref in (vdi, snapshot)]
    for ref in (vdi, snapshot):
        await world.call("VDI.forget", ref)
    await world.call("SR.scan", next(iter(world.db.all("SR"))))
    found, again = (world.db.by_uuid("VDI", uuid) for uuid in uuids)
    assert world.get("VDI", again)["is_a_snapshot"]
    assert world.get("VDI", again)["snapshot_of"] == found


# A quiet guest


async def test_a_quiet_snapshot(world: World) -> None:
    vm = await machine(world)
    await with_guest(world, vm)
    world.moments.passed.clear()
    snapshot = await world.call("VM.snapshot_with_quiesce", vm, "quiet")
    assert world.get("VM", snapshot)["snapshot_info"]["disk-snapshot-type"] == "quiesced"
    assert [moment.split()[1] for moment in world.moments.passed if moment.startswith("before")] == [
        *("guest.freeze", "volumes_snapshot", "guest.thaw")
    ]


async def test_a_guest_without_an_agent_cannot_be_quiet(world: World) -> None:
    vm = await machine(world)
    await world.call("VM.start", vm, False, False)
    uuid = world.get("VM", vm)["uuid"]
    await until(lambda: world.hypervisor._running[uuid].agent_up)
    world.hypervisor.guest_agent(uuid, live=False)
    await until(lambda: world.reconciler.quiet)
    error = await refused(world, "VM.snapshot_with_quiesce", vm, "quiet")
    assert error[:2] == ["VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", vm]
    assert "no guest agent" in error[2]
    await world.call("VM.hard_shutdown", vm)  # and the VM is free at once


async def test_a_guest_that_never_says_that_it_is_thawed_can_be_shut_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "THAW_ANSWER_S", 0.05)
    vm = await machine(world)
    uuid = world.get("VM", vm)["uuid"]
    world.hypervisor.behave(uuid, GuestBehaviour(obeys_freeze=False, deaf_to_thaws=10**9))
    await with_guest(world, vm)
    assert await refused(world, "VM.snapshot_with_quiesce", vm, "quiet") == ["VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT", vm]
    await world.call("VM.hard_shutdown", vm)
    assert world.get("VM", vm)["power_state"] == "Halted"


@pytest.mark.parametrize(
    ("code", "told"),
    [("TIMEOUT", "VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT"), ("BAD_STATE", "VM_SNAPSHOT_WITH_QUIESCE_FAILED")],
)
async def test_a_guest_that_will_not(world: World, code: str, told: str) -> None:
    vm = await machine(world)
    await with_guest(world, vm)
    world.hypervisor.fail_next("guest_freeze", SeamError(code, "no"))
    assert await refused(world, "VM.snapshot_with_quiesce", vm, "quiet") == [told, vm]


async def test_a_guest_that_freezes_too_late_is_thawed(world: World) -> None:
    vm = await machine(world)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(obeys_freeze=False))
    await with_guest(world, vm)
    assert await refused(world, "VM.snapshot_with_quiesce", vm, "quiet") == ["VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT", vm]
    await until(lambda: not world.hypervisor._running[world.get("VM", vm)["uuid"]].frozen)


async def test_a_guest_that_was_let_go_before_the_snapshot_was_there(world: World) -> None:
    """Then the snapshot is not what was asked for, and is taken back."""
    vm = await machine(world)
    await with_guest(world, vm)
    running = world.hypervisor._running[world.get("VM", vm)["uuid"]]
    take = world.driver.volumes_snapshot

    async def slowly(*args: Any) -> Any:
        made = await take(*args)
        running.frozen = False
        return made

    world.driver.volumes_snapshot = slowly  # type: ignore[method-assign]
    assert await refused(world, "VM.snapshot_with_quiesce", vm, "quiet") == ["VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT", vm]
