"""VM.VCPUs_params: a VM's part of the processors, when it starts and while it runs."""

import pytest

from gespann.seams.host_agent import CpuTuning
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def started(world: World, **fields: object) -> str:
    vm = await world.make_vm(**fields)
    await world.call("VM.start", vm, False, False)
    return vm


def tuning(world: World, vm: str) -> CpuTuning:
    """What its host holds it to."""
    return world.running()[world.get("VM", vm)["uuid"]].tuning


async def test_a_vm_starts_with_its_part(world: World) -> None:
    vm = await started(world, VCPUs_params={"weight": "512", "cap": "150", "mask": "4, 0-1,5-7", "colour": "red"})
    assert tuning(world, vm) == CpuTuning(weight=512, cap_percent=150, cpus=[0, 1, 4, 5, 6, 7])
    assert tuning(world, await started(world)) == CpuTuning()


async def test_it_changes_while_the_vm_runs_and_stays(world: World) -> None:
    vm = await started(world, VCPUs_params={"weight": "512"})
    await world.call("VM.add_to_VCPUs_params_live", vm, "cap", "50")
    await world.call("VM.add_to_VCPUs_params_live", vm, "weight", "128")  # in the place of what was there
    await world.call("Async.VM.add_to_VCPUs_params_live", vm, "mask", "3")
    await until(lambda: "mask" in world.get("VM", vm)["VCPUs_params"])
    assert world.get("VM", vm)["VCPUs_params"] == {"weight": "128", "cap": "50", "mask": "3"}
    assert tuning(world, vm) == CpuTuning(weight=128, cap_percent=50, cpus=[3])
    await world.call("VM.hard_reboot", vm)
    assert tuning(world, vm) == CpuTuning(weight=128, cap_percent=50, cpus=[3])
    await world.call("VM.add_to_VCPUs_params_live", vm, "cap", "0")
    await world.call("VM.add_to_VCPUs_params_live", vm, "mask", "")
    assert tuning(world, vm) == CpuTuning(weight=128)


async def test_it_goes_along_to_another_host(world: World) -> None:
    vm = await started(world, VCPUs_params={"weight": "512"})
    await world.call("VM.add_to_VCPUs_params_live", vm, "cap", "50")
    await world.call("VM.pool_migrate", vm, await world.second_host(), {})
    assert tuning(world, vm) == CpuTuning(weight=512, cap_percent=50)


async def test_the_setter_holds_from_the_next_start_on(world: World) -> None:
    vm = await started(world)
    await world.call("VM.set_VCPUs_params", vm, {"weight": "2"})
    await world.call("VM.add_to_VCPUs_params", vm, "cap", "7")
    await world.call("VM.remove_from_VCPUs_params", vm, "cap")
    assert tuning(world, vm) == CpuTuning()
    await world.call("VM.hard_shutdown", vm)
    assert (await refusal(world, "VM.add_to_VCPUs_params_live", vm, "cap", "7"))[0] == "VM_BAD_POWER_STATE"
    await world.call("VM.start", vm, False, False)
    assert tuning(world, vm) == CpuTuning(weight=2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("weight", value) for value in ("0", "65536", "-1", "1.5", "many", "٣", "1" * 400)),
        *(("cap", value) for value in ("-1", "x", "1e3", "6553601")),
        *(("mask", value) for value in ("x", "1,,2", "3-1", "4096", "0-", "-1", "0-99999999999")),
    ],
)
async def test_what_is_none_is_refused(world: World, key: str, value: str) -> None:
    vm = await started(world)
    told = ["INVALID_VALUE", f"VCPUs_params:{key}", value[:128]]
    assert await refusal(world, "VM.add_to_VCPUs_params_live", vm, key, value) == told
    assert await refusal(world, "VM.set_VCPUs_params", vm, {key: value}) == told
    assert world.get("VM", vm)["VCPUs_params"] == {}
    assert tuning(world, vm) == CpuTuning()


async def test_a_key_that_means_nothing(world: World) -> None:
    vm = await started(world)
    told = ["INVALID_VALUE", "VCPUs_params", "colour"]
    assert await refusal(world, "VM.add_to_VCPUs_params_live", vm, "colour", "red") == told


async def test_a_host_that_cannot(world: World) -> None:
    """It says so, and the record stays as it was; what a start asks for in vain is passed over."""
    vm = await started(world, VCPUs_params={"weight": "512"})
    code, text = await refusal(world, "VM.add_to_VCPUs_params_live", vm, "mask", "0,8")
    assert (code, "8 processors" in text) == ("OPERATION_NOT_ALLOWED", True)
    world.hypervisor.fail_next("tune", SeamError("REFUSED", "no controller"), times=2)
    assert (await refusal(world, "VM.add_to_VCPUs_params_live", vm, "cap", "7"))[0] == "OPERATION_NOT_ALLOWED"
    assert world.get("VM", vm)["VCPUs_params"] == {"weight": "512"}
    assert tuning(world, vm) == CpuTuning(weight=512)


async def test_an_imported_record_may_hold_anything(world: World) -> None:
    vm = await world.make_vm(VCPUs_params={"weight": "a lot", "cap": "50"})
    await world.call("VM.start", vm, False, False)
    assert tuning(world, vm) == CpuTuning(cap_percent=50)
