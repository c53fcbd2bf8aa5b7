"""Which of several initiators may write: recorded by the group, kept by the engine, and over before another begins."""

import asyncio

import pytest

from gespann.array.model.refusals import Conflict, Failed
from gespann.array.model.sizes import GB
from gespann.seams.engine_socket import VolumeDrain
from gespann.seams.json_lines import SeamError

HERE, THERE = "iqn.2026-11.org.example:here", "iqn.2026-11.org.example:there"


async def shared_volume(control):
    volume = await control.lifecycle.create(control.lifecycle.draft("vol1", GB, 1))
    for initiator in (HERE, THERE):
        await control.policy.create_record(volume, initiator=initiator)
    await control.policy.set_volume(volume, multihost=True)
    return volume


async def test_the_right_moves_and_nobody_is_dropped(group):
    control, engine = group.control, group.engine
    volume = await shared_volume(control)
    here, there = (engine.login(volume.target_name, name) for name in (HERE, THERE))
    assert engine.write_as(here, 0, 4096)
    assert engine.write_as(there, 0, 4096)
    await control.leases.grant(volume, HERE)
    assert (engine.write_as(here, 0, 4096), engine.write_as(there, 0, 4096)) == (True, False)
    await control.leases.grant(volume, THERE, instead_of=HERE)
    assert (engine.write_as(here, 0, 4096), engine.write_as(there, 0, 4096)) == (False, True)
    assert isinstance(engine.requests[-1], VolumeDrain), "answered when all that was under way has landed"
    with pytest.raises(Conflict):
        await control.leases.grant(volume, HERE, instead_of=HERE)
    assert not engine.write_as(here, 0, 4096)
    await control.leases.release(volume)
    assert engine.write_as(here, 0, 4096)


async def test_the_right_stands_through_a_restart_of_group_and_engine(group):
    volume = await shared_volume(group.control)
    await group.control.leases.grant(volume, THERE)
    await group.restart()
    group.engine.lose()
    group.engine.come_back()
    async with asyncio.timeout(120):
        await group.control.data_plane.current.wait()
    here, there = (group.engine.login(volume.target_name, name) for name in (HERE, THERE))
    assert (group.engine.write_as(here, 0, 4096), group.engine.write_as(there, 0, 4096)) == (False, True)


async def test_what_has_not_ended_is_told_and_the_repeat_waits_for_it_again(group):
    control, engine = group.control, group.engine
    volume = await shared_volume(control)
    engine.fail("volume.drain", error=SeamError("TIMEOUT", "commands did not finish"))
    with pytest.raises(Failed, match="Repeat the command"):
        await control.leases.grant(volume, THERE)
    drained = sum(isinstance(request, VolumeDrain) for request in engine.requests)
    await control.leases.grant(volume, THERE)
    assert sum(isinstance(request, VolumeDrain) for request in engine.requests) == drained + 1


async def test_it_ends_with_the_last_record_of_a_volume_that_is_offline(group):
    control = group.control
    volume = await shared_volume(control)
    await control.leases.grant(volume, THERE)
    await control.policy.delete_record(volume, 2)
    assert control.volumes.get("vol1").lease_holder == THERE, "nobody writes, rather than one more"
    await control.lifecycle.set_online(volume, False)
    assert control.volumes.get("vol1").lease_holder == THERE
    await control.policy.delete_record(volume, 1)
    assert control.volumes.get("vol1").lease_holder == ""
