"""Disks that move to another SR while their VM runs, alone or with it."""

from typing import Any

import pytest

from gespann.host.fake.guest import GuestBehaviour
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until

SLOW = GuestBehaviour(mirror_s=60.0)


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *map(str, refused.value.params)]


async def machine(world: World, *, state: str = "Running") -> tuple[str, list[str], str]:
    """A VM with two disks, those, and another SR."""
    here, there = await world.make_sr("here"), await world.make_sr("there")
    vm = await world.make_vm_with_disk(here)
    await world.make_vbd(vm, await world.make_vdi(here, "data"))
    if state != "Halted":
        await world.call("VM.start", vm, state == "Paused", False)
        await until(lambda: all(one.has_address or state == "Paused" for one in world.running().values()))
    return vm, [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]], there


async def dest(world: World, host: str) -> dict[str, str]:
    answer: dict[str, str] = await world.call("host.migrate_receive", host, next(iter(world.db.all("network"))), {})
    return answer


def running(world: World, vm: str) -> Any:
    return world.running()[world.get("VM", vm)["uuid"]]


async def begin(world: World, vm: str, vdi: str, sr: str) -> str:
    """The task; the disk is being copied."""
    uuid = world.get("VM", vm)["uuid"]
    world.hypervisor.behave(uuid, SLOW)
    task = await world.call("Async.VDI.pool_migrate", vdi, sr, {})
    await until(lambda: (uuid, 0) in world.hypervisor.mirrors)
    return str(task)


async def ended(world: World, task: str) -> Any:
    await until(lambda: world.get("task", task)["status"] in ("success", "failure", "cancelled"))
    return world.get("task", task)


async def test_it_goes_on_with_what_it_had_and_what_it_writes_meanwhile(world: World) -> None:
    vm, (vdi, _), there = await machine(world)
    old = world.get("VDI", vdi)["uuid"]
    await world.call("VDI.add_to_other_config", vdi, "owner", "me")
    guest, writes = running(world, vm), world.hypervisor.mirrors.write
    writes(guest, 0, 5 * MIB, b"before")
    pivot, at_the_pivot = world.hypervisor.disk_pivot, []

    async def look(*args: Any) -> None:
        at_the_pivot.append(guest.domain.state)
        await pivot(*args)
        at_the_pivot.append(guest.domain.state)

    hold = world.hypervisor.pause

    async def write_and_pause(uuid: str) -> None:
        writes(guest, 0, 6 * MIB, b"in step")
        await hold(uuid)

    world.hypervisor.disk_pivot, world.hypervisor.pause = look, write_and_pause  # type: ignore[method-assign]
    moved = await world.call("VDI.pool_migrate", vdi, there, {})
    assert at_the_pivot == ["paused", "paused"]
    assert guest.domain.state == "running"
    record = world.get("VDI", moved)
    assert (record["SR"], record["name_label"], record["other_config"]) == (there, "web1 root", {"owner": "me"})
    assert world.medium(moved).read(5 * MIB, 6) == b"before"
    assert world.medium(moved).read(6 * MIB, 7) == b"in step"
    writes(guest, 0, 7 * MIB, b"after")
    assert world.medium(moved).read(7 * MIB, 5) == b"after"
    assert world.get("VM", vm)["power_state"] == "Running"
    assert [world.get("VBD", vbd)["currently_attached"] for vbd in record["VBDs"]] == [True]
    assert world.db.find("VDI", vdi) is None
    assert world.storage.find(old) is None
    world.assert_nothing_orphaned()
    await world.call("VM.clean_shutdown", vm)
    await world.call("VM.start", vm, False, False)
    world.assert_nothing_orphaned()


def vdi_of(world: World, vm: str, number: int) -> str:
    return str(world.get("VBD", world.get("VM", vm)["VBDs"][number])["VDI"])


async def test_a_disk_goes_to_storage_with_larger_units(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU copies only to what is as long as the disk: of a longer volume a part is used. So the guest keeps the size
    that it knows until its next start, also if the disk is made larger meanwhile."""
    vm, (vdi, _), there = await machine(world)
    size = world.get("VDI", vdi)["virtual_size"]
    monkeypatch.setattr(world.storage, "page_bytes", 64 * MIB)
    moved = await world.call("VDI.pool_migrate", vdi, there, {})
    assert world.get("VDI", moved)["virtual_size"] == 64 * MIB > size
    assert world.hypervisor.sizes_seen(world.get("VM", vm)["uuid"]) == {}
    await world.call("VDI.resize", moved, 128 * MIB)
    assert world.get("VDI", moved)["virtual_size"] == 128 * MIB
    assert world.hypervisor.sizes_seen(world.get("VM", vm)["uuid"]) == {}
    monkeypatch.undo()
    back = await world.call("VDI.pool_migrate", moved, world.get("VDI", vdi_of(world, vm, 1))["SR"], {})
    assert running(world, vm).domain.state == "running"
    assert world.get("VDI", back)["virtual_size"] == 135 * MIB
    await world.call("VM.clean_shutdown", vm)
    await world.call("VM.start", vm, False, False)
    await world.call("VDI.resize", back, 150 * MIB)
    assert world.hypervisor.sizes_seen(world.get("VM", vm)["uuid"]) == {0: 150 * MIB}
    world.assert_nothing_orphaned()


async def test_a_paused_machine_stays_paused(world: World) -> None:
    vm, (vdi, _), there = await machine(world, state="Paused")
    moved = await world.call("VDI.pool_migrate", vdi, there, {})
    assert (world.get("VDI", moved)["SR"], running(world, vm).domain.state) == (there, "paused")
    assert world.get("VM", vm)["power_state"] == "Paused"
    await world.call("VM.unpause", vm)
    assert running(world, vm).domain.state == "running"
    world.assert_nothing_orphaned()


async def test_meanwhile_machine_and_disk_are_left_alone(world: World) -> None:
    vm, (vdi, data), there = await machine(world)
    task = await begin(world, vm, vdi, there)
    assert set(world.get("VM", vm)["current_operations"].values()) == {"migrate_send"}
    assert set(world.get("VDI", vdi)["current_operations"].values()) == {"mirror"}
    assert world.get("VDI", vdi)["allowed_operations"] == []
    allowed = {"hard_shutdown", "power_state_reset"}
    assert set(world.get("VM", vm)["allowed_operations"]) == allowed
    for method, *params in (
        ("VM.clean_shutdown", vm),
        ("VM.pause", vm),
        ("VM.snapshot", vm, "monday"),
        ("VDI.snapshot", vdi, {}),
        ("VDI.destroy", vdi),
        ("VDI.pool_migrate", vdi, there, {}),
        ("VDI.pool_migrate", data, there, {}),
        ("VDI.resize_online", vdi, 60 * MIB),
        ("VBD.unplug", world.get("VDI", vdi)["VBDs"][0]),
        ("VM.pool_migrate", vm, world.host, {}),
    ):
        assert (await refusal(world, method, *params))[0] == "OTHER_OPERATION_IN_PROGRESS", method
    await world.call("task.cancel", task)
    await ended(world, task)


async def test_cancelled_it_is_as_before(world: World) -> None:
    vm, (vdi, _), there = await machine(world)
    before, openings = world.snapshot(), world.openings()
    task = await begin(world, vm, vdi, there)
    assert world.get("task", task)["allowed_operations"] == ["cancel"]
    world.clock.advance(1.0)
    await until(lambda: world.get("task", task)["progress"] > 0.2)
    await world.call("task.cancel", task)
    assert (await ended(world, task))["error_info"] == ["TASK_CANCELLED", task]
    assert (world.snapshot(), world.openings()) == (before, openings)
    world.assert_nothing_orphaned()
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour())
    assert world.get("VDI", await world.call("VDI.pool_migrate", vdi, there, {}))["SR"] == there


@pytest.mark.parametrize("way", ["VM.hard_shutdown", "VM.power_state_reset"])
async def test_who_wants_it_off_at_once_does_not_wait(world: World, way: str) -> None:
    vm, (vdi, _), there = await machine(world)
    task = await begin(world, vm, vdi, there)
    await world.call(way, vm)
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert (await ended(world, task))["error_info"][0] == "TASK_CANCELLED"
    assert world.get("VDI", vdi)["SR"] != there
    assert world.openings() == []
    assert (world.get("VM", vm)["uuid"], 0) not in world.hypervisor.mirrors


@pytest.mark.parametrize("moment", ["disk_mirror", "disk_pivot"])
async def test_its_machine_ends_meanwhile(world: World, moment: str) -> None:
    vm, (vdi, _), there = await machine(world)
    uuid = world.get("VM", vm)["uuid"]
    real = getattr(world.hypervisor, moment)

    async def end_first(*args: Any) -> None:
        await world.hypervisor.crash(uuid)
        await real(*args)

    setattr(world.hypervisor, moment, end_first)
    assert (await refusal(world, "VDI.pool_migrate", vdi, there, {}))[0] in ("VM_BAD_POWER_STATE", "MIRROR_FAILED")
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and world.reconciler.quiet)
    assert world.get("VDI", vdi)["SR"] != there
    world.assert_nothing_orphaned()


async def test_no_room_there(world: World) -> None:
    """Known before, or only when the last block has gone over: thin volumes promise more than there is."""
    vm, (vdi, _), there = await machine(world)
    before = world.snapshot()
    capacity_bytes = world.storage.capacity_bytes
    world.storage.capacity_bytes = world.storage.allocated_bytes()
    assert (await refusal(world, "VDI.pool_migrate", vdi, there, {}))[0] == "SR_BACKEND_FAILURE_44"
    world.storage.capacity_bytes = capacity_bytes
    mirrors = world.hypervisor.mirrors
    take = mirrors.take

    async def into_full(guest: Any, start_id: str, device: int, source: Any, *rest: Any) -> None:
        mirrors.full.add(source.target)
        await take(guest, start_id, device, source, *rest)

    mirrors.take = into_full  # type: ignore[method-assign]
    assert await refusal(world, "VDI.pool_migrate", vdi, there, {}) == ["MIRROR_FAILED", vdi]
    assert world.snapshot() == before
    assert running(world, vm).domain.state == "running"
    world.assert_nothing_orphaned()


async def test_a_lost_answer_is_asked_for_again(world: World) -> None:
    """Nobody knows whether the disk has been exchanged; the guest stands still until it is known."""
    vm, (vdi, _), there = await machine(world)
    pivot = world.hypervisor.disk_pivot

    async def and_say_nothing(*args: Any) -> None:
        await pivot(*args)
        raise SeamError("TIMEOUT", "libvirt has not answered")

    world.hypervisor.disk_pivot = and_say_nothing  # type: ignore[method-assign]
    assert (await refusal(world, "VDI.pool_migrate", vdi, there, {}))[0] == "INTERNAL_ERROR"
    assert running(world, vm).domain.state == "paused"
    assert world.get("VM", vm)["current_operations"]
    world.hypervisor.disk_pivot = pivot  # type: ignore[method-assign]
    await world.work.retry_stalled()
    assert running(world, vm).domain.state == "running"
    assert [vdi["SR"] for vdi in world.db.all("VDI").values() if vdi["name_label"] == "web1 root"] == [there]
    await until(lambda: world.reconciler.quiet)
    world.assert_nothing_orphaned()


async def test_a_host_falls_silent_and_is_given_up(world: World) -> None:
    other = await world.second_host()
    (far,) = world.far.values()
    here, there = await world.make_sr("here"), await world.make_sr("there")
    vm = await world.make_vm_with_disk(here)
    await world.call("VM.start_on", vm, other, False, False)
    (vdi,) = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]]
    pivot = far.hypervisor.disk_pivot

    async def and_die(*args: Any) -> None:
        await pivot(*args)
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    far.hypervisor.disk_pivot = and_die  # type: ignore[method-assign]
    assert (await refusal(world, "VDI.pool_migrate", vdi, there, {}))[0] == "HOST_OFFLINE"
    world.reconciler.agent_down(other)
    await world.call("VM.power_state_reset", vm)
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.work.stalled == []
    assert world.openings() == []
    assert len(world.storage.srs) == 2
    assert [len(sr.volumes) for sr in world.storage.srs.values()] == [1, 0]


async def test_what_does_not_move(world: World) -> None:
    vm, (vdi, data), there = await machine(world)
    own = world.get("VDI", vdi)["SR"]
    onto_itself = await refusal(world, "VDI.pool_migrate", vdi, own, {})
    assert onto_itself == ["OPERATION_NOT_ALLOWED", "The VDI is on that SR already"]
    await world.call("VDI.enable_cbt", vdi)
    assert await refusal(world, "VDI.pool_migrate", vdi, there, {}) == ["VDI_CBT_ENABLED", vdi]
    assert "mirror" not in world.get("VDI", vdi)["allowed_operations"]
    await world.call("VDI.disable_cbt", vdi)
    assert "mirror" in world.get("VDI", vdi)["allowed_operations"]
    await world.call("VM.add_to_blocked_operations", vm, "migrate_send", "not today")
    assert await refusal(world, "VDI.pool_migrate", vdi, there, {}) == ["OPERATION_BLOCKED", vm, "not today"]
    await world.call("VM.remove_from_blocked_operations", vm, "migrate_send")
    (vbd,) = world.get("VDI", data)["VBDs"]
    await world.call("VBD.unplug", vbd)
    await world.call("VBD.set_mode", vbd, "RO")
    await world.call("VBD.plug", vbd)
    assert await refusal(world, "VDI.pool_migrate", data, there, {}) == ["VDI_IN_USE", data, "mirror"]


async def test_only_where_the_vms_host_sees_it(world: World) -> None:
    await world.second_host()
    vm, (vdi, _), there = await machine(world)
    here = world.get("VM", vm)["resident_on"]
    for pbd in world.get("SR", there)["PBDs"]:
        if world.get("PBD", pbd)["host"] == here:
            await world.call("PBD.unplug", pbd)
    assert await refusal(world, "VDI.pool_migrate", vdi, there, {}) == ["HOST_CANNOT_SEE_SR", here, there]


async def test_snapshots_stay_and_the_machine_can_go_back_to_them(world: World) -> None:
    vm, (vdi, _), there = await machine(world)
    snapshot = await world.call("VM.snapshot", vm, "monday")
    await world.call("VDI.pool_migrate", vdi, there, {})
    kept = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", snapshot)["VBDs"]]
    assert all(world.get("VDI", one)["SR"] != there for one in kept)
    await world.call("VM.revert", snapshot)
    world.assert_nothing_orphaned()


# -- the machine with its disks


async def test_a_machine_moves_with_both_its_disks(world: World) -> None:
    other = await world.second_host()
    vm, disks, there = await machine(world)
    source = world.get("VM", vm)["resident_on"]
    target = other if source == world.host else world.host
    task = await world.call(
        "Async.VM.migrate_send", vm, await dest(world, target), True, dict.fromkeys(disks, there), {}, {}
    )
    record = await ended(world, task)
    assert (record["status"], record["error_info"]) == ("success", [])
    assert vm in record["result"]
    assert world.get("VM", vm)["resident_on"] == target
    assert {world.get("VDI", world.get("VBD", vbd)["VDI"])["SR"] for vbd in world.get("VM", vm)["VBDs"]} == {there}
    await until(lambda: world.reconciler.quiet)
    world.assert_nothing_orphaned()


async def test_one_of_two_cannot_be_exchanged_at_the_last_moment(world: World) -> None:
    """The other has moved by then: it stays there, and the one stays here."""
    vm, disks, there = await machine(world)
    pivot = world.hypervisor.disk_pivot
    asked: list[int] = []

    async def only_the_first(uuid: str, start_id: str, device: int, to: Any) -> None:
        asked.append(device)
        if device != asked[0]:
            raise SeamError("BAD_STATE", "it is not in step")
        await pivot(uuid, start_id, device, to)

    world.hypervisor.disk_pivot = only_the_first  # type: ignore[method-assign]
    where = await dest(world, world.host)
    code, stays = await refusal(world, "VM.migrate_send", vm, where, True, dict.fromkeys(disks, there), {}, {})
    assert code == "MIRROR_FAILED"
    assert world.get("VDI", stays)["SR"] != there
    (moved,) = [world.get("VDI", ref) for ref in world.get("SR", there)["VDIs"]]
    assert {moved["name_label"], world.get("VDI", stays)["name_label"]} == {"web1 root", "data"}
    assert running(world, vm).domain.state == "running"
    assert not any((world.get("VM", vm)["uuid"], device) in world.hypervisor.mirrors for device in (0, 1))
    await until(lambda: world.reconciler.quiet)
    world.assert_nothing_orphaned()


async def test_a_halted_machine_goes_with_its_disks(world: World) -> None:
    vm, disks, there = await machine(world, state="Halted")
    where = await dest(world, world.host)
    assert await world.call("VM.migrate_send", vm, where, False, dict.fromkeys(disks, there), {}, {}) == vm
    assert {world.get("VDI", world.get("VBD", vbd)["VDI"])["SR"] for vbd in world.get("VM", vm)["VBDs"]} == {there}
    await world.call("VM.start", vm, False, False)
    world.assert_nothing_orphaned()


async def test_what_is_asked_for_in_vain(world: World) -> None:
    vm, (vdi, data), there = await machine(world)
    where, before = await dest(world, world.host), world.snapshot()
    stranger = await world.make_vdi(there, "of nobody")
    vif_map: dict[str, str] = {}

    async def refused(to: dict[str, str], live: bool, vdis: dict[str, str], options: dict[str, str]) -> list[str]:
        check = await refusal(world, "VM.assert_can_migrate", vm, to, live, vdis, vif_map, options)
        assert await refusal(world, "VM.assert_can_migrate_sender", vm, to, live, vdis, vif_map, {}, options) == check
        assert await refusal(world, "VM.migrate_send", vm, to, live, vdis, vif_map, options) == check
        return check

    assert (await refused({}, True, {vdi: there}, {}))[0] == "OPERATION_NOT_ALLOWED"
    assert (await refused({"host": NULL_REF}, True, {vdi: there}, {}))[0] == "OPERATION_NOT_ALLOWED"
    assert await refused(where, False, {vdi: there}, {}) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    assert (await refused(where, True, {vdi: there}, {"copy": "true"}))[0] == "OPERATION_NOT_ALLOWED"
    assert await refused(where, True, {stranger: there}, {}) == ["INVALID_VALUE", "vdi_map", stranger]
    await world.call("VDI.enable_cbt", data)
    assert await refused(where, True, {vdi: there, data: there}, {}) == ["VDI_CBT_ENABLED", data]
    await world.call("VDI.disable_cbt", data)
    await world.call("VDI.destroy", stranger)
    assert world.snapshot() == before
    await world.call("VM.assert_can_migrate", vm, where, True, {vdi: there, data: there}, {}, {})
    assert world.snapshot() == before
    assert await refusal(world, "host.migrate_receive", world.host, NULL_REF, {}) == [
        "HANDLE_INVALID",
        "network",
        NULL_REF,
    ]


async def test_disks_of_snapshots_may_be_named_and_stay(world: World) -> None:
    """Some clients name every disk that has to do with the VM."""
    vm, disks, there = await machine(world)
    snapshot = await world.call("VM.snapshot", vm, "monday")
    kept = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", snapshot)["VBDs"]]
    everything = dict.fromkeys([*disks, *kept], there)
    await world.call("VM.migrate_send", vm, await dest(world, world.host), True, everything, {}, {})
    assert all(world.get("VDI", one)["SR"] != there for one in kept)
    assert len(world.get("SR", there)["VDIs"]) == 2
    world.assert_nothing_orphaned()
