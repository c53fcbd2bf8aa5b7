"""Memory of VMs that run: what the guest is to have, what it has, and what is left of the host's."""

import asyncio
from typing import Any

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until


async def refusal(world: World, method: str, *params: Any) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def started(world: World, behaviour: GuestBehaviour | None = None, **fields: Any) -> str:
    """At most 128 MiB, of which it is to have a half."""
    fields = {"memory_static_min": 16 * MIB, "memory_dynamic_min": 64 * MIB, "memory_dynamic_max": 64 * MIB, **fields}
    vm = await world.make_vm(**fields)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], behaviour or GuestBehaviour())
    await world.call("VM.start", vm, False, False)
    await until(lambda: domain(world, vm).booted and world.reconciler.quiet)
    return vm


def domain(world: World, vm: str) -> Any:
    return world.hypervisor._running[world.get("VM", vm)["uuid"]]


def memory(world: World, vm: str) -> tuple[int, int]:
    """What the guest has, in MiB, and what its metrics say."""
    metrics = world.get("VM_metrics", world.get("VM", vm)["metrics"])
    return domain(world, vm).domain.memory_bytes // MIB, metrics["memory_actual"] // MIB


async def test_a_guest_has_what_its_dynamic_range_says(world: World) -> None:
    vm = await started(world)
    assert (domain(world, vm).memory_max_bytes, memory(world, vm)) == (128 * MIB, (64, 64))
    for high in (96, 128, 80):
        await world.call("VM.set_memory_dynamic_range", vm, 64 * MIB, high * MIB)
        await until(lambda: memory(world, vm) == (high, high))  # noqa: B023 - called before the next one
        assert world.get("VM", vm)["memory_dynamic_max"] == high * MIB
        await world.call("VM.wait_memory_target_live", vm)
    await world.call("VM.set_memory_dynamic_min", vm, 32 * MIB)
    await world.call("VM.set_memory_dynamic_max", vm, 48 * MIB)
    await world.call("VM.set_memory_target_live", vm, 72 * MIB)
    record = world.get("VM", vm)
    assert (record["memory_dynamic_min"], record["memory_dynamic_max"]) == (72 * MIB, 72 * MIB)
    await until(lambda: memory(world, vm) == (72, 72))
    assert await world.call("VM.get_cooperative", vm)


async def test_what_was_given_back_others_can_have(world: World) -> None:
    free = await world.call("host.compute_free_memory", world.host)
    vm = await started(world)
    overhead = await world.call("VM.compute_memory_overhead", vm)
    assert await world.call("host.compute_free_memory", world.host) == free - 64 * MIB - overhead
    await world.call("VM.set_memory_dynamic_range", vm, 64 * MIB, 96 * MIB)
    assert await world.call("host.compute_free_memory", world.host) == free - 96 * MIB - overhead
    await world.call("VM.hard_shutdown", vm)
    assert await world.call("host.compute_free_memory", world.host) == free


async def test_what_a_guest_keeps_is_not_given_to_others(world: World) -> None:
    free = await world.call("host.compute_free_memory", world.host)
    vm = await started(world, GuestBehaviour(has_balloon=False))
    overhead = await world.call("VM.compute_memory_overhead", vm)
    assert memory(world, vm) == (128, 128)
    assert await world.call("host.compute_free_memory", world.host) == free - 128 * MIB - overhead
    assert await world.call("host.get_uncooperative_resident_VMs", world.host) == [vm]
    assert not await world.call("VM.get_cooperative", vm)
    waiting = asyncio.create_task(refusal(world, "VM.wait_memory_target_live", vm))

    def over() -> bool:
        world.clock.advance(1)
        return waiting.done()

    await until(over)
    assert await waiting == ["VM_MEMORY_TARGET_WAIT_TIMEOUT"]


async def test_memory_that_the_host_has_not_got_is_not_promised(world: World) -> None:
    vm = await started(world)
    total = await world.call("host.compute_free_memory", world.host)
    overhead = await world.call("VM.compute_memory_overhead", vm)
    most = (total - overhead) // MIB * MIB - 8 * MIB
    other = await world.make_vm("other", memory_static_max=most, memory_dynamic_max=most)
    await world.call("VM.start", other, False, False)
    free = await world.call("host.compute_free_memory", world.host)
    assert free < 16 * MIB
    before = world.snapshot()
    refused = await refusal(world, "VM.set_memory_dynamic_range", vm, 64 * MIB, 96 * MIB)
    assert refused == ["HOST_NOT_ENOUGH_FREE_MEMORY", str(32 * MIB), str(free)]
    assert world.snapshot() == before
    await world.call("VM.set_memory_dynamic_range", vm, 64 * MIB, 68 * MIB)


async def test_limits_keep_their_order(world: World) -> None:
    vm = await started(world)
    before = world.snapshot()
    order = ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]
    assert await refusal(world, "VM.set_memory_dynamic_range", vm, 96 * MIB, 64 * MIB) == order
    assert await refusal(world, "VM.set_memory_dynamic_max", vm, 256 * MIB) == order
    assert await refusal(world, "VM.set_memory_target_live", vm, 0) == order
    bad = ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    assert await refusal(world, "VM.set_memory_static_max", vm, 256 * MIB) == bad
    assert world.snapshot() == before
    await world.call("VM.pause", vm)
    bad = ["VM_BAD_POWER_STATE", vm, "halted, running", "paused"]
    assert await refusal(world, "VM.set_memory_dynamic_max", vm, 96 * MIB) == bad
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.set_memory_dynamic_range", vm, 32 * MIB, 32 * MIB)
    bad = ["VM_BAD_POWER_STATE", vm, "running", "halted"]
    assert await refusal(world, "VM.set_memory_target_live", vm, 32 * MIB) == bad


async def test_a_balloon_survives_a_suspend(world: World) -> None:
    vm = await started(world)
    await world.call("VM.set_suspend_SR", vm, await world.make_sr())
    await world.call("VM.set_memory_dynamic_range", vm, 64 * MIB, 96 * MIB)
    await world.call("VM.suspend", vm)
    assert world.get("VDI", world.get("VM", vm)["suspend_VDI"])["virtual_size"] > 128 * MIB
    await world.call("VM.resume", vm, False, False)
    await until(lambda: memory(world, vm) == (96, 96))
    await world.call("VM.set_memory_dynamic_range", vm, 64 * MIB, 128 * MIB)


async def test_firmware_tells_what_it_was_given_once(world: World) -> None:
    vm = await world.make_vm()
    given = {"bios-vendor": "ACME", "system-serial-number": "42", "enclosure-asset-tag": "rack 3"}
    assert await refusal(world, "VM.set_bios_strings", vm, {"hp-rombios": "x"}) == [
        *("INVALID_VALUE", "hp-rombios", "Unknown key")
    ]
    for text in ("", "x" * 513, "bell\a"):
        assert (await refusal(world, "VM.set_bios_strings", vm, {"bios-vendor": text}))[0] == "INVALID_VALUE"
    await world.call("VM.set_bios_strings", vm, given)
    assert await refusal(world, "VM.set_bios_strings", vm, given) == ["VM_BIOS_STRINGS_ALREADY_SET"]
    assert await refusal(world, "VM.copy_bios_strings", vm, world.host) == ["VM_BIOS_STRINGS_ALREADY_SET"]
    await world.call("VM.start", vm, False, False)
    assert domain(world, vm).bios_strings == given
    clone = await world.make_vm("clone")
    await world.call("VM.copy_bios_strings", clone, world.host)
    assert world.get("VM", clone)["bios_strings"]["system-manufacturer"] == "Fake Inc."
    await world.call("VM.start", clone, False, False)
    running = await world.make_vm("running")
    await world.call("VM.start", running, False, False)
    assert (await refusal(world, "VM.set_bios_strings", running, given))[0] == "VM_BAD_POWER_STATE"


async def test_keys_and_buttons(world: World) -> None:
    vm = await started(world)
    await world.call("VM.send_sysrq", vm, "s")
    await world.call("VM.send_trigger", vm, "nmi")
    assert domain(world, vm).pressed == ["sysrq-s", "nmi"]
    assert await refusal(world, "VM.send_sysrq", vm, "ss") == ["INVALID_VALUE", "key", "ss"]
    assert await refusal(world, "VM.send_trigger", vm, "sleep") == ["INVALID_VALUE", "trigger", "sleep"]
    await world.call("VM.send_trigger", vm, "power")
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    assert (await refusal(world, "VM.send_trigger", vm, "nmi"))[0] == "VM_BAD_POWER_STATE"
