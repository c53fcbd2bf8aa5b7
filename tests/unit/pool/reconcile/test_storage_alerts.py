"""What an administrator comes to know of storage without asking, and machines that wait for space."""

from typing import Any

import pytest

from gespann.pool.reconcile import reconciler as reconciler_module
from gespann.seams.sr_driver import StorageWarning
from tests.unit.pool.reconcile.test_pool_reconcile import running, uuid_of
from tests.unit.pool.world import World, until

MEASURES = reconciler_module.STORAGE_EVERY_ROUNDS


def told(world: World, name: str) -> list[dict[str, Any]]:
    return [dict(message) for message in world.db.all("message").values() if message["name"] == name]


async def test_an_sr_that_runs_full_is_told_of_once(world: World) -> None:
    sr = await world.make_sr()
    capacity = world.get("SR", sr)["physical_size"]
    first = await world.make_vdi(sr, virtual_size=capacity * 7 // 10)
    await world.reconciler.round(MEASURES)
    assert told(world, "ALARM") == []
    second = await world.make_vdi(sr, virtual_size=capacity * 15 // 100)
    await world.reconciler.round(1)  # an SR that operations have touched is measured in the next round
    await world.reconciler.round(MEASURES)
    (alarm,) = told(world, "ALARM")
    assert (alarm["cls"], alarm["obj_uuid"], alarm["priority"]) == ("SR", world.get("SR", sr)["uuid"], 3)
    assert alarm["body"].startswith("value: 0.8")
    assert '<name value="physical_utilisation"/>' in alarm["body"]
    await world.power_cut()
    await world.boot()
    await world.reconciler.round(MEASURES)
    assert len(told(world, "ALARM")) == 1
    await world.call("VDI.destroy", second)
    await world.reconciler.round(MEASURES)
    await world.make_vdi(sr, virtual_size=capacity * 15 // 100)
    await world.reconciler.round(MEASURES)
    assert len(told(world, "ALARM")) == 2
    assert world.get("VDI", first)["virtual_size"] > 0


async def test_an_array_that_is_away_and_comes_back(world: World) -> None:
    sr = await world.make_sr()
    world.storage.reachable = False
    for _ in range(3):
        await world.reconciler.round(MEASURES)
    (lost,) = told(world, "SR_UNREACHABLE")
    assert (lost["cls"], lost["obj_uuid"], lost["priority"]) == ("SR", world.get("SR", sr)["uuid"], 2)
    assert "SR_BACKEND_FAILURE_164" in lost["body"]
    await world.power_cut()
    await world.boot()
    assert len(told(world, "SR_UNREACHABLE")) == 1
    assert told(world, "SR_REACHABLE") == []
    world.storage.reachable = True
    for _ in range(2):
        await world.reconciler.round(MEASURES)
    assert len(told(world, "SR_REACHABLE")) == 1
    world.storage.reachable = False
    await world.reconciler.round(MEASURES)
    assert len(told(world, "SR_UNREACHABLE")) == 2


async def test_a_machine_that_waits_for_space_goes_on_by_itself(world: World) -> None:
    vm = await running(world)
    for _ in range(3):  # no space, no space, and then some
        world.hypervisor.io_error(uuid_of(world, vm))
        await until(lambda: world.get("VM", vm)["power_state"] == "Paused" and world.reconciler.quiet)
        await world.reconciler.round(1)
        await until(lambda: world.get("VM", vm)["power_state"] == "Running" and world.reconciler.quiet)
    (waits,) = told(world, "VM_WAITS_FOR_STORAGE")
    assert (waits["cls"], waits["obj_uuid"]) == ("VM", uuid_of(world, vm))


async def test_a_machine_that_somebody_paused_stays_so(world: World) -> None:
    vm = await running(world)
    await world.call("VM.pause", vm)
    await until(lambda: world.reconciler.quiet)
    await world.reconciler.round(1)
    await until(lambda: world.reconciler.quiet)
    assert world.get("VM", vm)["power_state"] == "Paused"
    assert told(world, "VM_WAITS_FOR_STORAGE") == []


@pytest.mark.parametrize("message", ["VM.hard_shutdown", "VM.unpause"])
async def test_a_machine_that_waits_obeys(world: World, message: str) -> None:
    vm = await running(world)
    world.hypervisor.io_error(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Paused" and world.reconciler.quiet)
    await world.call(message, vm)
    expected = "Halted" if message == "VM.hard_shutdown" else "Running"
    assert world.get("VM", vm)["power_state"] == expected
    await world.reconciler.round(1)
    await until(lambda: world.reconciler.quiet)
    assert world.get("VM", vm)["power_state"] == expected


async def test_what_the_array_warns_of(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    warnings = world.storage.warnings
    warnings.append(StorageWarning(7, "The group's space is used to 80%."))
    await world.reconciler.round(MEASURES)  # what was before the SR is old news
    uuid = world.get("VDI", vdi)["uuid"]
    warnings.append(StorageWarning(8, "Volume x uses 65% of its size.", uuid[:23]))
    warnings.append(StorageWarning(9, "The group's space is used to 85%."))
    for _ in range(2):
        await world.reconciler.round(MEASURES)
    (about_vdi,), (about_sr,) = told(world, "VDI_STORAGE_WARNING"), told(world, "SR_STORAGE_WARNING")
    assert (about_vdi["cls"], about_vdi["obj_uuid"], about_vdi["priority"]) == ("VDI", uuid, 3)
    assert about_vdi["body"] == "Volume x uses 65% of its size."
    assert (about_sr["cls"], about_sr["obj_uuid"]) == ("SR", world.get("SR", sr)["uuid"])
    await world.power_cut()
    warnings.append(StorageWarning(12, "Volume y has gone.", "00000000"))  # while nobody looked
    await world.boot()
    for _ in range(2):
        await world.reconciler.round(MEASURES)
    assert [one["body"] for one in told(world, "SR_STORAGE_WARNING")][1:] == ["Volume y has gone."]
    assert len(told(world, "VDI_STORAGE_WARNING")) == 1
