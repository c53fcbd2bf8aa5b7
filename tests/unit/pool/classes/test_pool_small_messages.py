"""Messages that answer a question or change a record or two, each once as it is meant and once refused."""

import hashlib

import pytest

from gespann.pool.plan.vm_limits import OVERHEAD_BYTES
from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.lvmoiscsi import LvmoiscsiDriver
from tests.unit.pool.world import DEVICE_CONFIG, MIB, cd_fields

GIB = 1024 * MIB


async def refusal(work) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await work
    return [caught.value.code, *caught.value.params]


# -- VM


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("VM.set_memory_static_range", (64 * MIB, 256 * MIB), (64, 128, 128, 256)),
        ("VM.set_memory_static_max", (512 * MIB,), (128, 128, 128, 512)),
        ("VM.set_memory_static_min", (32 * MIB,), (32, 128, 128, 128)),
        ("VM.set_memory_dynamic_range", (128 * MIB, 128 * MIB), (128, 128, 128, 128)),
        ("VM.set_memory_dynamic_max", (128 * MIB,), (128, 128, 128, 128)),
        ("VM.set_memory_dynamic_min", (128 * MIB,), (128, 128, 128, 128)),
    ],
)
async def test_memory_limits(world, method, params, expected):
    vm = await world.make_vm()
    await world.call(method, vm, *params)
    fields = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")
    assert tuple(world.get("VM", vm)[name] // MIB for name in fields) == expected
    assert (await refusal(world.call(method, vm, *[-1] * len(params))))[0] in (
        "INVALID_VALUE",
        "MEMORY_CONSTRAINT_VIOLATION_ORDER",
    )
    await world.call("VM.start", vm, False, False)
    if "static" in method:
        assert (await refusal(world.call(method, vm, *params)))[0] == "VM_BAD_POWER_STATE"


async def test_memory_that_a_machine_needs(world):
    vm = await world.make_vm()
    assert await world.call("VM.compute_memory_overhead", vm) == OVERHEAD_BYTES
    assert await world.call("VM.maximise_memory", vm, GIB, False) == GIB - OVERHEAD_BYTES
    assert await world.call("VM.maximise_memory", vm, 1, True) == 0


async def test_default_template(world):
    template, vm = await world.make_vm("t", is_a_template=True), await world.make_vm()
    await world.call("VM.set_is_default_template", template, True)
    assert world.get("VM", template)["is_default_template"] is True
    assert (await refusal(world.call("VM.set_is_default_template", vm, True)))[0] == "OPERATION_NOT_ALLOWED"


async def test_where_a_machine_may_run(world):
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.assert_can_boot_here", vm, world.host)
    await world.call("VM.assert_agile", vm)
    sr = world.get("VDI", world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"])["SR"]
    await world.call("SR.set_shared", sr, False)
    assert await refusal(world.call("VM.assert_agile", vm)) == ["HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr]
    await world.call("host.disable", world.host, False)
    assert await refusal(world.call("VM.assert_can_boot_here", vm, world.host)) == ["HOST_DISABLED", world.host]


async def test_what_a_machine_would_boot_as(world):
    vm = await world.make_vm("web7")
    assert await world.call("VM.get_boot_record", vm) == world.get("VM", vm)


async def test_shutdown_that_is_neither_clean_nor_hard(world):
    vm = await world.make_vm()
    await world.call("VM.start", vm, False, False)
    await world.call("VM.shutdown", vm)
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert (await refusal(world.call("VM.shutdown", vm)))[0] == "VM_BAD_POWER_STATE"


async def test_allowed_operations_are_worked_out_anew(world):
    vm = await world.make_vm()
    with world.db.transaction() as tx:
        tx.set("VM", vm, allowed_operations=["start"])
    await world.call("VM.update_allowed_operations", vm)
    assert {"start", "clone", "destroy"} <= set(world.get("VM", vm)["allowed_operations"])


# -- VBD, VDI


async def test_mode_of_a_disk_that_is_not_plugged(world):
    vm = await world.make_vm_with_disk(await world.make_sr())
    (vbd,) = world.get("VM", vm)["VBDs"]
    await world.call("VBD.set_mode", vbd, "RO")
    assert world.get("VBD", vbd)["mode"] == "RO"
    cd = await world.call("VBD.create", cd_fields(vm))
    assert await refusal(world.call("VBD.set_mode", cd, "RW")) == ["VBD_CDS_MUST_BE_READONLY"]
    await world.call("VBD.set_mode", vbd, "RW")
    await world.call("VM.start", vm, False, False)
    assert await refusal(world.call("VBD.set_mode", vbd, "RO")) == ["DEVICE_ALREADY_ATTACHED", vbd]


async def test_whether_a_disk_could_be_plugged(world):
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.start", vm, False, False)
    second = await world.make_vbd(vm, await world.make_vdi(sr, "second"))
    await world.call("VBD.assert_attachable", second)
    await world.call("VBD.plug", second)
    assert (await refusal(world.call("VBD.assert_attachable", second)))[0] == "DEVICE_ALREADY_ATTACHED"
    await world.call("VBD.unplug_force", second)
    assert world.get("VBD", second)["currently_attached"] is False
    await world.call("VBD.unplug_force", second)  # not plugged: nothing to do
    await world.call("VBD.plug", second)
    await world.call("VBD.unplug_force_no_safety_check", second)
    assert world.get("VBD", second)["currently_attached"] is False


async def test_what_is_said_of_a_disk_is_said_to_the_storage(world):
    vdi = await world.make_vdi(await world.make_sr())
    await world.call("VDI.set_name_description", vdi, "data of web1")
    await world.call("VDI.set_read_only", vdi, True)
    await world.call("VDI.set_sharable", vdi, True)
    await world.call("VDI.update", vdi)
    record = world.get("VDI", vdi)
    assert (record["name_description"], record["read_only"], record["sharable"]) == ("data of web1", True, True)
    (sr,) = world.storage.srs.values()
    assert sr.volumes[record["uuid"]].volume.name_description == "data of web1"


async def test_disk_that_is_on_the_storage_is_introduced_again(world):
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr, "old name")
    uuid, location = world.get("VDI", vdi)["uuid"], world.get("VDI", vdi)["location"]
    await world.call("VDI.forget", vdi)
    params = ["new name", "", sr, "user", False, False, {}, location, {}, {}]
    again = await world.call("VDI.introduce", uuid, *params)
    assert (world.get("VDI", again)["uuid"], world.get("VDI", again)["name_label"]) == (uuid, "new name")
    twice = await refusal(world.call("VDI.introduce", uuid, *params))
    assert twice == ["DB_UNIQUENESS_CONSTRAINT_VIOLATION", "VDI", "uuid", uuid]
    await world.call("VDI.forget", again)
    between_hosts = await world.call("VDI.pool_introduce", uuid, *params)
    assert world.get("VDI", between_hosts)["uuid"] == uuid
    params[7] = "nowhere"
    nobody = "00000000-0000-0000-0000-000000000001"
    assert await refusal(world.call("VDI.introduce", nobody, *params)) == ["VDI_LOCATION_MISSING", sr, "nowhere"]


async def test_older_words_for_disks_and_repositories(world):
    """They say whose turn it is, as the original does, and change nothing."""
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    before = world.snapshot()
    assert await refusal(world.call("VDI.force_unlock", vdi)) == ["MESSAGE_DEPRECATED"]
    made = world.call("SR.make", world.host, {}, 0, "another", "", "memory", "user", {})
    assert await refusal(made) == ["MESSAGE_DEPRECATED"]
    assert await refusal(world.call("VDI.generate_config", world.host, vdi)) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert world.snapshot() == before


# -- SR, PBD, PIF


async def test_sr_of_several_hosts_stays_shared(world):
    sr = await world.make_sr()
    with world.db.transaction() as tx:
        other = tx.create("host", {"name_label": "second"})
    fields = {"host": other, "SR": sr, "device_config": DEVICE_CONFIG, "other_config": {}}
    pbd = await world.call("PBD.create", fields)
    assert (await refusal(world.call("SR.set_shared", sr, False)))[0] == "SR_HAS_MULTIPLE_PBDS"
    await world.call("PBD.destroy", pbd)
    await world.call("SR.set_shared", sr, False)
    assert world.get("SR", sr)["shared"] is False
    (plugged,) = world.get("SR", sr)["PBDs"]
    assert (await refusal(world.call("PBD.destroy", plugged)))[0] == "OPERATION_NOT_ALLOWED"


async def test_interfaces_are_looked_at_again(world):
    pifs = list(world.db.all("PIF"))
    with world.db.transaction() as tx:
        tx.set("PIF", pifs[0], MTU=1)
    await world.call("PIF.scan", world.host)
    assert world.get("PIF", pifs[0])["MTU"] > 1
    assert list(world.db.all("PIF")) == pifs


# -- host, pool


async def test_questions_to_a_host(world):
    vm = await world.make_vm()
    await world.call("VM.start", vm, False, False)
    before = await world.call("host.compute_free_memory", world.host)
    assert before == world.hypervisor.memory_bytes - 128 * MIB - OVERHEAD_BYTES or before > 0
    assert (
        await world.call("host.compute_memory_overhead", world.host) == world.get("host", world.host)["memory_overhead"]
    )
    now = world.clock.now()
    assert await world.call("host.get_servertime", world.host) == now.strftime("%Y%m%dT%H:%M:%SZ")
    local = await world.call("host.get_server_localtime", world.host)
    assert local == now.astimezone().strftime("%Y%m%dT%H:%M:%S")
    assert await world.call("host.get_uncooperative_resident_VMs", world.host) == []
    assert await world.call("host.get_vms_which_prevent_evacuation", world.host) == {vm: ["NO_HOSTS_AVAILABLE"]}
    assert await world.call("host.has_extension", world.host, "x") is False
    assert "VM.start" in await world.call("host.list_methods")


async def test_management_interface_of_a_host(world):
    pifs = list(world.db.all("PIF"))
    with world.db.transaction() as tx:
        for pif in pifs:
            tx.set("PIF", pif, management=False)
    assert await refusal(world.call("host.get_management_interface", world.host)) == ["HOST_HAS_NO_MANAGEMENT_IP"]
    with world.db.transaction() as tx:
        tx.set("PIF", pifs[0], management=True)
    assert await world.call("host.get_management_interface", world.host) == pifs[0]


async def test_records_of_a_host_are_read_again(world):
    with world.db.transaction() as tx:
        tx.set("host", world.host, hostname="wrong")
    await world.call("host.sync_data", world.host)
    assert world.get("host", world.host)["hostname"] == world.hypervisor.hostname


async def test_questions_to_the_pool(world):
    (pool,) = world.db.all("pool")
    assert await world.call("pool.get_license_state", pool) == {"edition": "free", "expiry": "never"}
    assert await world.call("pool.has_extension", pool, "x") is False
    assert await world.call("pool.is_slave", world.host) is False
    assert await world.call("pool.get_guest_secureboot_readiness", pool) == "not_ready"
    assert await world.call("VM.get_secureboot_readiness", await world.make_vm()) == "not_supported"
    assert await world.call("pool.sync_database") is None


@pytest.mark.parametrize("field", ["default_SR", "suspend_image_SR", "crash_dump_SR"])
async def test_storage_that_the_pool_uses_itself(world, field):
    (pool,) = world.db.all("pool")
    sr = await world.make_sr()
    await world.call(f"pool.set_{field}", pool, sr)
    assert world.get("pool", pool)[field] == sr
    assert (await refusal(world.call(f"pool.set_{field}", pool, "OpaqueRef:no")))[0] == "HANDLE_INVALID"
    await world.call(f"pool.set_{field}", pool, "")
    assert world.get("pool", pool)[field] == "OpaqueRef:NULL"


# -- what is about the API itself


async def test_number_of_the_last_event_rises(world):
    before = await world.call("event.get_current_id")
    await world.make_vm()
    assert await world.call("event.get_current_id") > before


async def test_secret_with_a_uuid_of_its_own(world):
    uuid = "00000000-0000-0000-0000-00000000000a"
    ref = await world.call("secret.introduce", uuid, "hush hush", {"for": "test"})
    assert await world.call("secret.get_by_uuid", uuid) == ref
    assert await world.call("secret.get_value", ref) == "hush hush"
    again = await refusal(world.call("secret.introduce", uuid, "other", {}))
    assert again[0] == "DB_UNIQUENESS_CONSTRAINT_VIOLATION"


async def test_fields_of_a_task_that_a_client_made(world):
    task = await world.call("task.create", "mine", "")
    await world.call("task.set_other_config", task, {"a": "1", "b": "2"})
    await world.call("task.remove_from_other_config", task, "a")
    await world.call("task.set_result", task, "<value>x</value>")
    await world.call("task.set_error_info", task, ["MY_ERROR", "detail"])
    record = world.get("task", task)
    assert (record["other_config"], record["result"]) == ({"b": "2"}, "<value>x</value>")
    assert record["error_info"] == ["MY_ERROR", "detail"]


async def test_local_session_ends(world):
    session = world.api.local_session()
    assert await world.api.call("session.get_auth_user_name", session, session) == "root"
    await world.api.call("session.local_logout", session)
    assert await refusal(world.api.call("VM.get_all", session)) == ["SESSION_INVALID", session]


async def test_password_opens_a_session_on_a_host_that_is_the_coordinator(world):
    world.api.accounts.open("correct horse")
    ref = await world.api.call("session.slave_local_login_with_password", "root", "correct horse")
    assert await world.api.call("session.get_is_local_superuser", ref, ref) is True
    wrong = await refusal(world.api.call("session.slave_local_login_with_password", "root", "wrong"))
    assert wrong[0] == "SESSION_AUTHENTICATION_FAILED"
    assert (await refusal(world.api.call("session.slave_login", world.host, "x")))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert (await refusal(world.api.call("session.slave_local_login", "x")))[0] == "SESSION_AUTHENTICATION_FAILED"


# -- VDI


async def test_what_a_disk_does_when_its_machine_starts(world):
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    await world.call("VDI.set_on_boot", vdi, "persist")
    assert await refusal(world.call("VDI.set_on_boot", vdi, "reset")) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert (await refusal(world.call("VDI.set_on_boot", vdi, "never")))[0] in ("INVALID_VALUE", "FIELD_TYPE_ERROR")
    assert world.get("VDI", vdi)["on_boot"] == "persist"
    await world.call("VDI.set_allow_caching", vdi, True)
    assert world.get("VDI", vdi)["allow_caching"]


async def test_the_checksum_of_a_disk(world):
    vm = await world.make_vm_with_disk(await world.make_sr())
    vdi = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    world.medium(vdi).write(5 * MIB, b"something")
    whole = world.medium(vdi).read(0, world.get("VDI", vdi)["virtual_size"])
    assert await world.call("VDI.checksum", vdi) == hashlib.md5(whole, usedforsecurity=False).hexdigest()
    assert world.openings() == []
    await world.call("VM.start", vm, False, False)
    assert (await refusal(world.call("VDI.checksum", vdi)))[:2] == ["VDI_IN_USE", vdi]


async def test_what_several_disks_on_one_lun_cannot_do(world):
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    world.pool.drivers["lvmoiscsi"] = LvmoiscsiDriver()
    with world.db.transaction() as tx:
        tx.set("SR", sr, type="lvmoiscsi")
        tx.set("VDI", vdi, name_label="on the LUN")
    asked = {"snapshot": [{}], "clone": [{}], "enable_cbt": [], "data_destroy": [], "resize_online": [60 * MIB]}
    for message, params in asked.items():
        assert await refusal(world.call(f"VDI.{message}", vdi, *params)) == ["SR_OPERATION_NOT_SUPPORTED", sr], message
    assert await refusal(world.call("VDI.list_changed_blocks", vdi, vdi)) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert not {"snapshot", "clone", "enable_cbt"} & set(world.get("VDI", vdi)["allowed_operations"])
