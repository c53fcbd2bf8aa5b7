"""Its memory has arrived, and its old host has it no longer; now the destination cannot go on. It ends running there,
as standing still there, or as halted, and says why; it is open to nobody else, and can be started again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.sr_driver import SrError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def running(world: World, host: str) -> tuple[str, str]:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start_on", vm, host, False, False)
    return vm, str(world.get("VM", vm)["uuid"])


def when_it_has_arrived(world: World, happens: Callable[[], Awaitable[None]]) -> None:
    """Before the right to write moves."""
    hand_over = world.driver.hand_over

    async def then(*args: Any) -> None:
        await happens()
        await hand_over(*args)

    world.driver.hand_over = then  # type: ignore[method-assign]


def messages(world: World, name: str) -> list[str]:
    return [one["body"] for one in world.db.all("message").values() if one["name"] == name]


async def halted_and_may_start_again(world: World, vm: str) -> None:
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and not world.work.locks.is_held("VM", vm))
    assert world.openings() == []
    assert world.work.journal.entries() == []
    world.assert_nothing_orphaned()
    await world.call("VM.start", vm, False, False)
    assert world.get("VM", vm)["power_state"] == "Running"
    assert sum(len(one._running) for one in world.hypervisors()) == 1
    assert len(world.openings()) == 1


async def test_its_machine_ends_there_before_it_goes_on(world: World) -> None:
    source = await world.second_host()
    vm, uuid = await running(world, source)
    when_it_has_arrived(world, lambda: world.hypervisor.crash(uuid))
    code, *params = await refusal(world, "VM.pool_migrate", vm, world.host, {})
    assert (code, params[-1]) == ("VM_MIGRATE_FAILED", "it arrived, and its machine ended there before it could go on")
    assert messages(world, "VM_MIGRATED")[0].endswith("its machine ended there before it could go on")
    await until(lambda: len(messages(world, "VM_CRASHED")) == 1)
    await halted_and_may_start_again(world, vm)


@pytest.mark.parametrize("times", [1, 2])
async def test_the_hypervisor_there_does_not_let_it_go_on(world: World, times: int) -> None:
    """Once: that passes. Twice: it is left as it is, with its memory, to whoever asked."""
    other = await world.second_host()
    (far,) = world.far.values()
    vm, uuid = await running(world, world.host)
    far.hypervisor.fail_next("unpause", SeamError("HYPERVISOR", "not now"), times)
    if times == 1:
        await world.call("VM.pool_migrate", vm, other, {})
    else:
        code, *params = await refusal(world, "VM.pool_migrate", vm, other, {})
        assert (code, params[-1]) == ("VM_MIGRATE_FAILED", "it arrived, and stands still there: HYPERVISOR: not now")
        assert world.get("VM", vm)["power_state"] == "Paused"
        assert world.work.stalled == []
        await world.call("VM.unpause", vm)
    assert (world.get("VM", vm)["power_state"], world.get("VM", vm)["resident_on"]) == ("Running", other)
    assert far.hypervisor._running[uuid].domain.state == "running"
    assert len(world.openings()) == 1
    world.assert_nothing_orphaned()


async def silent_destination(world: World) -> tuple[str, str, str]:
    other = await world.second_host()
    (far,) = world.far.values()
    vm, uuid = await running(world, world.host)

    async def fall_silent() -> None:
        far.reachable = False

    when_it_has_arrived(world, fall_silent)
    name = world.get("host", other)["name_label"]
    code, _, _, to, text = await refusal(world, "VM.pool_migrate", vm, other, {})
    assert (code, to) == ("VM_MIGRATE_FAILED", name)
    assert text.startswith(f"host {name} does not answer: the machine has left ")
    assert f"stands still on {name} with its memory" in text
    assert "host-declare-dead" in text
    assert "vm-reset-powerstate" in text
    assert world.work.stalled == ["VM.pool_migrate"]
    assert not world.hypervisor._running, "its old host has it no longer"
    return vm, uuid, other


async def test_a_source_that_falls_silent_before_is_named(world: World) -> None:
    """Nothing has arrived: it is there still, as far as anybody knows."""
    source = await world.second_host()
    (far,) = world.far.values()
    vm, _ = await running(world, source)

    async def fall_silent(*_: object) -> None:
        far.reachable = False
        raise SeamLost("nobody there")

    far.hypervisor.migrate_send = fall_silent  # type: ignore[assignment, method-assign]
    code, *params = await refusal(world, "VM.pool_migrate", vm, world.host, {})
    name = world.get("host", source)["name_label"]
    assert (code, params[-1]) == ("VM_MIGRATE_FAILED", f"host {name} did not answer")
    assert world.get("VM", vm)["resident_on"] == source


async def test_a_destination_that_was_silent_from_the_start_is_named(world: World) -> None:
    other = await world.second_host()
    (far,) = world.far.values()
    vm, uuid = await running(world, world.host)
    far.reachable = False
    here, there = (world.get("host", host)["name_label"] for host in (world.host, other))
    assert await refusal(world, "VM.pool_migrate", vm, other, {}) == [
        *("VM_MIGRATE_FAILED", vm, here, there),
        f"host {there} does not answer: the machine runs on at {here}, and nothing is left to be done",
    ]
    assert world.work.stalled == []
    assert world.hypervisor._running[uuid].domain.state == "running"
    world.assert_nothing_orphaned()


async def test_storage_that_falls_silent_on_the_way_is_named(world: World) -> None:
    other = await world.second_host()
    vm, _ = await running(world, world.host)

    async def fall_silent() -> None:
        raise SrError(171, "Unable to logon to Array. Check IP settings.", "192.0.2.1: no answer within 10 s")

    when_it_has_arrived(world, fall_silent)
    here, there = (world.get("host", host)["name_label"] for host in (world.host, other))
    *_, text = await refusal(world, "VM.pool_migrate", vm, other, {})
    assert text == (
        f"its storage does not answer (192.0.2.1: no answer within 10 s): the machine has left {here}, and stands still"
        f" on {there} with its memory; it goes on there when there is an answer"
    )
    del world.driver.hand_over  # as it was
    await world.work.retry_stalled()
    assert (world.get("VM", vm)["power_state"], world.get("VM", vm)["resident_on"]) == ("Running", other)


async def test_an_agent_that_comes_back_lets_it_go_on(world: World) -> None:
    vm, uuid, other = await silent_destination(world)
    (far,) = world.far.values()
    far.reachable = True
    await world.work.retry_stalled()
    assert (world.get("VM", vm)["power_state"], world.get("VM", vm)["resident_on"]) == ("Running", other)
    assert far.hypervisor._running[uuid].domain.state == "running"
    assert len(world.openings()) == 1
    world.assert_nothing_orphaned()


@pytest.mark.parametrize("crashes", [False, True], ids=["", "the coordinator dies meanwhile"])
async def test_a_host_that_comes_back_without_it(world: World, crashes: bool) -> None:
    """As after a loss of its power."""
    vm, uuid, other = await silent_destination(world)
    (far,) = world.far.values()
    await far.hypervisor.crash(uuid)
    if crashes:
        await world.power_cut()
        far.reachable = True
        await world.boot()
    else:
        world.reconciler.agent_down(other)
        far.reachable = True
        world.reconciler.agent_up(other)
        metrics = world.get("host", other)["metrics"]
        await until(lambda: world.get("host_metrics", metrics)["live"])
        await world.work.retry_stalled()
    await halted_and_may_start_again(world, vm)
    assert messages(world, "VM_MIGRATED")[0].endswith("its machine ended there before it could go on")


async def test_the_destination_is_declared_dead(world: World) -> None:
    vm, uuid, other = await silent_destination(world)
    (far,) = world.far.values()
    world.reconciler.agent_down(other)
    await world.call("host.declare_dead", other)
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.work.stalled == []
    assert world.openings() == [], "what runs of it there, if anything, is shut out"
    await world.call("VM.start", vm, False, False)
    far.reachable = True
    world.reconciler.agent_up(other)
    await until(lambda: uuid not in far.hypervisor._running)
    assert len(world.openings()) == 1
    world.assert_nothing_orphaned()


async def test_the_old_host_is_declared_dead_meanwhile(world: World) -> None:
    """It has it no longer: that is no reason to halt it where it has arrived."""
    source = await world.second_host()
    (far,) = world.far.values()
    vm, uuid = await running(world, source)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await go_on.wait()

    when_it_has_arrived(world, wait)
    task = await world.call("Async.VM.pool_migrate", vm, world.host, {})
    await arrived.wait()
    far.reachable = False
    world.reconciler.agent_down(source)
    await world.call("host.declare_dead", source)
    go_on.set()
    await until(lambda: world.get("task", task)["status"] == "success")
    assert (world.get("VM", vm)["power_state"], world.get("VM", vm)["resident_on"]) == ("Running", world.host)
    assert world.hypervisor._running[uuid].domain.state == "running"
