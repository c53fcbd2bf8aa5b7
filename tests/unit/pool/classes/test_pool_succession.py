"""Who leads the pool: what is refused, what other hosts have of it, and what a host finds that leads from a copy."""

import pytest

from gespann.pool.plan.shapes import Lock
from gespann.pool.succession.succession import succession_of
from gespann.pool.succession.terms import hosts_to_adopt, term_of
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.leads import take_over
from tests.unit.pool.world import World, until


async def refusal(world: World, method: str, *params: object) -> str:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return refused.value.code


async def test_what_is_not_given_away(world: World) -> None:
    far = await world.make_far_host()
    host = await world.join(far)
    await world.call("pool.designate_new_master", world.host)  # it leads already
    vm = await world.make_vm()
    before = world.snapshot()
    with world.work.holding(Lock("VM", vm, "export")):
        assert await refusal(world, "pool.designate_new_master", host) == "OTHER_OPERATION_IN_PROGRESS"
    far.reachable = False
    assert await refusal(world, "pool.designate_new_master", host) == "HOST_OFFLINE"
    world.reconciler.agent_down(host)
    assert await refusal(world, "pool.designate_new_master", host) == "HOST_OFFLINE"
    assert world.snapshot() == before
    assert await refusal(world, "pool.emergency_reset_master", "10.0.0.9") == "OPERATION_NOT_ALLOWED"
    await world.call("pool.emergency_transition_to_master")
    assert await world.call("host.is_in_emergency_mode") is False
    await world.call("VM.set_name_label", vm, "goes on")


async def test_nothing_is_acknowledged_while_the_pool_is_given_away(world: World) -> None:
    vm = await world.make_vm()
    gone = XenApiError("HOST_IS_SLAVE", ["10.0.0.6"])
    world.db.hold_still(None, gone)
    assert await refusal(world, "VM.set_name_label", vm, "lost") == "HOST_IS_SLAVE"
    world.db.hold_still("operation", gone)
    for method, *params in (("VM.set_name_label", vm, "lost"), ("VM.start", vm, False, False), ("VM.destroy", vm)):
        assert await refusal(world, method, *params) == "HOST_IS_SLAVE"
    assert world.running() == {}
    world.db.go_on()
    await world.call("VM.start", vm, False, False)


async def test_every_other_host_has_a_copy_when_it_was_asked_for(world: World) -> None:
    await world.call("pool.sync_database")  # nobody is there to have one
    far = await world.make_far_host()
    host = await world.join(far)
    assert far.membership.copy.about is None
    await world.call("pool.sync_database")
    first = far.membership.copy.about
    assert first is not None
    await world.make_vm()
    await world.call("pool.sync_database")
    assert far.membership.copy.about is not None
    assert far.membership.copy.about.copy_id != first.copy_id
    assert await world.call("pool.recover_slaves") == [host]
    far.reachable = False
    assert await world.call("pool.recover_slaves") == []
    assert await refusal(world, "pool.sync_database") == "HOST_OFFLINE"


async def test_copies_follow_what_changes_and_are_vouched_for_while_nothing_does(world: World) -> None:
    far = await world.make_far_host()
    await world.join(far)
    succession = succession_of(world.pool)
    await succession.tick()
    first = far.membership.copy.about
    assert first is not None
    await world.make_vm()
    await succession.tick()  # too soon after the last
    assert far.membership.copy.about == first
    world.clock.advance(31)
    await succession.tick()
    second = far.membership.copy.about
    assert second is not None
    assert second.copy_id != first.copy_id
    world.clock.advance(61)
    await succession.tick()
    third = far.membership.copy.about
    assert third is not None
    assert (third.copy_id, third.taken_at > second.taken_at) == (second.copy_id, True)
    # an agent that was away has it as soon as it is back
    far.membership.copy.forget()
    succession._spread.clear()
    await succession.tick()
    assert far.membership.copy.about is not None


async def test_machines_that_the_copy_does_not_know_to_run_go_on(world: World) -> None:
    sr = await world.make_sr()
    far = await world.make_far_host()
    host = await world.join(far)
    early, late, moved = [await world.make_vm_with_disk(sr, name) for name in ("early", "late", "moved")]
    await world.call("VM.start_on", early, host, False, False)
    await world.call("VM.start_on", moved, world.host, False, False)
    await world.call("pool.sync_database")
    old_host, old_address = world.host, world.address
    await world.call("VM.start_on", late, host, False, False)
    await world.call("VM.pool_migrate", moved, host, {})
    await world.call("VM.set_name_label", early, "not in the copy")
    started = {uuid: machine.domain.start_id for uuid, machine in world.running().items()}

    await take_over(world, far.address)
    assert world.host == host
    assert {uuid: machine.domain.start_id for uuid, machine in world.running().items()} == started
    for vm in (early, late, moved):
        assert world.get("VM", vm)["power_state"] == "Running"
        assert world.get("VM", vm)["resident_on"] == host
    assert world.get("VM", early)["name_label"] == "early"
    assert hosts_to_adopt(world.db) == set()
    assert world.far[old_address].membership.reply().state == "member"  # the other machine obeys when it is reached
    assert await world.reconciler.sweep() == 0
    world.assert_nothing_orphaned()
    for vm in (early, late, moved):
        await world.call("VM.hard_shutdown", vm)
    assert world.openings() == []
    await world.call("VM.start_on", late, old_host, False, False)


async def test_nothing_is_tidied_up_while_a_host_has_not_been_seen_since_the_copy(world: World) -> None:
    sr = await world.make_sr()
    far = await world.make_far_host()
    await world.join(far)
    vm = await world.make_vm_with_disk(sr)
    await world.call("pool.sync_database")
    away, address = world.host, world.address
    await world.call("VM.start_on", vm, away, False, False)
    opened = world.openings()
    await take_over(world, far.address, cut_off=True)
    assert hosts_to_adopt(world.db) == {away}
    assert await world.reconciler.sweep() == 0
    assert world.openings() == opened
    world.far[address].reachable = True
    await world.reconciler.round(6)
    await until(lambda: not hosts_to_adopt(world.db))
    assert world.get("VM", vm)["power_state"] == "Running"
    assert world.get("VM", vm)["resident_on"] == away
    assert hosts_to_adopt(world.db) == set()


async def test_hosts_obey_the_highest_epoch_that_they_have_seen(world: World) -> None:
    far, third = await world.make_far_host(), await world.make_far_host("host3")
    host, other = await world.join(far), await world.join(third)
    await world.call("pool.sync_database")
    first = term_of(world.db).epoch
    await take_over(world, far.address)
    assert term_of(world.db).epoch > first
    assert third.membership.leader == (term_of(world.db).epoch, far.address)
    assert world.host == host
    # what led before asks again: it is told who leads now, and asks for nothing
    world.db.sqlite.execute("UPDATE pool_term SET epoch = ?", (first,))
    assert await refusal(world, "VM.start_on", await world.make_vm(), other, False, False) == "HOST_OFFLINE"
    assert world.links.leader_seen(other)[0] > first


async def test_what_has_changed_is_not_told_from_a_copy_that_may_be_old(world: World) -> None:
    far = await world.make_far_host()
    vdi = await world.make_vdi(await world.make_sr())
    await world.join(far)
    await world.call("VDI.enable_cbt", vdi)
    monday = await world.call("VDI.snapshot", vdi, {})
    world.clock.advance(1.0)
    tuesday = await world.call("VDI.snapshot", vdi, {})
    await world.call("VDI.data_destroy", monday)
    await world.call("VDI.list_changed_blocks", monday, tuesday)
    await world.call("pool.sync_database")
    await take_over(world, far.address)
    assert await refusal(world, "VDI.list_changed_blocks", monday, tuesday) == "SR_BACKEND_FAILURE_460"
    assert await refusal(world, "VDI.list_changed_blocks", monday, vdi) == "SR_BACKEND_FAILURE_460"
    await world.call("VDI.list_changed_blocks", tuesday, vdi)
