"""Two clients ask for opposite things of one object at the same moment: one is served, the other is told."""

import asyncio

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB

#: how the later one may be refused: the first is at work, or has been
BUSY = "OTHER_OPERATION_IN_PROGRESS"


async def outcome(work) -> str:
    try:
        await work
    except XenApiError as error:
        return error.code
    return "done"


async def at_once(*works) -> list[str]:
    return list(await asyncio.gather(*(outcome(work) for work in works)))


async def machine(world, state: str) -> str:
    vm = await world.make_vm_with_disk(await world.make_sr())
    if state != "Halted":
        await world.call("VM.start", vm, state == "Paused", False)
    assert world.get("VM", vm)["power_state"] == state
    return vm


@pytest.mark.parametrize(
    ("state", "first", "second"),
    [
        ("Halted", ("VM.start", False, False), ("VM.start", False, False)),
        ("Halted", ("VM.start", False, False), ("VM.destroy",)),
        ("Halted", ("VM.start", False, False), ("VM.clone", "copy")),
        ("Halted", ("VM.destroy",), ("VM.start", False, False)),
        ("Running", ("VM.clean_reboot",), ("VM.clean_shutdown",)),
        ("Running", ("VM.pause",), ("VM.hard_reboot",)),
        ("Running", ("VM.hard_shutdown",), ("VM.hard_reboot",)),
        ("Paused", ("VM.unpause",), ("VM.hard_reboot",)),
    ],
)
async def test_machine_does_one_of_the_two(world, state, first, second):
    vm = await machine(world, state)
    calls = [world.call(method, vm, *params) for method, *params in (first, second)]
    assert await at_once(*calls) == ["done", BUSY]
    world.assert_nothing_orphaned()


async def test_refusal_names_the_object(world):
    vm = await machine(world, "Halted")
    results = await asyncio.gather(
        world.call("VM.start", vm, False, False), world.call("VM.destroy", vm), return_exceptions=True
    )
    refused = results[1]
    assert isinstance(refused, XenApiError)
    assert [refused.code, *refused.params][:3] == [BUSY, "VM", vm]


@pytest.mark.parametrize("second", [("VDI.destroy",), ("VDI.resize", 90 * MIB), ("VDI.clone", {})])
async def test_disk_does_one_of_the_two(world, second):
    vdi = await world.make_vdi(await world.make_sr())
    method, *params = second
    outcomes = await at_once(world.call("VDI.resize", vdi, 60 * MIB), world.call(method, vdi, *params))
    assert outcomes == ["done", BUSY]
    assert world.get("VDI", vdi)["virtual_size"] == 60 * MIB


async def test_disk_is_plugged_or_destroyed(world):
    vm = await machine(world, "Running")
    vdi = await world.make_vdi(next(iter(world.db.all("SR"))), "second")
    vbd = await world.make_vbd(vm, vdi)
    assert await at_once(world.call("VBD.plug", vbd), world.call("VDI.destroy", vdi)) == ["done", BUSY]
    assert await at_once(world.call("VBD.unplug", vbd), world.call("VBD.plug", vbd)) == ["done", BUSY]
    assert world.get("VBD", vbd)["currently_attached"] is False
    world.assert_nothing_orphaned()


async def test_storage_is_filled_or_forgotten(world):
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    first, second = await at_once(world.make_vdi(sr), world.call("PBD.unplug", pbd))
    assert first == "done"
    assert second in (BUSY, "done")
    world.assert_nothing_orphaned()


async def test_ten_clients_start_one_machine(world):
    vm = await machine(world, "Halted")
    outcomes = await at_once(*(world.call("VM.start", vm, False, False) for _ in range(10)))
    assert sorted(outcomes) == [*[BUSY] * 9, "done"]
    assert world.get("VM", vm)["power_state"] == "Running"


async def test_loser_may_ask_again(world):
    vm = await machine(world, "Halted")
    await at_once(world.call("VM.start", vm, False, False), world.call("VM.hard_shutdown", vm))
    assert await outcome(world.call("VM.hard_shutdown", vm)) == "done"
    assert world.get("VM", vm)["power_state"] == "Halted"


async def sleeper(world, state: str) -> str:
    """A machine with a place for its memory."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.set_suspend_SR", vm, sr)
    await world.call("VM.start", vm, False, False)
    if state == "Paused":
        await world.call("VM.pause", vm)
    elif state == "Suspended":
        await world.call("VM.suspend", vm)
    return vm


@pytest.mark.parametrize(
    ("state", "first", "second"),
    [
        ("Running", ("VM.suspend",), ("VM.suspend",)),
        ("Running", ("VM.suspend",), ("VM.checkpoint", "monday")),
        ("Running", ("VM.suspend",), ("VM.clean_shutdown",)),
        ("Running", ("VM.suspend",), ("VM.set_memory_target_live", 96 * MIB)),
        ("Running", ("VM.checkpoint", "monday"), ("VM.suspend",)),
        ("Running", ("VM.checkpoint", "monday"), ("VM.checkpoint", "tuesday")),
        ("Running", ("VM.checkpoint", "monday"), ("VM.hard_shutdown",)),
        ("Running", ("VM.checkpoint", "monday"), ("VM.pause",)),
        ("Paused", ("VM.checkpoint", "monday"), ("VM.unpause",)),
        ("Suspended", ("VM.resume", False, False), ("VM.resume", False, False)),
        ("Suspended", ("VM.resume", False, False), ("VM.hard_shutdown",)),
        ("Suspended", ("VM.resume", False, False), ("VM.checkpoint", "monday")),
        ("Suspended", ("VM.checkpoint", "monday"), ("VM.resume", False, False)),
        ("Suspended", ("VM.snapshot", "monday"), ("VM.resume", False, False)),
        ("Suspended", ("VM.hard_shutdown",), ("VM.snapshot", "monday")),
    ],
)
async def test_one_of_two_has_the_memory(world, state, first, second):
    vm = await sleeper(world, state)
    calls = [world.call(method, vm, *params) for method, *params in (first, second)]
    assert await at_once(*calls) == ["done", BUSY]
    assert world.work.journal.entries() == []
    world.assert_nothing_orphaned()


async def test_ten_clients_wake_one_machine(world):
    vm = await sleeper(world, "Suspended")
    outcomes = await at_once(*(world.call("VM.resume", vm, False, False) for _ in range(10)))
    assert sorted(outcomes) == [*[BUSY] * 9, "done"]
    assert world.get("VM", vm)["power_state"] == "Running"
    world.assert_nothing_orphaned()


async def test_suspend_and_hard_shutdown_at_once_the_power_cord_wins(world):
    """It does not wait for a memory that nobody will want."""
    vm = await sleeper(world, "Running")
    outcomes = await at_once(world.call("VM.suspend", vm), world.call("VM.hard_shutdown", vm))
    assert outcomes in (["TASK_CANCELLED", "done"], ["done", BUSY])
    if outcomes[1] == "done":
        assert world.get("VM", vm)["power_state"] == "Halted"
    world.assert_nothing_orphaned()
