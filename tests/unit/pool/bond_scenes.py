"""Scenes (see ``scenes``) about bonds, what is on them, and properties of cards."""

from typing import Any

from tests.unit.pool.network_scenes import addresses, card
from tests.unit.pool.scenes import Scene, call
from tests.unit.pool.world import OWN_ADDRESS, World, vif_fields

ADDRESSES = {"eth0": f"{OWN_ADDRESS}/24", "eth1": "", "eth2": "10.0.2.5/24", "eth3": ""}
FAR_ADDRESSES = {"eth0": "10.0.0.6/24", "eth1": "", "eth2": "10.0.2.6/24", "eth3": ""}


async def four_cards(world: World) -> None:
    """eth0 manages, eth2 has an address too; the others have none. eth3 is a port of a bridge."""
    world.hypervisor.cards |= {name: addresses(text) for name, text in ADDRESSES.items()}
    world.hypervisor.ports["eth3"] = "xenbr3"
    world.hypervisor.bridges["xenbr3"] = 1500
    await world.call("PIF.scan", world.host)


async def far_four_cards(world: World) -> str:
    """The same of another host."""
    await four_cards(world)
    host = await world.second_host()
    (far,) = world.far.values()
    far.hypervisor.cards |= {name: addresses(text) for name, text in FAR_ADDRESSES.items() if name != "eth0"}
    far.hypervisor.ports["eth3"] = "xenbr3"
    far.hypervisor.bridges["xenbr3"] = 1500
    await world.call("PIF.scan", host)
    return host


async def network(world: World, bridge: str = "bondbr") -> str:
    return str(await world.call("network.create", {"name_label": bridge, "other_config": {}, "bridge": bridge}))


async def vlan_on(world: World, pif: str, tag: int = 100) -> str:
    return str(await world.call("VLAN.create", pif, tag, await network(world, f"tag{tag}")))


async def vif_on(world: World, net: str) -> str:
    vm = await world.make_vm()
    vif = await world.call("VIF.create", vif_fields(vm, net, MAC="02:00:00:00:00:07"))
    await world.call("VM.start", vm, False, False)
    return str(vif)


async def bond(world: World, devices: tuple[str, ...] = ("eth2", "eth3"), mode: str = "active-backup") -> str:
    """With a VLAN on the first, and a VM on the second one's network."""
    await four_cards(world)
    pifs = [card(world, device) for device in devices]
    await vlan_on(world, pifs[0])
    if "eth3" in devices:
        await vif_on(world, world.get("PIF", card(world, "eth3"))["network"])
    return str(await world.call("Bond.create", await network(world), pifs, "", mode, {}))


# -- what scenes begin with


async def _to_be_bonded(world: World) -> list[Any]:
    await four_cards(world)
    pifs = [card(world, "eth3"), card(world, "eth2")]
    await vlan_on(world, pifs[1])
    await vif_on(world, world.get("PIF", pifs[0])["network"])
    return [await network(world), pifs]


async def _far_to_be_bonded(world: World) -> list[Any]:
    host = await far_four_cards(world)
    pifs = [card(world, device, host) for device in ("eth0", "eth1")]
    await vlan_on(world, pifs[0])
    return [await network(world), pifs]


async def _own_to_be_bonded(world: World) -> list[Any]:
    await far_four_cards(world)
    return [await network(world), [card(world, "eth1"), card(world, "eth0")]]


async def _managed_by_vlan(world: World) -> list[Any]:
    """Of another host, on a card that is to be bonded."""
    host = await far_four_cards(world)
    pif = card(world, "eth3", host)
    vlan = await vlan_on(world, pif)
    tagged = world.get("VLAN", vlan)["untagged_PIF"]
    await world.call("PIF.reconfigure_ip", tagged, "Static", "10.0.7.6", "255.255.255.0", "", "")
    await world.call("host.management_reconfigure", tagged)
    return [await network(world), [pif, card(world, "eth1", host)]]


async def _far_managing_bond(world: World) -> str:
    return str(await _create(world, await _far_to_be_bonded(world)))


async def _create(world: World, given: list[Any]) -> Any:
    return await world.call("Bond.create", *given, "", "active-backup", {})


async def _create_lacp(world: World, given: list[Any]) -> Any:
    return await world.call("Bond.create", *given, "02:00:00:00:00:77", "lacp", {"lacp-time": "fast"})


async def _lacp(world: World) -> str:
    return await bond(world, mode="lacp")


async def _tagged(world: World) -> str:
    await four_cards(world)
    return str(world.get("VLAN", await vlan_on(world, card(world, "eth1")))["untagged_PIF"])


async def _tagged_with_address(world: World) -> str:
    """Its VLAN."""
    pif = await _tagged(world)
    await world.call("PIF.reconfigure_ip", pif, "Static", "10.0.7.5", "255.255.255.0", "", "")
    return str(world.get("PIF", pif)["VLAN_master_of"])


async def _second_card(world: World) -> str:
    await four_cards(world)
    return card(world, "eth1")


async def _master(world: World) -> str:
    return str(world.get("Bond", await bond(world))["master"])


_SET_IP = call("PIF.reconfigure_ip", "Static", "10.0.7.5", "255.255.255.0", "10.0.7.1", "")

BOND_SCENES: dict[str, Scene] = {
    "Bond.create": Scene(_to_be_bonded, _create_lacp),
    "Bond.create where a member is managed": Scene(_far_to_be_bonded, _create),
    "Bond.create where the coordinator is managed": Scene(_own_to_be_bonded, _create),
    "Bond.create under the VLAN by which a host is managed": Scene(_managed_by_vlan, _create),
    "Bond.destroy": Scene(bond, call("Bond.destroy")),
    "Bond.destroy where a member is managed": Scene(_far_managing_bond, call("Bond.destroy")),
    "Bond.set": Scene(bond, call("Bond.set_mode", "lacp")),
    "Bond.set of a property": Scene(_lacp, call("Bond.set_property", "hashing_algorithm", "src_mac")),
    "PIF.reconfigure_ip of a VLAN": Scene(_tagged, _SET_IP),
    "VLAN.destroy with an address": Scene(_tagged_with_address, call("VLAN.destroy")),
    "PIF.set_property": Scene(_second_card, call("PIF.set_property", "gro", "off")),
    "PIF.set_property of a bond": Scene(_master, call("PIF.set_property", "gro", "off")),
}
