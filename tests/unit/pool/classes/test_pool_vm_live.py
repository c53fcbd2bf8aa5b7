"""What is changed of a VM while it runs, and what is refused then."""

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until


async def refusal(world: World, method: str, *params: object) -> tuple[str, list[str]]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return refused.value.code, refused.value.params


async def started(world: World, **fields: object) -> str:
    vm = await world.make_vm(**fields)
    await world.call("VM.start", vm, False, False)
    return vm


def vcpus(world: World, vm: str) -> tuple[int, int, int]:
    """What the host gives it, what its metrics say, what it starts with."""
    record = world.get("VM", vm)
    domain = world.hypervisor._running[record["uuid"]].domain
    return domain.vcpus, world.get("VM_metrics", record["metrics"])["VCPUs_number"], record["VCPUs_at_startup"]


async def test_vcpus_are_plugged_and_unplugged(world: World) -> None:
    vm = await started(world, VCPUs_max=4)
    for number in (4, 2):
        await world.call("VM.set_VCPUs_number_live", vm, number)
        assert vcpus(world, vm) == (number, number, number)
    assert await refusal(world, "VM.set_VCPUs_number_live", vm, 5) == ("INVALID_VALUE", ["VCPUs_at_startup", "5"])
    assert await refusal(world, "VM.set_VCPUs_number_live", vm, 0) == ("INVALID_VALUE", ["VCPUs_at_startup", "0"])
    assert vcpus(world, vm) == (2, 2, 2)


async def test_vcpus_survive_a_suspend(world: World) -> None:
    vm = await started(world, VCPUs_max=4)
    await world.call("VM.set_suspend_SR", vm, await world.make_sr())
    await world.call("VM.set_VCPUs_number_live", vm, 3)
    await world.call("VM.suspend", vm)
    await world.call("VM.resume", vm, False, False)
    assert vcpus(world, vm) == (3, 3, 3)
    await world.call("VM.set_VCPUs_number_live", vm, 4)


async def test_a_guest_that_holds_on_to_its_vcpus_keeps_them(world: World) -> None:
    vm = await started(world, VCPUs_max=2, VCPUs_at_startup=2)
    world.hypervisor._sleep = lambda delay: until(lambda: True)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(obeys_unplug=False))
    assert (await refusal(world, "VM.set_VCPUs_number_live", vm, 1))[0] == "OPERATION_NOT_ALLOWED"
    assert vcpus(world, vm) == (2, 2, 2)


async def test_what_only_a_halted_vm_may_change(world: World) -> None:
    vm = await started(world)
    bad = ("VM_BAD_POWER_STATE", [vm, "halted", "running"])
    limits = (64 * MIB, 256 * MIB, 128 * MIB, 256 * MIB)
    for method, params in (
        ("VM.set_VCPUs_max", (2,)),
        ("VM.set_VCPUs_at_startup", (1,)),
        ("VM.set_memory_limits", limits),
        ("VM.set_memory_static_range", (64 * MIB, 256 * MIB)),
        ("VM.set_domain_type", ("hvm",)),
        ("VM.set_HVM_shadow_multiplier", (2.0,)),
    ):
        assert await refusal(world, method, vm, *params) == bad, method
    assert "changing_VCPUs_live" in world.get("VM", vm)["allowed_operations"]
    await world.call("VM.hard_shutdown", vm)
    halted = ("VM_BAD_POWER_STATE", [vm, "running", "halted"])
    assert await refusal(world, "VM.set_VCPUs_number_live", vm, 1) == halted
    await world.call("VM.set_domain_type", vm, "hvm")
    assert (await refusal(world, "VM.set_domain_type", vm, "pv"))[0] == "VALUE_NOT_SUPPORTED"
    await world.call("VM.set_HVM_shadow_multiplier", vm, 2.0)
    assert world.get("VM", vm)["HVM_shadow_multiplier"] == 2.0
    assert (await refusal(world, "VM.set_HVM_shadow_multiplier", vm, 0.5))[0] == "INVALID_VALUE"


async def test_switched_on_again_a_paused_vm_runs(world: World) -> None:
    vm = await started(world)
    await world.call("VM.pause", vm)
    await world.call("VM.hard_reboot", vm)
    assert world.get("VM", vm)["power_state"] == "Running"
    assert world.hypervisor._running[world.get("VM", vm)["uuid"]].domain.state == "running"


async def test_there_are_no_plugins(world: World) -> None:
    vm = await started(world)
    for method in ("VM.call_plugin", "VM.call_host_plugin"):
        assert await refusal(world, method, vm, "guest", "ping", {}) == ("XENAPI_MISSING_PLUGIN", ["guest"])


async def test_a_default_template_made_a_vm_is_no_default_template(world: World) -> None:
    vm = await world.make_vm(is_a_template=True)
    await world.call("VM.set_is_default_template", vm, True)
    await world.call("VM.set_is_a_template", vm, False)
    assert not world.get("VM", vm)["is_default_template"]
    await world.call("VM.destroy", vm)


async def test_a_blocked_operation_says_why(world: World) -> None:
    vm = await started(world)
    await world.call("VM.add_to_blocked_operations", vm, "hard_shutdown", "it must run on")
    assert await refusal(world, "VM.hard_shutdown", vm) == ("OPERATION_BLOCKED", [vm, "it must run on"])
    assert "hard_shutdown" not in world.get("VM", vm)["allowed_operations"]
    await world.call("VM.remove_from_blocked_operations", vm, "hard_shutdown")
    await world.call("VM.hard_shutdown", vm)
