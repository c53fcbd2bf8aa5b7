"""A host dies, somebody tries what one tries first, and then says that it is dead."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gespann.seams.host_agent import DomainList
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.far_hosts import FarHost
from tests.unit.pool.world import World, until, vif_fields

Wanted = Callable[[World, str], Awaitable[Any]]


async def refusal(call: Awaitable[Any]) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await call
    return [refused.value.code, *map(str, refused.value.params)]


async def machine(world: World) -> str:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.set_suspend_SR", vm, sr)
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    return vm


def falls_silent_in(far: FarHost, method: str) -> None:
    """It does what it is asked for, and nobody ever hears of it."""
    real = getattr(far.hypervisor, method)

    async def do(*args: Any, **named: Any) -> Any:
        await real(*args, **named)
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    setattr(far.hypervisor, method, do)


def of(method: str) -> Wanted:
    async def call(world: World, vm: str) -> None:
        await world.call(method, vm, *(["quiet"] if "snapshot" in method or "checkpoint" in method else []))

    return call


async def unplug_nic(world: World, vm: str) -> None:
    await world.call("VIF.unplug", world.get("VM", vm)["VIFs"][0])


async def unplug_disk(world: World, vm: str) -> None:
    await world.call("VBD.unplug", world.get("VM", vm)["VBDs"][0])


async def move_disk(world: World, vm: str) -> None:
    other = await world.make_sr("other")
    (vdi,) = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]]
    await world.call("VDI.pool_migrate", vdi, other, {})


TRIED: dict[str, tuple[str, Wanted]] = {
    "hard_shutdown": ("destroy", of("VM.hard_shutdown")),
    "clean_shutdown": ("destroy", of("VM.clean_shutdown")),
    "hard_reboot": ("reset", of("VM.hard_reboot")),
    "pause": ("pause", of("VM.pause")),
    "suspend": ("destroy", of("VM.suspend")),
    "checkpoint": ("memory_save", of("VM.checkpoint")),
    "snapshot_with_quiesce": ("guest_freeze", of("VM.snapshot_with_quiesce")),
    "unplug_nic": ("nic_detach", unplug_nic),
    "unplug_disk": ("disk_detach", unplug_disk),
    "copy a disk": ("disk_mirror", move_disk),
    "exchange a disk": ("disk_pivot", move_disk),
}


@pytest.mark.parametrize("way", ["vm", "host"])
@pytest.mark.parametrize("tried", TRIED)
async def test_what_waits_for_a_dead_host_does_not_keep_it_from_being_declared_dead(
    world: World, tried: str, way: str
) -> None:
    host = await world.second_host()
    (far,) = world.far.values()
    vm = await machine(world)
    await world.call("VM.start_on", vm, host, False, False)
    await until(lambda: all(running.has_address for running in far.hypervisor._running.values()))
    method, want = TRIED[tried]
    falls_silent_in(far, method)
    why = await refusal(want(world, vm))
    assert world.work.stalled, f"it waits for a host that will not come back: {why}"
    world.reconciler.agent_down(host)
    await given_up(world, vm, host, way)
    await starts_elsewhere_and_the_lost_host_comes_back(world, vm, far)


async def test_a_start_that_waits_for_a_dead_host_to_be_undone(world: World) -> None:
    """The VM has no start yet that would show it there."""
    host = await world.second_host()
    (far,) = world.far.values()
    vm = await machine(world)
    falls_silent_in(far, "create")
    await refusal(world.call("VM.start_on", vm, host, False, False))
    assert world.work.stalled == ["VM.start"]
    world.reconciler.agent_down(host)
    await given_up(world, vm, host, "host")
    await starts_elsewhere_and_the_lost_host_comes_back(world, vm, far)


async def given_up(world: World, vm: str, host: str, way: str) -> None:
    if way == "vm":
        await world.call("VM.power_state_reset", vm)
    else:
        await world.call("host.declare_dead", host)
    saved = world.db.find("VDI", world.get("VM", vm)["suspend_VDI"]) is not None
    assert not (saved and way == "vm"), "a reset throws the memory away"
    assert world.get("VM", vm)["power_state"] == ("Suspended" if saved else "Halted")
    assert world.openings() == [], "the array has shut out whatever may run there"
    assert world.work.stalled == []
    assert world.work.journal.entries() == []
    assert world.get("VM", vm)["current_operations"] == {}


async def starts_elsewhere_and_the_lost_host_comes_back(world: World, vm: str, far: FarHost) -> None:
    back = "VM.start_on" if world.get("VM", vm)["power_state"] == "Halted" else "VM.resume_on"
    await world.call(back, vm, world.host, False, False)
    far.hypervisor.__dict__.pop("destroy", None)
    far.reachable = True
    world.reconciler.agent_up(
        next(ref for ref, host in world.db.all("host").items() if host["hostname"] == far.hostname)
    )
    await until(lambda: world.reconciler.quiet and not far.hypervisor._running)
    assert [domain.state for domain in (await world.agent.call(DomainList())).domains] == ["running"]
    world.assert_nothing_orphaned()


async def test_the_log_tells_when_what_had_to_wait_is_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    host = await world.second_host()
    (far,) = world.far.values()
    vm = await machine(world)
    await world.call("VM.start_on", vm, host, False, False)
    falls_silent_in(far, "destroy")
    await refusal(world.call("VM.hard_shutdown", vm))
    assert "VM.hard_shutdown cannot be finished now" in caplog.text
    far.hypervisor.__dict__.pop("destroy")
    far.reachable = True
    await world.work.retry_stalled()
    assert "VM.hard_shutdown is finished now" in caplog.text
    assert world.get("VM", vm)["power_state"] == "Halted"


async def test_a_host_that_answers_is_asked(world: World) -> None:
    """A reset while the host is there waits for the host's own word on what is still under way."""
    host = await world.second_host()
    (far,) = world.far.values()
    vm = await machine(world)
    await world.call("VM.start_on", vm, host, False, False)
    falls_silent_in(far, "destroy")
    await refusal(world.call("VM.hard_shutdown", vm))
    assert world.work.stalled == ["VM.hard_shutdown"]
    assert (await refusal(world.call("VM.power_state_reset", vm)))[0] == "OTHER_OPERATION_IN_PROGRESS"
    assert world.work.stalled == ["VM.hard_shutdown"]
