"""Snapshots by schedule: when, of what, how many are kept, and what an administrator is told."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gespann.pool.plan.snapshot_schedules import latest_due
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = await World.begin(tmp_path)  # a Tuesday, 9:30
    yield made
    made.assert_nothing_orphaned()
    await made.end()


@pytest.mark.parametrize(
    ("frequency", "schedule", "due"),
    [
        ("hourly", {}, (16, 9, 0)),
        ("hourly", {"min": "30"}, (16, 9, 30)),
        ("hourly", {"min": "45"}, (16, 8, 45)),
        ("daily", {}, (16, 0, 0)),
        ("daily", {"hour": "9", "min": "30"}, (16, 9, 30)),
        ("daily", {"hour": "10"}, (15, 10, 0)),
        ("weekly", {}, (15, 0, 0)),
        ("weekly", {"days": "Tuesday", "hour": "10"}, (9, 10, 0)),
        ("weekly", {"days": "Monday,Tuesday", "hour": "9"}, (16, 9, 0)),
        ("weekly", {"days": "Sunday", "hour": "23", "min": "45"}, (14, 23, 45)),
    ],
)
def test_when_it_was_due(frequency: str, schedule: dict[str, str], due: tuple[int, int, int]) -> None:
    now = datetime(2010, 2, 16, 9, 37, 12, tzinfo=UTC)  # a Tuesday
    day, hour, minute = due
    assert latest_due(frequency, schedule, now) == datetime(2010, 2, day, hour, minute, tzinfo=UTC)


async def schedule(world: World, **fields: Any) -> str:
    given = {"name_label": "nightly", "name_description": "", "enabled": True, "type": "snapshot", "frequency": "daily"}
    given |= {"retained_snapshots": 2, "schedule": {"hour": "10", "min": "0"}, **fields}
    return await world.call("VMSS.create", given)


async def machine(world: World, vmss: str, name: str = "web1") -> str:
    sr = next(iter(world.db.all("SR")), None) or await world.make_sr()
    vm = await world.make_vm_with_disk(sr, name)
    await world.call("VM.set_snapshot_schedule", vm, vmss)
    return vm


async def refused(world: World, method: str, *params: Any) -> list[str]:
    with pytest.raises(XenApiError) as error:
        await world.call(method, *params)
    return [error.value.code, *map(str, error.value.params)]


async def pass_time(world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    world.session = world.api.sessions.begin("root", "pool-admin").ref  # the other has been idle for too long
    await world.reconciler.schedules.round()


def told(world: World) -> list[str]:
    return [message["name"] for message in world.db.all("message").values() if message["cls"] == "VMSS"]


async def test_each_day_and_the_oldest_go(world: World) -> None:
    vmss = await schedule(world)
    vm = await machine(world, vmss)
    by_hand = await world.call("VM.snapshot", vm, "by hand")
    await world.reconciler.schedules.round()
    await pass_time(world, 29 * MINUTE)
    assert world.get("VM", vm)["snapshots"] == [by_hand]
    await pass_time(world, MINUTE)
    await pass_time(world, MINUTE)
    (first,) = [ref for ref in world.get("VM", vm)["snapshots"] if ref != by_hand]
    record = world.get("VM", first)
    assert record["is_vmss_snapshot"]
    assert record["name_label"] == "[nightly] [web1] [2010-02-16 10:00]"
    assert world.get("VMSS", vmss)["last_run_time"] == "20100216T10:00:00Z"
    for _ in range(2):
        await pass_time(world, DAY)
    assert world.db.find("VM", first) is None
    assert len(world.get("VM", vm)["snapshots"]) == 3
    assert by_hand in world.get("VM", vm)["snapshots"]
    assert len(world.db.all("VDI")) == 4
    assert told(world) == ["VMSS_SNAPSHOT_SUCCEEDED"] * 3


async def test_what_was_missed_is_told_and_not_made_up_for(world: World) -> None:
    vmss = await schedule(world)
    vm = await machine(world, vmss)
    await world.reconciler.schedules.round()
    await pass_time(world, 3 * HOUR)
    await pass_time(world, MINUTE)
    assert told(world) == ["VMSS_SNAPSHOT_MISSED_EVENT"]
    assert world.get("VM", vm)["snapshots"] == []


async def test_a_schedule_that_is_off_does_nothing_and_misses_nothing(world: World) -> None:
    vmss = await schedule(world, enabled=False)
    await machine(world, vmss)
    await world.reconciler.schedules.round()
    await pass_time(world, 2 * DAY)
    await world.call("VMSS.set_enabled", vmss, True)
    await pass_time(world, MINUTE)
    assert told(world) == []


async def test_a_schedule_of_checkpoints_takes_what_memory_there_is(world: World) -> None:
    vmss = await schedule(world, retained_snapshots=1)
    await world.call("VMSS.set_type", vmss, "checkpoint")
    halted, running, suspended = [await machine(world, vmss, name) for name in ("halted", "running", "suspended")]
    for vm in (running, suspended):
        await world.call("VM.set_suspend_SR", vm, next(iter(world.db.all("SR"))))
        await world.call("VM.start", vm, False, False)
    await world.call("VM.suspend", suspended)
    for _ in range(2):
        assert await world.call("VMSS.snapshot_now", vmss) == "3 of 3 snapshots were made"
    states = [
        world.get("VM", world.get("VM", vm)["snapshots"][0])["power_state"] for vm in (halted, running, suspended)
    ]
    assert states == ["Halted", "Suspended", "Suspended"]
    assert world.get("VM", running)["power_state"] == "Running"
    images = [vdi for vdi in world.db.all("VDI").values() if vdi["type"] == "suspend"]
    assert len(images) == 3  # of the suspended VM, and of the two checkpoints that are kept


async def test_one_that_fails_does_not_keep_others_from_theirs(world: World) -> None:
    vmss = await schedule(world, type="snapshot_with_quiesce")
    quiet, loud = await machine(world, vmss, "quiet"), await machine(world, vmss, "loud")
    for vm in (quiet, loud):
        await world.call("VM.start", vm, False, False)
    await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))
    await until(lambda: world.reconciler.quiet)
    world.hypervisor.fail_next("guest_freeze", SeamError("BAD_STATE", "no"))
    assert await world.call("VMSS.snapshot_now", vmss) == "1 of 2 snapshots were made"
    assert told(world) == ["VMSS_SNAPSHOT_FAILED"]
    (message,) = (message for message in world.db.all("message").values() if message["cls"] == "VMSS")
    assert "VM_SNAPSHOT_WITH_QUIESCE_FAILED" in message["body"]
    assert sorted(len(world.get("VM", vm)["snapshots"]) for vm in (quiet, loud)) == [0, 1]


async def test_a_machine_that_is_off_is_quiet(world: World) -> None:
    vmss = await schedule(world, type="snapshot_with_quiesce")
    vm = await machine(world, vmss)
    assert await world.call("VMSS.snapshot_now", vmss) == "1 of 1 snapshots were made"
    assert len(world.get("VM", vm)["snapshots"]) == 1


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ({"schedule": {"min": "7"}}, "min", "7"),
        ({"schedule": {"hour": "24"}}, "hour", "24"),
        ({"schedule": {"days": "Monday"}}, "days", "Monday"),
        ({"frequency": "weekly", "schedule": {"days": "Monday,Someday"}}, "days", "Monday,Someday"),
        ({"retained_snapshots": 0}, "retained_snapshots", "0"),
        ({"retained_snapshots": 11}, "retained_snapshots", "11"),
    ],
)
async def test_what_no_schedule_is(world: World, fields: dict[str, Any], key: str, value: str) -> None:
    with pytest.raises(XenApiError) as error:
        await schedule(world, **fields)
    assert (error.value.code, error.value.params) == ("INVALID_VALUE", [key, value])
    assert world.db.all("VMSS") == {}


async def test_it_is_changed_and_taken_away(world: World) -> None:
    vmss = await schedule(world)
    vm = await machine(world, vmss)
    await world.call("VMSS.set_frequency", vmss, "hourly")
    assert world.get("VMSS", vmss)["schedule"] == {"min": "0"}
    assert await refused(world, "VMSS.add_to_schedule", vmss, "hour", "3") == ["INVALID_VALUE", "hour", "3"]
    await world.call("VMSS.remove_from_schedule", vmss, "min")
    await world.call("VMSS.add_to_schedule", vmss, "min", "45")
    await world.call("VMSS.set_retained_snapshots", vmss, 3)
    await world.call("VMSS.set_type", vmss, "snapshot_with_quiesce")
    assert await refused(world, "VMSS.destroy", vmss) == ["VMSS_HAS_VM"]
    await world.call("VM.set_snapshot_schedule", vm, NULL_REF)
    await world.call("VMSS.destroy", vmss)


async def test_a_template_is_in_no_schedule(world: World) -> None:
    vmss = await schedule(world)
    template = await world.make_vm("template", is_a_template=True)
    assert (await refused(world, "VM.set_snapshot_schedule", template, vmss))[0] == "VM_IS_TEMPLATE"


async def test_what_is_made_of_a_scheduled_snapshot_is_none(world: World) -> None:
    vmss = await schedule(world)
    vm = await machine(world, vmss)
    await world.call("VMSS.snapshot_now", vmss)
    (snapshot,) = world.get("VM", vm)["snapshots"]
    made = world.get("VM", await world.call("VM.clone", snapshot, "made"))
    assert (made["is_vmss_snapshot"], made["snapshot_schedule"]) == (False, NULL_REF)
