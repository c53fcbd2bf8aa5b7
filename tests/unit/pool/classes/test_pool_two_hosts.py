"""VMs on two hosts: where they start, that they move while they run, and a host that is emptied and switched off."""

from typing import Any

import pytest

from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def test_a_vm_starts_where_it_is_told_and_moves_with_its_disks(world: World) -> None:
    other = await world.second_host()
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, other, False, False)
    assert world.get("VM", vm)["resident_on"] == other
    before, consoles = world.openings(), world.get("VM", vm)["consoles"]

    await world.call("VM.pool_migrate", vm, world.host, {"live": "true"})
    assert world.get("VM", vm)["resident_on"] == world.host
    assert world.get("VM", vm)["power_state"] == "Running"
    assert len(world.openings()) == 1
    assert world.openings() != before  # another name, another secret
    assert world.get("VM", vm)["consoles"] != consoles
    world.assert_nothing_orphaned()

    at_rest = world.snapshot()
    await world.call("VM.pool_migrate", vm, world.host, {})
    assert world.snapshot() == at_rest


async def test_what_cannot_move(world: World) -> None:
    other = await world.second_host()
    vm = await world.make_vm()
    assert (await refusal(world, "VM.pool_migrate", vm, other, {}))[0] == "VM_BAD_POWER_STATE"
    await world.call("VM.start", vm, False, False)
    here = world.get("VM", vm)["resident_on"]
    there = other if here == world.host else world.host
    await world.call("host.disable", there)
    before = world.snapshot()
    assert await refusal(world, "VM.pool_migrate", vm, there, {}) == ["HOST_DISABLED", there]
    assert world.snapshot() == before


async def test_a_machine_that_ends_on_its_way_is_stopped_and_nothing_is_left(world: World) -> None:
    """The source lost it, and the destination has nothing whole."""
    other = await world.second_host()
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, world.host, False, False)
    uuid = world.get("VM", vm)["uuid"]
    send = world.hypervisor.migrate_send

    async def lose(request: object, relay: object) -> None:
        await world.hypervisor.crash(uuid)
        await send(request, relay)  # type: ignore[arg-type]

    world.hypervisor.migrate_send = lose  # type: ignore[assignment, method-assign]
    assert (await refusal(world, "VM.pool_migrate", vm, other, {}))[0] == "VM_MIGRATE_FAILED"
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    await until(lambda: not world.openings())
    world.assert_nothing_orphaned()


async def test_a_source_that_falls_silent_keeps_its_machine_if_nothing_has_arrived(world: World) -> None:
    source = await world.second_host()
    (far,) = world.far.values()
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, source, False, False)
    before = world.openings()

    async def fall_silent(request: object, relay: object) -> None:
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    far.hypervisor.migrate_send = fall_silent  # type: ignore[assignment, method-assign]
    assert (await refusal(world, "VM.pool_migrate", vm, world.host, {}))[0] == "VM_MIGRATE_FAILED"
    assert world.openings() == before
    assert world.get("VM", vm)["resident_on"] == source
    assert not world.hypervisor._running
    world.assert_nothing_orphaned()


async def test_a_machine_that_has_arrived_waits_for_what_a_silent_source_says(world: World) -> None:
    """It may run there still: nothing but the source can say that it does not."""
    source = await world.second_host()
    (far,) = world.far.values()
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, source, False, False)
    send = far.hypervisor.migrate_send

    async def send_and_fall_silent(request: Any, relay: Any) -> None:
        await send(request, relay)
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    far.hypervisor.migrate_send = send_and_fall_silent  # type: ignore[method-assign]
    assert (await refusal(world, "VM.pool_migrate", vm, world.host, {}))[0] == "VM_MIGRATE_FAILED"
    assert world.work.stalled == ["VM.pool_migrate"]
    (there,) = world.hypervisor._running.values()
    assert there.domain.state == "paused"
    assert len(world.openings()) == 2

    far.reachable = True
    await world.work.retry_stalled()
    assert world.work.stalled == []
    assert world.get("VM", vm)["resident_on"] == world.host
    assert len(world.openings()) == 1
    world.assert_nothing_orphaned()


async def test_work_on_volumes_goes_to_a_host_that_answers(world: World) -> None:
    other = await world.second_host()
    sr = await world.make_sr()
    assert set(attached_hosts(world.db, sr)) == {world.host, other}
    for dead, alive in ((other, world.host), (world.host, other)):
        world.reconciler.agent_down(dead)
        assert attached_hosts(world.db, sr) == [alive, dead]
        await world.reconciler._greet(dead)


async def test_a_host_is_emptied_and_switched_off(world: World) -> None:
    other = await world.second_host()
    sr = await world.make_sr()
    vms = [await world.make_vm_with_disk(sr, f"web{number}") for number in range(3)]
    for vm in vms:
        await world.call("VM.start_on", vm, other, False, False)
    assert await refusal(world, "host.reboot", other) == ["HOST_NOT_DISABLED"]
    await world.call("host.disable", other)
    assert (await refusal(world, "host.shutdown", other))[:2] == ["HOST_IN_USE", other]
    assert await refusal(world, "VM.start_on", await world.make_vm("late"), other, False, False) == [
        "HOST_DISABLED",
        other,
    ]
    assert await world.call("host.get_vms_which_prevent_evacuation", other) == {}
    await world.call("host.assert_can_evacuate", other)
    await world.call("host.evacuate", other)
    assert {world.get("VM", vm)["resident_on"] for vm in vms} == {world.host}
    await world.call("host.reboot", other)
    await world.call("host.shutdown", other)
    (far,) = world.far.values()
    assert far.hypervisor.powered == ["reboot", "off"]
    await world.call("host.enable", other)
    world.assert_nothing_orphaned()


async def test_what_prevents_an_evacuation_is_told_and_nothing_moves(world: World) -> None:
    other = await world.second_host()
    big = await world.make_vm("big", **{f"memory_{name}": 40 * 1024 * MIB for name in LIMITS})
    also = await world.make_vm("also", **{f"memory_{name}": 40 * 1024 * MIB for name in LIMITS})
    await world.call("VM.start_on", big, other, False, False)
    await world.call("VM.start_on", also, world.host, False, False)
    reasons = await world.call("host.get_vms_which_prevent_evacuation", other)
    assert {vm: why[0] for vm, why in reasons.items()} == {big: "HOST_NOT_ENOUGH_FREE_MEMORY"}
    for method in ("host.assert_can_evacuate", "host.evacuate"):
        code, text = await refusal(world, method, other)
        assert code == "CANNOT_EVACUATE_HOST"
        assert text.startswith("HOST_NOT_ENOUGH_FREE_MEMORY,")
    assert world.get("VM", big)["resident_on"] == other
    network = next(iter(world.db.all("network")))
    assert (await refusal(world, "host.evacuate", other, network))[0] == "OPERATION_NOT_ALLOWED"


LIMITS = ("static_min", "dynamic_min", "dynamic_max", "static_max")
