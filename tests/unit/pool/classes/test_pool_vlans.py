"""Tagged networks on the cards of hosts."""

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, vif_fields


async def refusal(world: World, method: str, *params: object) -> str:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return refused.value.code


async def make_network(world: World, bridge: str = "br100") -> str:
    return await world.call("network.create", {"name_label": bridge, "other_config": {}, "bridge": bridge})


def card(world: World) -> str:
    return next(pif for pif in world.get("host", world.host)["PIFs"] if world.get("PIF", pif)["VLAN"] == -1)


async def test_a_vlan_is_made_used_and_taken_away(world: World) -> None:
    network = await make_network(world)
    vlan = await world.call("VLAN.create", card(world), 100, network)
    pif = world.get("VLAN", vlan)["untagged_PIF"]
    assert world.get("PIF", card(world))["VLAN_slave_of"] == [vlan]
    assert world.get("PIF", pif)["currently_attached"]
    assert world.hypervisor.vlans == {("eth0", 100): "br100"}

    vm = await world.make_vm()
    await world.call("VIF.create", vif_fields(vm, network))
    await world.call("VM.start", vm, False, False)
    for method, ref in (("VLAN.destroy", vlan), ("PIF.unplug", pif)):
        assert await refusal(world, method, ref) == "VIF_IN_USE"
    await world.call("VM.hard_shutdown", vm)
    await world.call("PIF.unplug", pif)
    assert world.hypervisor.vlans == {}
    await world.call("PIF.plug", pif)
    await world.call("VLAN.destroy", vlan)
    assert world.hypervisor.vlans == {}
    assert world.get("network", network)["PIFs"] == []


async def test_by_the_older_words(world: World) -> None:
    network = await make_network(world)
    pif = await world.call("PIF.create_VLAN", "eth0", network, world.host, 100)
    assert world.get("PIF", pif)["VLAN"] == 100
    assert world.hypervisor.vlans == {("eth0", 100): "br100"}
    assert await refusal(world, "PIF.create_VLAN", "eth7", network, world.host, 200) == "PIF_DEVICE_NOT_FOUND"
    assert await refusal(world, "PIF.create_VLAN", "eth0", network, world.host, 4095) == "VLAN_TAG_INVALID"
    assert await refusal(world, "PIF.destroy", card(world)) == "PIF_IS_PHYSICAL"
    await world.call("PIF.destroy", pif)
    assert world.hypervisor.vlans == {}
    assert list(world.db.all("VLAN")) == []


async def test_what_cannot_be_a_vlan(world: World) -> None:
    network, other = await make_network(world), await make_network(world, "br200")
    vlan = await world.call("VLAN.create", card(world), 100, network)
    pif = world.get("VLAN", vlan)["untagged_PIF"]
    before = world.snapshot()
    for tag in (0, -1, 4095, 2**40):
        assert await refusal(world, "VLAN.create", card(world), tag, other) == "VLAN_TAG_INVALID"
    assert await refusal(world, "VLAN.create", card(world), 100, other) == "PIF_VLAN_EXISTS"
    assert await refusal(world, "VLAN.create", card(world), 200, network) == "NETWORK_ALREADY_CONNECTED"
    assert await refusal(world, "VLAN.create", pif, 200, other) == "PIF_IS_VLAN"
    assert await refusal(world, "PIF.unplug", card(world)) in ("PIF_IS_PHYSICAL", "PIF_IS_MANAGEMENT_INTERFACE")
    assert await refusal(world, "PIF.forget", pif) == "PIF_IS_VLAN"
    assert await refusal(world, "PIF.forget", card(world)) in ("PIF_VLAN_STILL_EXISTS", "PIF_IS_MANAGEMENT_INTERFACE")
    assert await refusal(world, "PIF.introduce", world.host, "", "eth7", True) == "PIF_DEVICE_NOT_FOUND"
    assert await refusal(world, "pool.create_VLAN", "eth7", other, 300) == "PIF_DEVICE_NOT_FOUND"
    assert world.snapshot() == before
    assert await world.call("PIF.introduce", world.host, "", "eth0", True) == card(world)


async def test_a_vlan_on_all_hosts_or_on_none(world: World) -> None:
    await world.second_host()
    network = await make_network(world)
    pifs = await world.call("pool.create_VLAN_from_PIF", card(world), network, 100)
    assert {world.get("PIF", pif)["host"] for pif in pifs} == set(world.db.all("host"))
    (far,) = world.far.values()
    assert far.hypervisor.vlans == world.hypervisor.vlans == {("eth0", 100): "br100"}

    another, before = await make_network(world, "br300"), world.shape()
    far.reachable = False
    assert await refusal(world, "pool.create_VLAN", "eth0", another, 300) == "HOST_OFFLINE"
    assert ("eth0", 300) not in far.hypervisor.vlans
    far.reachable = True
    await world.work.retry_stalled()
    assert world.work.stalled == []
    assert world.shape()[0]["PIF"] == before[0]["PIF"]


async def test_a_host_that_starts_anew_gets_its_vlans_again(world: World) -> None:
    await world.call("VLAN.create", card(world), 100, await make_network(world))
    world.hypervisor.vlans.clear()
    await world.reconciler._greet(world.host)
    assert world.hypervisor.vlans == {("eth0", 100): "br100"}
