"""What happens by itself, without anybody asking."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gespann.pool.plan.allowed_operations import rules_mark
from gespann.pool.reconcile import reconciler as reconciler_module
from gespann.pool.steps.notices import PRIORITY
from gespann.seams.json_lines import SeamError
from gespann.seams.sr_driver import Opening, Sr, SrStat, VolumeSpec
from gespann.seams.xenapi.errors import XenApiError
from gespann.seams.xenapi.unfinished import going_label, unfinished_label
from tests.unit.pool.world import DEVICE_CONFIG, MIB, World, until


async def running(world: World, **fields: Any) -> str:
    sr = await world.make_sr()
    vm = await world.make_vm("web1", **fields)
    await world.make_vbd(vm, await world.make_vdi(sr))
    await world.call("VM.start", vm, False, False)
    return vm


def uuid_of(world: World, vm: str) -> str:
    return world.get("VM", vm)["uuid"]


async def test_a_guest_that_powers_off_leaves_nothing_open(world: World) -> None:
    vm = await running(world)
    await world.hypervisor.guest_poweroff(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and world.openings() == [])


async def test_a_guest_that_shall_restart_does(world: World) -> None:
    vm = await running(world, actions_after_shutdown="restart")
    (first,) = world.openings()
    await world.hypervisor.guest_poweroff(uuid_of(world, vm))
    await until(lambda: world.openings() not in ([], [first]) and world.get("VM", vm)["power_state"] == "Running")


@pytest.mark.parametrize(("age_s", "then"), [(10, "Halted"), (300, "Running")])
async def test_a_crash_is_followed_by_a_restart_unless_it_came_at_once(world: World, age_s: float, then: str) -> None:
    vm = await running(world, actions_after_crash="restart")
    (first,) = world.openings()
    metrics = world.get("VM", vm)["metrics"]
    began = (world.clock.now() - timedelta(seconds=age_s)).strftime("%Y%m%dT%H:%M:%SZ")
    with world.db.transaction() as tx:
        tx.set("VM_metrics", metrics, start_time=began)
    await world.hypervisor.crash(uuid_of(world, vm))
    await until(lambda: first not in world.openings() and world.get("VM", vm)["power_state"] == then)
    await until(lambda: world.reconciler.quiet)
    assert world.get("VM", vm)["power_state"] == then
    assert len(world.openings()) == (then == "Running")


async def test_a_machine_that_stopped_while_nobody_looked(world: World) -> None:
    vm = await running(world)
    await world.power_cut()
    world.hypervisor._told = lambda event: None
    await world.hypervisor.guest_poweroff(uuid_of(world, vm))
    await world.boot()
    assert world.get("VM", vm)["power_state"] == "Halted"
    assert world.openings() == []


async def test_a_machine_that_runs_on_is_taken_up_again(world: World) -> None:
    vm = await running(world)
    opened = world.openings()
    await world.power_cut()
    await world.boot()
    record = world.get("VM", vm)
    assert record["power_state"] == "Running"
    assert {world.get("console", c)["protocol"] for c in record["consoles"]} == {"vt100", "rfb"}
    assert world.db.find("VM_metrics", record["metrics"]) is not None
    assert world.openings() == opened
    await until(lambda: world.db.find("VM_guest_metrics", world.get("VM", vm)["guest_metrics"]) is not None)
    await world.call("VM.clean_shutdown", vm)
    assert world.openings() == []


async def test_an_io_error_shows_as_paused(world: World) -> None:
    vm = await running(world)
    world.hypervisor.io_error(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Paused")
    await world.call("VM.unpause", vm)
    assert world.get("VM", vm)["power_state"] == "Running"


async def test_a_guest_shows_its_addresses(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    from tests.unit.pool.world import vif_fields

    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:01:02"))
    await world.call("VM.start", vm, False, False)

    def address() -> str:
        guest = world.db.find("VM_guest_metrics", world.get("VM", vm)["guest_metrics"])
        return guest["networks"].get("0/ip", "") if guest else ""

    await until(lambda: address() == "10.254.1.2")


async def test_what_could_not_be_undone_is_undone_later(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    before = world.snapshot()
    world.hypervisor.fail_next("create", SeamError("STORAGE", "could not log in"))
    close = world.driver.close

    async def refuse(*args: Any) -> None:
        raise_unreachable()

    world.driver.close = refuse  # type: ignore[method-assign]
    with pytest.raises(XenApiError) as failed:
        await world.call("VM.start", vm, False, False)
    assert failed.value.code == "SR_BACKEND_FAILURE_46"
    assert any("undoing it failed too" in note for note in failed.value.__notes__)
    assert world.work.stalled == ["VM.start"]
    assert list(world.get("VM", vm)["current_operations"].values()) == ["start"]
    world.driver.close = close  # type: ignore[method-assign]
    await world.reconciler.round(1)
    assert world.work.stalled == []
    assert world.snapshot() == before


def raise_unreachable() -> None:
    from gespann.seams.sr_driver import SrError

    raise SrError(164, "Failed to connect to the array", "it is unreachable")


async def test_who_finds_a_stalled_operation_in_the_way_tries_it_first(world: World) -> None:
    vm = await running(world)
    world.storage.reachable = False
    with pytest.raises(XenApiError) as failed:
        await world.call("VM.hard_shutdown", vm)
    assert failed.value.code == "SR_BACKEND_FAILURE_164"
    assert world.get("VM", vm)["power_state"] == "Halted"  # there is no machine any more
    with pytest.raises(XenApiError) as refused:
        await world.call("VM.start", vm, False, False)
    assert refused.value.code == "OTHER_OPERATION_IN_PROGRESS"
    world.storage.reachable = True
    await world.call("VM.start", vm, False, False)
    assert len(world.openings()) == 1


async def test_a_host_that_does_not_answer_is_said_to_be_offline(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    before = world.snapshot()
    world.agent.reachable = False
    with pytest.raises(XenApiError) as failed:
        await world.call("VM.start", vm, False, False)
    assert failed.value.code == "HOST_OFFLINE"
    world.agent.reachable = True
    await world.reconciler.round(1)
    assert world.snapshot() == before
    await world.call("VM.start", vm, False, False)


async def test_a_stray_opening_is_closed_and_others_are_not(world: World) -> None:
    vm = await running(world)
    known = world.openings()
    vdi = await world.make_vdi(next(iter(world.db.all("SR"))), "other")
    from gespann.pool.steps.storage_door import sr_as_driver_sees_it

    seen = sr_as_driver_sees_it(world.db, world.get("VDI", vdi)["SR"])
    stray = Opening("stray-1", "RW", "iqn.2026-01.org.gespann:stray", "stray-1", "secretsecret")
    await world.driver.open(seen, world.get("VDI", vdi)["uuid"], stray)
    assert await world.reconciler.sweep() == 1
    assert world.openings() == known
    assert world.get("VM", vm)["power_state"] == "Running"


async def test_a_scan_finds_what_is_new_and_marks_what_is_gone(world: World) -> None:
    sr = await world.make_sr()
    lost = await world.make_vdi(sr, "lost")
    held = world.storage.srs[world.get("SR", sr)["uuid"]]
    held.volumes.pop(world.get("VDI", lost)["uuid"])
    from gespann.pool.steps.storage_door import sr_as_driver_sees_it

    found = VolumeSpec("11111111-2222-3333-4444-555555555555", 30 * MIB, "found", "on the array")
    await world.driver.volume_create(sr_as_driver_sees_it(world.db, sr), found)
    await world.call("SR.scan", sr)
    assert world.get("VDI", lost)["missing"]
    (ref,) = [r for r, rec in world.db.all("VDI").items() if rec["name_label"] == "found"]
    assert (world.get("VDI", ref)["virtual_size"], world.get("VDI", ref)["SR"]) == (30 * MIB, sr)
    await world.call("VDI.destroy", lost)


async def test_an_sr_comes_back_from_its_array_alone(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr, "kept")
    uuids = world.get("SR", sr)["uuid"], world.get("VDI", vdi)["uuid"]
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    await world.call("SR.forget", sr)
    assert world.db.all("secret") == {}
    again = await world.call("SR.introduce", uuids[0], "array", "", "memory", "user", True, {})
    fields = {"SR": again, "host": world.host, "device_config": DEVICE_CONFIG, "other_config": {}}
    await world.call("PBD.plug", await world.call("PBD.create", fields))
    assert [world.get("VDI", v)["uuid"] for v in world.get("SR", again)["VDIs"]] == [uuids[1]]


async def test_hosts_that_log_in_by_one_name_do_so_too_when_an_sr_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who introduces it says no more than who has made it: target, name, which LUN."""
    info = world.driver.info
    keys = {**info.configuration, "localIQN": "Name by which all hosts log in"}
    monkeypatch.setattr(world.driver, "info", replace(info, configuration=keys))
    await world.call("host.set_iscsi_iqn", world.host, "iqn.2026-11.org.example:first")
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    assert world.get("PBD", pbd)["device_config"]["localIQN"] == "iqn.2026-11.org.example:first"
    uuid = world.get("SR", sr)["uuid"]
    await world.call("PBD.unplug", pbd)
    await world.call("SR.forget", sr)
    again = await world.call("SR.introduce", uuid, "array", "", "memory", "user", True, {})
    fields = {"SR": again, "host": world.host, "device_config": DEVICE_CONFIG, "other_config": {}}
    pbd = await world.call("PBD.create", fields)
    assert world.get("PBD", pbd)["device_config"]["localIQN"] == "iqn.2026-11.org.example:first"
    await world.call("host.set_iscsi_iqn", world.host, "iqn.2026-11.org.example:renamed")
    await world.call("PBD.set_device_config", pbd, DEVICE_CONFIG)
    assert world.get("PBD", pbd)["device_config"]["localIQN"] == "iqn.2026-11.org.example:first"


async def test_an_sr_is_introduced_once_however_its_uuid_is_spelled(world: World) -> None:
    """Two records of one repository would each give its disks to machines."""
    sr = await world.make_sr()
    uuid = world.get("SR", sr)["uuid"]
    for spelled in (uuid, uuid.upper()):
        with pytest.raises(XenApiError) as refused:
            await world.call("SR.introduce", spelled, "again", "", "memory", "user", True, {})
        assert [refused.value.code, *refused.value.params] == ["SR_UUID_EXISTS", uuid]
    for wrong in ("zz", uuid + "0", "{" + uuid + "}", uuid.replace("-", "")):
        with pytest.raises(XenApiError) as refused:
            await world.call("SR.introduce", wrong, "again", "", "memory", "user", True, {})
        assert [refused.value.code, *refused.value.params] == ["UUID_INVALID", "SR", wrong]
    new = world.get("SR", await world.call("SR.introduce", "", "new", "", "memory", "user", True, {}))["uuid"]
    assert len(new) == len(uuid)
    assert new != uuid


async def test_secrets_are_in_secret_objects_only(world: World) -> None:
    world.storage.password = "extraordinarily secret"
    config = {**DEVICE_CONFIG, "password": "extraordinarily secret"}
    sr = await world.call("SR.create", world.host, config, 0, "a", "", "memory", "user", True, {})
    (pbd,) = world.get("SR", sr)["PBDs"]
    shown = world.get("PBD", pbd)["device_config"]
    assert "password" not in shown
    (secret,) = world.db.all("secret").values()
    assert (shown["password_secret"], secret["value"]) == (secret["uuid"], "extraordinarily secret")
    for class_name, table in world.db.tables.items():
        assert class_name == "secret" or "extraordinarily secret" not in str(table)
    with pytest.raises(XenApiError):
        await world.call("SR.create", world.host, {**config, "storagepool": ""}, 0, "b", "", "memory", "user", True, {})
    assert len(world.db.all("secret")) == 1


async def test_the_dialogue_that_lists_storage_pools(world: World) -> None:
    before = world.snapshot()
    config = {key: value for key, value in DEVICE_CONFIG.items() if key != "storagepool"}
    with pytest.raises(XenApiError) as refused:
        await world.call("SR.create", world.host, config, 0, "__gui__", "", "memory", "", True, {})
    assert (refused.value.code, refused.value.params[0]) == ("SR_BACKEND_FAILURE_163", "")
    assert "<Name>default</Name>" in refused.value.params[2]
    assert world.snapshot() == before
    xml = await world.call("SR.probe", world.host, config, "memory", {})
    assert xml.startswith("<?xml")


async def test_a_wrong_password_leaves_nothing(world: World) -> None:
    before = world.snapshot()
    with pytest.raises(XenApiError) as refused:
        await world.call(
            "SR.create", world.host, {**DEVICE_CONFIG, "password": "wrong!"}, 0, "a", "", "memory", "", True, {}
        )
    assert refused.value.code == "SR_BACKEND_FAILURE_169"
    world.storage.reachable = False
    with pytest.raises(XenApiError) as refused:
        await world.make_sr()
    assert refused.value.code == "SR_BACKEND_FAILURE_164"
    world.storage.reachable = True
    assert world.work.stalled == []
    assert world.snapshot() == before


async def test_the_reconciler_outlives_what_nobody_foresaw(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in one look or one round ends that one, not all that would have come after it."""
    vm = await running(world)
    faults = []

    async def fault(*_: Any) -> Any:
        faults.append("fault")
        raise RuntimeError("nobody foresaw this")

    with monkeypatch.context() as patched:
        patched.setattr("gespann.pool.reconcile.reconciler.look_at_host", fault)
        patched.setattr(world.reconciler, "round", fault)
        world.reconciler.agent_up(world.pool.db.get("VM", vm)["resident_on"])
        await until(lambda: faults != [] and world.reconciler.quiet)
        seen = len(faults)
        world.clock.advance(60)
        await until(lambda: len(faults) > seen)
    await world.hypervisor.guest_poweroff(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and world.openings() == [])
    rounds = []

    async def count(number: int) -> None:
        rounds.append(number)

    monkeypatch.setattr(world.reconciler, "round", count)
    world.clock.advance(60)
    await until(lambda: rounds != [])


async def test_a_host_made_by_an_earlier_release_tells_this_one_s_versions(world: World) -> None:
    (host,) = world.db.all("host")
    old = {**world.get("host", host)["software_version"], "product_version": "1.0", "API_version": "2.21"}
    with world.db.transaction() as tx:
        tx.set("host", host, API_version_minor=21, software_version=old)
    await world.power_cut()
    await world.boot()
    (host,) = world.db.all("host")
    record = world.get("host", host)
    assert (record["API_version_major"], record["API_version_minor"]) == (2, 23)
    assert record["software_version"]["API_version"] == "2.23"
    assert record["software_version"]["product_version"] != "1.0"


async def test_what_an_unfinished_install_left_is_taken_away(world: World) -> None:
    sr = await world.make_sr()
    template = await world.make_vm("tiny", is_a_template=True)
    await world.make_vbd(template, await world.make_vdi(sr), other_config={"owner": ""})
    before = world.snapshot()
    await world.call("VM.copy", template, unfinished_label("web1"), sr)
    await world.power_cut()
    await world.boot()
    assert world.snapshot() == before


async def test_an_unfinished_install_waits_for_an_array_that_is_away(world: World) -> None:
    sr = await world.make_sr()
    template = await world.make_vm("tiny", is_a_template=True)
    await world.make_vbd(template, await world.make_vdi(sr), other_config={"owner": ""})
    before = world.snapshot()
    await world.call("VM.clone", template, unfinished_label("web1"))
    await world.power_cut()
    world.storage.reachable = False
    await world.boot()
    assert world.snapshot() != before
    world.storage.reachable = True
    await world.reconciler.round(1)
    await world.reconciler.round(2)
    assert world.snapshot() == before


async def test_what_an_uninstall_that_was_cut_short_left_is_taken_away(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm("web1")
    for name in ("root", "data"):
        vbd = await world.make_vbd(vm, await world.make_vdi(sr, name), other_config={"owner": ""})
    snapshot = await world.call("VM.snapshot", vm, "monday")
    for going in (vm, snapshot):
        await world.call("VM.set_name_label", going, going_label("web1"))
    await world.call("VDI.destroy", world.get("VBD", vbd)["VDI"])
    await world.power_cut()
    await world.boot()
    assert [world.db.find("VM", going) for going in (vm, snapshot)] == [None, None]
    assert world.db.all("VDI") == {}
    world.assert_nothing_orphaned()


async def test_a_whole_machine_is_not_taken_for_an_unfinished_one(world: World) -> None:
    vm = await world.make_vm("vm-install web1")
    await world.power_cut()
    await world.boot()
    assert world.get("VM", vm)["name_label"] == "vm-install web1"


async def test_a_crash_leaves_one_alert_and_a_guest_that_powers_off_none(world: World) -> None:
    vm = await running(world)
    await world.hypervisor.crash(uuid_of(world, vm))

    def alerts() -> list[Mapping[str, Any]]:
        """What is more than a note that something happened as asked."""
        return [record for record in world.db.all("message").values() if record["priority"] < PRIORITY]

    await until(alerts)
    (alert,) = alerts()
    assert (alert["name"], alert["priority"], alert["cls"]) == ("VM_CRASHED", 2, "VM")
    assert alert["obj_uuid"] == uuid_of(world, vm)
    await world.call("VM.start", vm, False, False)
    await world.hypervisor.guest_poweroff(uuid_of(world, vm))
    await until(lambda: world.get("VM", vm)["power_state"] == "Halted" and world.reconciler.quiet)
    assert alerts() == [alert]


async def test_allowed_operations_are_derived_anew_only_under_other_rules(world, monkeypatch):
    vm = await world.make_vm()
    world.db._derivers.clear()
    with world.db.transaction() as tx:
        tx.set("VM", vm, allowed_operations=["start"])
    await world.power_cut()
    await world.boot()
    assert world.get("VM", vm)["allowed_operations"] == ["start"]
    await world.power_cut()
    monkeypatch.setattr(reconciler_module, "rules_mark", lambda drivers: "others")
    await world.boot()
    assert {"start", "destroy", "clone"} <= set(world.get("VM", vm)["allowed_operations"])


def test_other_capabilities_are_other_rules():
    assert rules_mark({"a": ["VDI_CLONE"]}) == rules_mark({"a": ["VDI_CLONE"]})
    assert rules_mark({"a": ["VDI_CLONE"]}) != rules_mark({"a": []})


async def test_storage_that_is_silent_is_waited_for_by_all_repositories_at_once(world: World) -> None:
    """One after the other, each would wait through the silence of those before, and so would all else in a round."""
    for name in ("one", "two", "three"):
        await world.make_sr(name)
    stat, all_asked = world.driver.stat, asyncio.Event()
    asked: list[str] = []

    async def wait_for_the_others(sr: Sr) -> SrStat:
        asked.append(sr.uuid)
        if len(asked) == 3:
            all_asked.set()
        await all_asked.wait()
        return await stat(sr)

    world.driver.stat = wait_for_the_others  # type: ignore[method-assign]
    await world.reconciler.round(12)
    assert len(set(asked)) == 3
