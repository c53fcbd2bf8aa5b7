"""Who may join a pool, who may leave it, and what is refused without changing anything."""

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World

MASTER = ("127.0.0.1:1", "root", "secret")


@pytest.mark.parametrize("method", ["pool.join", "pool.join_force"])
async def test_what_a_host_must_not_have_when_it_joins(world: World, method: str) -> None:
    async def refusal() -> str:
        with pytest.raises(XenApiError) as refused:
            await world.call(method, *MASTER)
        return refused.value.code

    vm = await world.make_vm()
    assert await refusal() == "OPERATION_NOT_ALLOWED"  # it would be lost
    await world.call("VM.start", vm, False, False)
    assert await refusal() == "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS"
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.destroy", vm)
    await world.make_sr()
    assert await refusal() == "JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS"
    await world.second_host()
    assert await refusal() == "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS"


async def test_a_pool_takes_no_host_twice_nor_a_stranger_version_nor_another_processor(world: World) -> None:
    far = await world.make_far_host()
    before = world.snapshot()
    for changed, code in (
        ({"product_version": "0.0"}, "POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION"),
        ({"cpu_vendor": "Other"}, "HOSTS_NOT_HOMOGENEOUS"),
        ({"door_port": 0}, "INVALID_VALUE"),
        ({"host_uuid": "11111111-2222-3333-4444-555555555555"}, "HOST_MASTER_CANNOT_TALK_BACK"),
    ):
        with pytest.raises(XenApiError) as refused:
            await world.join(far, **changed)
        assert refused.value.code == code
        assert world.snapshot() == before
    await world.join(far, cpu_vendor="Other", force=True)
    with pytest.raises(XenApiError, match="member of this pool already"):
        await world.join(far)


async def test_shared_storage_is_plugged_on_the_newcomer_and_gone_with_it(world: World) -> None:
    sr = await world.make_sr()
    host = await world.second_host()
    assert {
        world.get("PBD", pbd)["host"]: world.get("PBD", pbd)["currently_attached"]
        for pbd in world.get("SR", sr)["PBDs"]
    } == {
        world.host: True,
        host: True,
    }
    assert world.get("host", host)["enabled"]
    await world.call("pool.eject", host)
    assert [world.get("PBD", pbd)["host"] for pbd in world.get("SR", sr)["PBDs"]] == [world.host]
    assert list(world.db.all("host")) == [world.host]
    assert len(world.db.all("host_metrics")) == 1


async def test_who_cannot_be_ejected_or_forgotten(world: World) -> None:
    host = await world.second_host()
    vm = await world.make_vm()
    await world.call("VM.start_on", vm, host, False, False)
    for method, ref, code in (
        ("pool.eject", world.host, "HOST_CANNOT_DESTROY_SELF"),
        ("pool.eject", host, "HOST_HAS_RESIDENT_VMS"),
        ("host.destroy", host, "HOST_HAS_RESIDENT_VMS"),
    ):
        with pytest.raises(XenApiError) as refused:
            await world.call(method, ref)
        assert refused.value.code == code
    await world.call("VM.hard_shutdown", vm)
    with pytest.raises(XenApiError) as refused:
        await world.call("host.destroy", host)
    assert refused.value.code == "HOST_IS_LIVE"
    far = next(iter(world.far.values()))
    far.reachable = False
    world.reconciler.agent_down(host)
    with pytest.raises(XenApiError) as refused:
        await world.call("pool.eject", host)
    assert refused.value.code == "HOST_OFFLINE"
    await world.call("host.destroy", host)
    assert list(world.db.all("host")) == [world.host]
