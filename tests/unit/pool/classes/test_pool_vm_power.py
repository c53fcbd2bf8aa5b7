"""Starting and stopping, on fakes."""

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


async def test_a_vm_starts_on_its_disks_and_leaves_nothing_behind(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.start", vm, False, False)
    record = world.get("VM", vm)
    assert (record["power_state"], record["resident_on"]) == ("Running", world.host)
    assert world.get("VBD", record["VBDs"][0])["currently_attached"]
    assert len(world.openings()) == 1
    assert {world.get("console", c)["protocol"] for c in record["consoles"]} == {"vt100", "rfb"}
    await until(lambda: world.db.find("VM_guest_metrics", world.get("VM", vm)["guest_metrics"]) is not None)

    await world.call("VM.clean_shutdown", vm)
    record = world.get("VM", vm)
    assert (record["power_state"], record["resident_on"], record["consoles"]) == ("Halted", NULL_REF, [])
    assert not world.get("VBD", record["VBDs"][0])["currently_attached"]
    assert world.openings() == []
    assert world.work.journal.entries() == []


async def test_each_start_has_a_name_and_a_secret_of_its_own(world: World) -> None:
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    seen = set()
    for _ in range(2):
        await world.call("VM.start", vm, False, False)
        (held,) = [v for s in world.storage.srs.values() for v in s.volumes.values()]
        (opening,) = held.openings.values()
        seen.add((opening.initiator, opening.chap_user, opening.chap_secret))
        assert opening.chap_secret not in "".join(str(r) for r in world.db.sqlite.iterdump())
        await world.call("VM.hard_shutdown", vm)
    assert len({name for name, _, _ in seen}) == len({secret for _, _, secret in seen}) == 2


async def test_a_running_vm_is_not_started_again(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    with pytest.raises(XenApiError) as refused:
        await world.call("VM.start", vm, False, False)
    assert (refused.value.code, refused.value.params) == ("VM_BAD_POWER_STATE", [vm, "halted", "running"])
    assert "start" not in world.get("VM", vm)["allowed_operations"]
    assert "hard_shutdown" in world.get("VM", vm)["allowed_operations"]


async def test_the_array_unreachable_leaves_nothing_half_made(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    before = world.snapshot()
    world.storage.reachable = False
    with pytest.raises(XenApiError) as failed:
        await world.call("VM.start", vm, False, False)
    assert failed.value.code == "SR_BACKEND_FAILURE_164"
    world.storage.reachable = True
    await world.call("VM.start", vm, False, False)
    await world.call("VM.hard_shutdown", vm)
    assert world.snapshot() == before


async def test_a_guest_that_does_not_obey_goes_on_running(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    world.hypervisor._sleep = lambda delay: until(lambda: True)
    world.hypervisor.behave(world.get("VM", vm)["uuid"], GuestBehaviour(obeys_shutdown=False))
    with pytest.raises(XenApiError) as failed:
        await world.call("VM.clean_shutdown", vm)
    assert (failed.value.code, failed.value.params) == ("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", [vm])
    assert world.get("VM", vm)["power_state"] == "Running"
    await world.call("VM.hard_shutdown", vm)
    assert world.openings() == []
