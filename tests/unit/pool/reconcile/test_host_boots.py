"""A host that has started anew: what ran on it does not run, and it takes VMs again unless it was told not to."""

from tests.unit.pool.far_hosts import FarHost
from tests.unit.pool.world import World, until


async def start_anew(world: World, far: FarHost, host: str) -> None:
    """Its machines are gone, and its agent is back."""
    far.hypervisor._running.clear()
    far.hypervisor.storage.open_now.clear()  # type: ignore[attr-defined]
    far.hypervisor.boot_id += " and again"
    world.reconciler.agent_down(host)
    world.reconciler.agent_up(host)
    live = world.get("host", host)["metrics"]
    await until(lambda: world.reconciler.quiet and world.get("host_metrics", live)["live"])


async def test_a_host_that_was_disabled_is_enabled_when_it_has_started_anew(world: World) -> None:
    far = await world.make_far_host()
    host = await world.join(far)
    await world.call("host.disable", host)
    world.reconciler.agent_up(host)  # only its agent was away
    await until(lambda: world.reconciler.quiet)
    await world.power_cut()
    await world.boot()
    assert not world.get("host", host)["enabled"]
    await start_anew(world, far, host)
    assert world.get("host", host)["enabled"]

    await world.call("host.disable", host, False)
    await start_anew(world, far, host)
    assert not world.get("host", host)["enabled"]
    await world.call("host.enable", host)
    await world.call("host.disable", host, True)
    await start_anew(world, far, host)
    assert world.get("host", host)["enabled"]


async def test_what_ran_on_a_host_that_lost_power_is_halted_and_can_be_started_elsewhere(world: World) -> None:
    sr = await world.make_sr()
    far = await world.make_far_host()
    host = await world.join(far)
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.start_on", vm, host, False, False)
    await start_anew(world, far, host)
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and not world.work._under_way)
    assert world.openings() == []
    await world.call("VM.start_on", vm, world.host, False, False)
    world.assert_nothing_orphaned()
