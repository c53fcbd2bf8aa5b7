"""VMs made, copied and taken away; disks and network interfaces; what is refused."""

import asyncio
from typing import Any

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.host.fake.nbd import FakeMedium
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.scenes import DISKS
from tests.unit.pool.world import MIB, World, cd_fields, until, vbd_fields, vdi_fields, vif_fields, vm_fields


async def refusal(world: World, method: str, *params: Any) -> tuple[str, list[str]]:
    before = world.snapshot()
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    assert world.snapshot() == before
    return refused.value.code, refused.value.params


async def template(world: World) -> tuple[str, str]:
    sr = await world.make_sr()
    disks = DISKS.format(sr=world.get("SR", sr)["uuid"])
    return await world.make_vm("template", is_a_template=True, other_config={"disks": disks}), sr


async def test_a_template_becomes_a_vm(world: World) -> None:
    made, _ = await template(world)
    vm = await world.call("VM.clone", made, "web1")
    assert world.get("VM", vm)["is_a_template"]
    await world.call("VM.provision", vm)
    record = world.get("VM", vm)
    assert (record["is_a_template"], record["other_config"].get("disks")) == (False, None)
    vbds = sorted((world.get("VBD", v) for v in record["VBDs"]), key=lambda v: v["userdevice"])
    assert [(v["userdevice"], v["bootable"], v["other_config"]) for v in vbds] == [
        ("0", True, {"owner": ""}),
        ("1", False, {"owner": ""}),
    ]
    assert [world.get("VDI", v["VDI"])["virtual_size"] for v in vbds] == [30 * MIB, 45 * MIB]
    await world.call("VM.start", vm, False, False)


async def test_a_template_with_disks_is_cloned_on_the_array(world: World) -> None:
    sr = await world.make_sr()
    made = await world.make_vm_with_disk(sr, "golden")
    await world.call("VM.set_is_a_template", made, True)
    await world.call("VBD.create", cd_fields(made))
    vm = await world.call("VM.copy", made, "web1", sr)
    disk, cd = sorted((world.get("VBD", v) for v in world.get("VM", vm)["VBDs"]), key=lambda v: v["type"], reverse=True)
    assert (disk["other_config"], disk["bootable"]) == ({"owner": ""}, True)
    assert cd["empty"]
    assert [name for name in world.moments.passed if "volume_clone" in name]
    assert world.hypervisor.storage.open_now == {}  # type: ignore[attr-defined]


async def test_a_copy_to_another_sr_holds_the_same_bytes(world: World) -> None:
    one, two = await world.make_sr("one"), await world.make_sr("two")
    vdi = await world.make_vdi(one)
    media = world.hypervisor.storage.media  # type: ignore[attr-defined]
    media[world.get("VDI", vdi)["uuid"]] = source = FakeMedium(30 * MIB)
    source.write(5 * MIB, b"the quick brown fox")
    copy = await world.call("VDI.copy", vdi, two)
    record = world.get("VDI", copy)
    assert (record["SR"], record["virtual_size"], record["name_label"]) == (two, 30 * MIB, "disk")
    assert media[record["uuid"]].read(5 * MIB, 19) == b"the quick brown fox"
    assert world.openings() == []


async def test_an_unknown_default_sr_is_said(world: World) -> None:
    made = await world.make_vm(
        "template",
        is_a_template=True,
        other_config={"disks": '<provision><disk device="0" size="1" sr=""/></provision>'},
    )
    assert (await refusal(world, "VM.provision", made))[0] == "DEFAULT_SR_NOT_FOUND"
    await world.call("pool.set_default_SR", next(iter(world.db.all("pool"))), await world.make_sr())
    await world.call("VM.provision", made)


@pytest.mark.parametrize(
    "disks",
    [
        "<provision>",
        '<provision><disk device="0" sr=""/></provision>',
        '<provision><disk device="0" size="ten" sr=""/></provision>',
        '<provision><disk device="0" size="1" type="tape" sr=""/></provision>',
        '<provision><disk device="0" size="1" sr=""/><disk device="0" size="1" sr=""/></provision>',
        '<!DOCTYPE x [<!ENTITY a "b">]><provision>&a;</provision>',
    ],
)
async def test_disks_that_cannot_be_read(world: World, disks: str) -> None:
    made = await world.make_vm("template", is_a_template=True, other_config={"disks": disks})
    code, params = await refusal(world, "VM.provision", made)
    assert (code, params[0]) == ("INVALID_VALUE", "other_config:disks")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"VCPUs_max": 0}, "INVALID_VALUE"),
        ({"VCPUs_at_startup": 2}, "INVALID_VALUE"),
        ({"VCPUs_max": 10_000, "VCPUs_at_startup": 1}, "INVALID_VALUE"),
        ({"memory_static_max": 0}, "INVALID_VALUE"),
        ({"memory_static_max": 1 << 62}, "INVALID_VALUE"),
        ({"memory_dynamic_min": 256 * MIB}, "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
        ({"memory_static_min": -1}, "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
    ],
)
async def test_a_vm_of_impossible_size(world: World, fields: dict[str, Any], code: str) -> None:
    assert (await refusal(world, "VM.create", vm_fields(**fields)))[0] == code


async def test_sizes_are_set_while_halted_only(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.set_memory_limits", vm, 0, 512 * MIB, 512 * MIB, 512 * MIB)
    await world.call("VM.set_VCPUs_max", vm, 4)
    await world.call("VM.set_VCPUs_at_startup", vm, 2)
    await world.call("VM.start", vm, False, False)
    assert (await refusal(world, "VM.set_memory", vm, 128 * MIB))[0] == "VM_BAD_POWER_STATE"
    assert (await refusal(world, "VM.set_VCPUs_max", vm, 8))[0] == "VM_BAD_POWER_STATE"
    (domain,) = await world.hypervisor.domains()
    assert (domain.memory_bytes, domain.vcpus) == (512 * MIB, 2)


async def test_what_a_template_does_not_do(world: World) -> None:
    made, _ = await template(world)
    assert await refusal(world, "VM.start", made, False, False) == ("VM_IS_TEMPLATE", [made])
    assert "start" not in world.get("VM", made)["allowed_operations"]
    blank = next(r for r, rec in world.db.all("VM").items() if rec["is_default_template"])
    assert (await refusal(world, "VM.destroy", blank))[0] == "VM_CANNOT_DELETE_DEFAULT_TEMPLATE"


async def test_a_blocked_operation(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.add_to_blocked_operations", vm, "start", "not before Monday")
    assert await refusal(world, "VM.start", vm, False, False) == ("OPERATION_BLOCKED", [vm, "not before Monday"])
    assert "start" not in world.get("VM", vm)["allowed_operations"]


async def test_what_is_not_there_yet_says_so(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    assert (await refusal(world, "VM.csvm", vm))[0] == "MESSAGE_METHOD_UNKNOWN"
    assert (await refusal(world, "VM.assert_operation_valid", vm, "csvm"))[0] == "NOT_IMPLEMENTED"
    assert await refusal(world, "host.call_plugin", world.host, "updater.py", "x", {}) == (
        "XENAPI_MISSING_PLUGIN",
        ["updater.py"],
    )


async def test_more_memory_than_there_is(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.set_memory", vm, 100 * 1024 * MIB)
    code, params = await refusal(world, "VM.start", vm, False, False)
    assert code == "HOST_NOT_ENOUGH_FREE_MEMORY"
    assert int(params[0]) > int(params[1])
    assert await world.call("VM.get_possible_hosts", vm) == []


async def test_a_disabled_host_starts_nothing(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("host.disable", world.host)
    assert await refusal(world, "VM.start", vm, False, False) == ("HOST_DISABLED", [world.host])
    await world.call("host.enable", world.host)
    await world.call("VM.start_on", vm, world.host, False, False)


async def test_devices_take_their_places(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    assert (await world.call("VM.get_allowed_VBD_devices", vm))[:2] == ["1", "2"]
    assert await world.call("VM.get_allowed_VIF_devices", vm) == [str(n) for n in range(7)]
    vdi = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    assert await refusal(world, "VBD.create", vbd_fields(vm, vdi, userdevice="0")) == ("DEVICE_ALREADY_EXISTS", ["0"])
    assert (await refusal(world, "VBD.create", vbd_fields(vm, vdi, userdevice="999")))[0] == "INVALID_DEVICE"
    assert (await refusal(world, "VBD.create", vbd_fields(vm, vdi, userdevice="first")))[0] == "INVALID_DEVICE"
    assert (await refusal(world, "VBD.create", vbd_fields(vm, NULL_REF, empty=True)))[0] == "VBD_NOT_REMOVABLE_MEDIA"
    assert (await refusal(world, "VBD.create", vbd_fields(vm, vdi, type="CD")))[0] == "VBD_CDS_MUST_BE_READONLY"
    network = next(iter(world.db.all("network")))
    for mac in ("x", "01:00:00:00:00:00", "02:00:00:00:00"):
        assert (await refusal(world, "VIF.create", vif_fields(vm, network, MAC=mac)))[0] == "MAC_INVALID"
    assert (await refusal(world, "VIF.create", vif_fields(vm, network, device="7")))[0] == "INVALID_DEVICE"
    vif = await world.call("VIF.create", vif_fields(vm, network))
    assert world.get("VIF", vif)["MAC_autogenerated"]


async def test_a_disk_belongs_to_one_running_vm(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    one, two = await world.make_vm("one"), await world.make_vm("two")
    await world.make_vbd(one, vdi)
    await world.make_vbd(two, vdi)
    await world.call("VM.start", one, False, False)
    assert (await refusal(world, "VM.start", two, False, False))[0] == "VDI_IN_USE"
    assert (await refusal(world, "VDI.destroy", vdi))[0] == "VDI_IN_USE"
    assert (await refusal(world, "VDI.forget", vdi))[0] == "VDI_IN_USE"
    (pbd,) = world.get("SR", sr)["PBDs"]
    assert (await refusal(world, "PBD.unplug", pbd))[0] == "VDI_IN_USE"
    assert (await refusal(world, "SR.destroy", sr))[0] == "SR_HAS_PBD"


async def test_a_disk_is_added_while_the_vm_runs(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.start", vm, False, False)
    vbd = await world.make_vbd(vm, await world.make_vdi(sr, "data"))
    await world.call("VBD.plug", vbd)
    assert world.get("VBD", vbd)["device"] == "sdb"
    assert (await refusal(world, "VBD.plug", vbd))[0] == "DEVICE_ALREADY_ATTACHED"
    assert (await refusal(world, "VBD.destroy", vbd))[0] == "OPERATION_NOT_ALLOWED"
    vdi = world.get("VBD", vbd)["VDI"]
    await world.call("VDI.resize", vdi, 60 * MIB)
    assert world.hypervisor.sizes_seen(world.get("VM", vm)["uuid"]) == {1: 60 * MIB}
    assert (await refusal(world, "VDI.resize", vdi, 30 * MIB))[0] == "SR_BACKEND_FAILURE_79"
    await world.call("VBD.unplug", vbd)
    assert len(world.openings()) == 1
    assert (await refusal(world, "VBD.unplug", vbd))[0] == "DEVICE_ALREADY_DETACHED"
    await world.call("VBD.destroy", vbd)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"virtual_size": 0}, "SR_BACKEND_FAILURE_79"),
        ({"virtual_size": -1}, "SR_BACKEND_FAILURE_79"),
        ({"virtual_size": 1 << 50}, "SR_BACKEND_FAILURE_44"),
        ({"virtual_size": (1 << 63) - 1}, "INVALID_VALUE"),
    ],
)
async def test_a_disk_of_impossible_size(world: World, fields: dict[str, Any], code: str) -> None:
    sr = await world.make_sr()
    assert (await refusal(world, "VDI.create", vdi_fields(sr, **fields)))[0] == code


async def test_an_sr_that_is_not_plugged(world: World) -> None:
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    assert await refusal(world, "VDI.create", vdi_fields(sr)) == ("SR_NOT_ATTACHED", [sr])
    assert "vdi_create" not in world.get("SR", sr)["allowed_operations"]
    assert await refusal(world, "SR.scan", sr) == ("SR_NOT_ATTACHED", [sr])
    await world.call("PBD.plug", pbd)
    await world.make_vdi(sr)
    assert "vdi_create" in world.get("SR", sr)["allowed_operations"]


async def test_an_sr_with_disks_is_not_destroyed(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    assert await refusal(world, "SR.destroy", sr) == ("SR_NOT_EMPTY", [])
    await world.call("PBD.plug", pbd)
    await world.call("VDI.destroy", vdi)
    await world.call("PBD.unplug", pbd)
    await world.call("SR.destroy", sr)
    assert world.storage.leftovers() == []
    assert (world.db.all("PBD"), world.db.all("secret")) == ({}, {})


async def test_unknown_types_and_the_heartbeat(world: World) -> None:
    args = [world.host, {}, 0, "a", "", "floppy", "", True, {}]
    assert await refusal(world, "SR.create", *args) == ("SR_UNKNOWN_DRIVER", ["floppy"])
    sr = await world.make_sr()
    assert await refusal(world, "SR.assert_can_host_ha_statefile", sr) == ("SR_OPERATION_NOT_SUPPORTED", [sr])
    assert await world.call("SR.get_supported_types") == ["memory"]
    assert await world.call("SR.get_live_hosts", sr) == [world.host]
    with world.db.transaction() as tx:
        tx.set("host_metrics", world.get("host", world.host)["metrics"], live=False)
    assert await world.call("SR.get_live_hosts", sr) == []


async def test_names_go_to_the_storage_too(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr, sm_config={"allocation": "thin"})
    await world.call("VDI.set_name_label", vdi, "renamed")
    await world.call("SR.set_name_description", sr, "in the cellar")
    held = world.storage.srs[world.get("SR", sr)["uuid"]]
    (volume,) = held.volumes.values()
    assert (volume.volume.name_label, held.name_description) == ("renamed", "in the cellar")
    assert world.get("VDI", vdi)["sm_config"]["allocation"] == "thin"
    await world.call("VDI.add_to_sm_config", vdi, "snap-reserve-percentage", "50")
    assert volume_sm_config(held) == {"allocation": "thin", "snap-reserve-percentage": "50"}


def volume_sm_config(held: Any) -> dict[str, str]:
    (volume,) = held.volumes.values()
    return volume.volume.sm_config


async def test_a_network_in_use_stays(world: World) -> None:
    vm = await world.make_vm()
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}})
    vif = await world.call("VIF.create", vif_fields(vm, network))
    assert await refusal(world, "network.destroy", network) == ("NETWORK_CONTAINS_VIF", [vif])
    await world.call("VIF.destroy", vif)
    await world.call("network.destroy", network)


async def test_two_asking_for_opposite_things_get_one_winner(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    results = await asyncio.gather(
        world.call("VM.start", vm, False, False), world.call("VM.destroy", vm), return_exceptions=True
    )
    errors = [r for r in results if isinstance(r, XenApiError)]
    assert [e.code for e in errors] == ["OTHER_OPERATION_IN_PROGRESS"]
    assert world.get("VM", vm)["power_state"] == "Running"


async def test_a_hard_shutdown_does_not_wait_for_a_clean_one(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    world.hypervisor._sleep = lambda delay: asyncio.get_running_loop().create_future()
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(obeys_shutdown=False))
    clean = asyncio.create_task(world.call("VM.clean_shutdown", vm))
    await until(lambda: "clean_shutdown" in world.get("VM", vm)["current_operations"].values())
    await world.call("VM.hard_shutdown", vm)
    with pytest.raises(XenApiError) as ended:
        await clean
    assert ended.value.code == "TASK_CANCELLED"
    assert (world.get("VM", vm)["power_state"], world.openings()) == ("Halted", [])


async def test_an_interface_in_no_bridge_takes_no_vm(world: World) -> None:
    (network,) = [ref for ref, record in world.db.all("network").items() if record["bridge"] == "eth0"]
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VIF.create", vif_fields(vm, network))
    assert await refusal(world, "VM.start", vm, False, False) == ("VM_REQUIRES_NETWORK", [vm, network])


async def test_a_password_that_is_replaced_is_forgotten(world: World) -> None:
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    shown = world.get("PBD", pbd)["device_config"]
    await world.call("PBD.set_device_config", pbd, {**shown, "storagepool": "other"})
    assert world.get("PBD", pbd)["device_config"]["password_secret"] == shown["password_secret"]
    config = {key: value for key, value in shown.items() if key != "password_secret"}
    await world.call("PBD.set_device_config", pbd, {**config, "password": "new-one"})
    (secret,) = world.db.all("secret").values()
    assert secret["value"] == "new-one"
    assert world.get("PBD", pbd)["device_config"]["password_secret"] == secret["uuid"]
