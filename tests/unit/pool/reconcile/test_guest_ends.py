"""What guests do by themselves, and what their owners want done then: actions_after_shutdown, _reboot and _crash."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.pool.reconcile.test_pool_reconcile import running, uuid_of
from tests.unit.pool.world import World, until


def start_id(world: World, vm: str) -> str:
    found = world.hypervisor._running.get(uuid_of(world, vm))
    return found.domain.start_id if found else ""


async def settled(world: World) -> None:
    await until(lambda: world.reconciler.quiet and not world.work._under_way)


def age(world: World, vm: str, seconds: float) -> None:
    began = (world.clock.now() - timedelta(seconds=seconds)).strftime("%Y%m%dT%H:%M:%SZ")
    with world.db.transaction() as tx:
        tx.set("VM_metrics", world.get("VM", vm)["metrics"], start_time=began)


def crashes(world: World, vm: str) -> list[str]:
    uuid = uuid_of(world, vm)
    found = [m for m in world.db.all("message").values() if m["name"] == "VM_CRASHED" and m["obj_uuid"] == uuid]
    return [message["body"] for message in found]


async def test_a_guest_that_reboots_goes_on(world: World) -> None:
    vm = await running(world, actions_after_reboot="restart")
    first = start_id(world, vm)
    world.hypervisor.guest_reboot(uuid_of(world, vm))
    await settled(world)
    assert (world.get("VM", vm)["power_state"], start_id(world, vm)) == ("Running", first)


async def test_a_guest_that_shall_not_reboot_ends(world: World) -> None:
    vm = await running(world, actions_after_reboot="destroy", actions_after_shutdown="restart")
    world.hypervisor.guest_reboot(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    await settled(world)
    assert (start_id(world, vm), world.openings()) == ("", [])


@pytest.mark.parametrize("method", ["VM.clean_reboot", "VM.hard_reboot"])
async def test_a_reboot_that_was_asked_for_is_not_the_guest_s_own(world: World, method: str) -> None:
    vm = await running(world, actions_after_reboot="destroy")
    first = start_id(world, vm)
    await world.call(method, vm)
    await settled(world)
    assert (world.get("VM", vm)["power_state"], start_id(world, vm)) == ("Running", first)
    world.clock.advance(60)
    world.hypervisor.guest_reboot(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")


async def test_a_reboot_during_another_operation_is_dealt_with_after_it(world: World) -> None:
    vm = await running(world, actions_after_reboot="destroy")
    made = world.driver.volumes_snapshot

    async def reboots_meanwhile(*args: Any) -> Any:
        world.hypervisor.guest_reboot(uuid_of(world, vm))
        return await made(*args)

    world.driver.volumes_snapshot = reboots_meanwhile  # type: ignore[method-assign]
    snapshot = await world.call("VM.snapshot", vm, "monday")
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    assert world.db.find("VM", snapshot) is not None
    world.assert_nothing_orphaned()


@pytest.mark.parametrize("why", ["crash", "guest_panic"])
@pytest.mark.parametrize(
    ("wanted", "then"),
    [
        ("destroy", "Halted"),
        ("coredump_and_destroy", "Halted"),
        ("restart", "Running"),
        ("coredump_and_restart", "Running"),
        ("rename_restart", "Running"),
    ],
)
async def test_a_machine_that_crashes(world: World, wanted: str, then: str, why: str) -> None:
    vm = await running(world, actions_after_crash=wanted)
    first = start_id(world, vm)
    age(world, vm, 300)
    await crash(world, vm, why)
    await until(lambda: start_id(world, vm) != first and world.get("VM", vm)["power_state"] == then)
    await settled(world)
    assert (world.get("VM", vm)["power_state"], bool(start_id(world, vm))) == (then, then == "Running")
    (told,) = crashes(world, vm)
    assert ("no dump" in told) == wanted.startswith("coredump")
    world.assert_nothing_orphaned()


async def crash(world: World, vm: str, why: str) -> None:
    if why == "crash":
        await world.hypervisor.crash(uuid_of(world, vm))
    else:
        world.hypervisor.guest_panic(uuid_of(world, vm))


async def test_a_crash_soon_after_the_start_is_not_repeated(world: World) -> None:
    vm = await running(world, actions_after_crash="restart")
    world.hypervisor.guest_panic(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")
    await settled(world)
    assert start_id(world, vm) == ""


async def test_a_machine_that_is_kept_after_a_crash(world: World) -> None:
    vm = await running(world, actions_after_crash="preserve")
    first = start_id(world, vm)
    world.hypervisor.guest_panic(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Paused")
    for _ in range(2):
        world.reconciler._look_soon(world.host)
        await settled(world)
    assert (start_id(world, vm), len(crashes(world, vm)), len(world.openings())) == (first, 1, 1)
    await world.call("VM.hard_reboot", vm)
    assert world.get("VM", vm)["power_state"] == "Running"
    world.hypervisor.guest_panic(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Paused")
    await world.call("VM.set_actions_after_crash", vm, "destroy")  # whoever has seen enough
    world.reconciler._look_soon(world.host)
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted")


async def test_a_guest_that_gave_up_while_nobody_looked(world: World) -> None:
    vm = await running(world, actions_after_crash="destroy")
    await world.power_cut()
    world.hypervisor._told = lambda event: None
    world.hypervisor.guest_panic(uuid_of(world, vm))
    await world.boot()
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert len(crashes(world, vm)) == 1
    assert world.openings() == []
