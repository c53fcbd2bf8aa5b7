"""A machine on its way to another host: cancelled, measured, given up; and who may write meanwhile."""

import asyncio
from typing import Any

import pytest

from gespann.host.fake.guest import GuestBehaviour
from gespann.seams.host_agent import DomainList
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def running(world: World, host: str) -> str:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, host, False, False)
    return vm


def uuid_of(world: World, vm: str) -> str:
    return str(world.get("VM", vm)["uuid"])


async def begin_to_move(world: World, vm: str, host: str, *, send_s: float = 60.0) -> str:
    """The task; memory is on its way."""
    source = next(one for one in world.hypervisors() if uuid_of(world, vm) in one._running)
    source.behave(uuid_of(world, vm), GuestBehaviour(send_s=send_s))
    task = await world.call("Async.VM.pool_migrate", vm, host, {})
    await until(lambda: uuid_of(world, vm) in source._sending)
    return str(task)


async def ended(world: World, task: str) -> Any:
    await until(lambda: world.get("task", task)["status"] in ("success", "failure", "cancelled"))
    return world.get("task", task)


async def test_cancelled_it_goes_on_where_it_was(world: World) -> None:
    other = await world.second_host()
    vm = await running(world, world.host)
    before, names = world.openings(), world.snapshot()
    task = await begin_to_move(world, vm, other)
    assert world.get("task", task)["allowed_operations"] == ["cancel"]
    assert "pool_migrate" in world.get("VM", vm)["current_operations"].values()
    await world.call("task.cancel", task)
    assert (await ended(world, task))["error_info"] == ["TASK_CANCELLED", task]
    assert world.openings() == before
    assert world.snapshot() == names
    assert world.get("VM", vm)["resident_on"] == world.host
    world.assert_nothing_orphaned()
    world.hypervisor.behave(uuid_of(world, vm), GuestBehaviour())
    await world.call("VM.pool_migrate", vm, other, {})
    assert world.get("VM", vm)["resident_on"] == other


async def test_its_consoles_are_at_the_coordinators_address_wherever_it_runs(world: World) -> None:
    """A member's door sends clients on, and a console is no call that could be repeated elsewhere."""
    other = await world.second_host()
    vm = await running(world, world.host)
    await world.call("VM.pool_migrate", vm, other, {})
    consoles = [world.get("console", ref) for ref in world.get("VM", vm)["consoles"]]
    assert {one["protocol"] for one in consoles} == {"vt100", "rfb"}
    assert all(one["location"].startswith("https://10.0.0.5/console?uuid=") for one in consoles)


async def test_too_late_to_cancel_it_moves_and_says_so(world: World) -> None:
    other = await world.second_host()
    vm = await running(world, world.host)
    reached, go_on = asyncio.Event(), asyncio.Event()
    hand_over = world.driver.hand_over

    async def wait(*args: Any) -> None:
        reached.set()
        await go_on.wait()
        await hand_over(*args)

    world.driver.hand_over = wait  # type: ignore[method-assign]
    task = await world.call("Async.VM.pool_migrate", vm, other, {})
    await reached.wait()
    assert world.get("task", task)["allowed_operations"] == []
    assert await refusal(world, "task.cancel", task) == ["OPERATION_NOT_ALLOWED", "This task cannot be cancelled"]
    go_on.set()
    assert (await ended(world, task))["status"] == "success"
    assert world.get("VM", vm)["resident_on"] == other


async def test_progress_and_the_time_it_stood_still_are_told(world: World) -> None:
    other = await world.second_host()
    vm = await running(world, world.host)
    task = await begin_to_move(world, vm, other, send_s=0.2)
    while world.get("task", task)["progress"] < 0.4:
        world.clock.advance(1.0)
        await asyncio.sleep(0)
    record = await ended(world, task)
    assert int(record["other_config"]["downtime_ms"]) >= 20
    (message,) = [one for one in world.db.all("message").values() if one["name"] == "VM_MIGRATED"]
    assert message["body"].endswith(f"it stood still for {record['other_config']['downtime_ms']} ms")


async def test_until_the_right_has_moved_the_array_refuses_what_the_destination_writes(world: World) -> None:
    """Somebody lets it go on there too early: it stops at its first write, and the source is not disturbed."""
    other = await world.second_host()
    (far,) = world.far.values()
    vm = await running(world, world.host)
    hand_over = world.driver.hand_over
    seen: list[str] = []

    async def look(*args: Any) -> None:
        await far.hypervisor.unpause(uuid_of(world, vm))
        seen.append(far.hypervisor._running[uuid_of(world, vm)].domain.reason)
        await hand_over(*args)

    world.driver.hand_over = look  # type: ignore[method-assign]
    await world.call("VM.pool_migrate", vm, other, {})
    assert seen == ["ioerror"]
    assert far.hypervisor._running[uuid_of(world, vm)].domain.state == "running"


async def test_a_destination_that_falls_silent_is_not_waited_for(world: World) -> None:
    other = await world.second_host()
    (far,) = world.far.values()
    vm = await running(world, world.host)
    before = world.openings()

    async def fall_silent(request: object, relay: object) -> None:
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    world.hypervisor.migrate_send = fall_silent  # type: ignore[assignment, method-assign]
    assert (await refusal(world, "VM.pool_migrate", vm, other, {}))[0] == "VM_MIGRATE_FAILED"
    assert world.work.stalled == []
    assert world.openings() == before
    assert world.get("VM", vm)["resident_on"] == world.host


async def arrived_from_a_silent_source(world: World) -> tuple[str, str]:
    """Its memory is here, whole; its old host says nothing any more, and may run it still."""
    source = await world.second_host()
    (far,) = world.far.values()
    vm = await running(world, source)
    send = far.hypervisor.migrate_send

    async def send_and_fall_silent(request: Any, relay: Any) -> None:
        await send(request, relay)
        far.reachable = False
        raise SeamError("HYPERVISOR", "the connection is lost")

    far.hypervisor.migrate_send = send_and_fall_silent  # type: ignore[assignment, method-assign]
    code, _, from_, to, text = await refusal(world, "VM.pool_migrate", vm, world.host, {})
    assert code == "VM_MIGRATE_FAILED"
    assert text.startswith(f"host {from_} does not answer: it may run the machine still, and {to} may have it whole")
    assert world.work.stalled == ["VM.pool_migrate"]
    return vm, source


@pytest.mark.parametrize("way", ["vm", "host"])
async def test_an_administrator_gives_up_a_migration_whose_source_is_silent(world: World, way: str) -> None:
    vm, source = await arrived_from_a_silent_source(world)
    assert (await refusal(world, "VM.start", vm, False, False))[0] == "OTHER_OPERATION_IN_PROGRESS"
    assert "power_state_reset" in world.get("VM", vm)["allowed_operations"]
    if way == "vm":
        await world.call("VM.power_state_reset", vm)
    else:
        assert (await refusal(world, "host.declare_dead", world.host)) == ["HOST_IS_LIVE", world.host]
        world.reconciler.agent_down(source)
        await world.call("host.declare_dead", source)
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.openings() == [], "whatever runs of it anywhere is shut out"
    assert world.work.stalled == []
    assert world.work.journal.entries() == []
    assert not world.hypervisor._running
    await world.call("VM.start_on", vm, world.host, False, False)
    assert world.get("VM", vm)["power_state"] == "Running"
    (far,) = world.far.values()
    far.reachable = True
    await world.reconciler.sweep()
    reply = await world.agent.call(DomainList())
    assert [domain.state for domain in reply.domains] == ["running"]
    world.assert_nothing_orphaned()


async def test_a_crash_while_a_migration_is_given_up(world: World) -> None:
    """The one operation takes the place of the other in one transaction; the next coordinator finishes it."""
    vm, _ = await arrived_from_a_silent_source(world)
    world.storage.reachable = False
    await refusal(world, "VM.power_state_reset", vm)
    assert [entry.operation for entry in world.work.journal.entries()] == ["VM.power_state_reset"]
    await world.power_cut()
    world.storage.reachable = True
    await world.boot()
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.openings() == []
    assert world.work.journal.entries() == []


async def test_a_reset_ends_a_migration_that_is_under_way(world: World) -> None:
    other = await world.second_host()
    vm = await running(world, world.host)
    task = await begin_to_move(world, vm, other)
    await world.call("VM.power_state_reset", vm)
    assert (await ended(world, task))["status"] == "cancelled"
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.openings() == []
