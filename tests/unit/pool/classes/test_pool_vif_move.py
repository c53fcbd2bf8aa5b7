"""A network interface that goes to another network."""

import pytest

from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.classes.test_pool_suspend import guest, running
from tests.unit.pool.world import World


async def dmz(world: World) -> str:
    return await world.call("network.create", {"name_label": "dmz", "other_config": {}, "bridge": "br9"})


def vif_of(world: World, vm: str) -> str:
    return world.get("VM", vm)["VIFs"][0]


async def test_a_guest_keeps_its_card_and_finds_itself_elsewhere(world: World) -> None:
    vm, network = await running(world), await dmz(world)
    vif = vif_of(world, vm)
    for _ in range(2):
        await world.call("VIF.move", vif, network)
        assert guest(world, vm).bridges == {0: "br9"}
        assert (world.get("VIF", vif)["network"], world.get("VIF", vif)["currently_attached"]) == (network, True)
    assert guest(world, vm).macs == {0: "02:00:00:00:00:07"}


@pytest.mark.parametrize("state", ["Halted", "Suspended"])
async def test_of_a_machine_that_does_not_run_it_takes_effect_when_that_does(world: World, state: str) -> None:
    vm, network = await running(world), await dmz(world)
    await world.call("VM.suspend" if state == "Suspended" else "VM.hard_shutdown", vm)
    await world.call("VIF.move", vif_of(world, vm), network)
    await world.call("VM.resume" if state == "Suspended" else "VM.start", vm, False, False)
    assert guest(world, vm).bridges == {0: "br9"}


async def test_a_host_that_cannot_leaves_it_where_it_is(world: World) -> None:
    vm, network = await running(world), await dmz(world)
    before = world.snapshot()
    world.hypervisor.fail_next("nic_attach", SeamError("HYPERVISOR", "no"))
    with pytest.raises(XenApiError):
        await world.call("VIF.move", vif_of(world, vm), network)
    assert world.snapshot() == before


async def test_where_nothing_can_be_plugged_nothing_goes(world: World) -> None:
    vm, network = await running(world), await dmz(world)
    with world.db.transaction() as tx:
        tx.set("network", network, managed=False)
    with pytest.raises(XenApiError) as refused:
        await world.call("VIF.move", vif_of(world, vm), network)
    assert refused.value.code == "VM_REQUIRES_NETWORK"
