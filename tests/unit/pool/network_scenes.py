"""Scenes (see ``scenes``) about the networks of hosts."""

from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from tests.unit.pool.scenes import Scene, call
from tests.unit.pool.world import OWN_ADDRESS, World, vif_fields


def card(world: World, device: str, host: str = "") -> str:
    pifs = world.get("host", host or world.host)["PIFs"]
    return next(
        pif for pif in pifs if world.get("PIF", pif)["device"] == device and world.get("PIF", pif)["VLAN"] == -1
    )


def addresses(text: str = "") -> InterfaceAddresses:
    none = Addressing(mode="none")
    return InterfaceAddresses(ipv4=Addressing(mode="static", addresses=[text]) if text else none, ipv6=none, dns=[])


async def own_cards(world: World) -> tuple[str, str]:
    """That by which the coordinator's host is managed, and another without address."""
    world.hypervisor.cards |= {"eth0": addresses(f"{OWN_ADDRESS}/24"), "eth1": addresses()}
    await world.call("PIF.scan", world.host)
    return card(world, "eth0"), card(world, "eth1")


async def far_cards(world: World) -> tuple[str, str]:
    """The same of another host; the second has an address."""
    await own_cards(world)
    host = await world.second_host()
    (far,) = world.far.values()
    far.hypervisor.cards["eth1"] = addresses("10.0.1.6/24")
    await world.call("PIF.scan", host)
    return card(world, "eth0", host), card(world, "eth1", host)


async def second_card(world: World) -> str:
    return (await own_cards(world))[1]


async def own_managing_card(world: World) -> str:
    """Another host is there, and must be reached."""
    await far_cards(world)
    return card(world, "eth0")


async def far_managing_card(world: World) -> str:
    return (await far_cards(world))[0]


async def far_second_card(world: World) -> str:
    return (await far_cards(world))[1]


async def _with_dhcp(world: World) -> str:
    pif = await far_managing_card(world)
    (far,) = world.far.values()
    far.hypervisor.leases["eth0"] = Addressing(mode="dhcp", addresses=["10.0.0.77/24"], gateway="10.0.0.1")
    return pif


async def plugged_vif(world: World) -> str:
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    vm = await world.make_vm()
    vif = await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    await world.call("VM.start", vm, False, False)
    return str(vif)


async def _locked_vif(world: World) -> str:
    vif = await plugged_vif(world)
    await world.call("VIF.set_locking_mode", vif, "locked")
    return vif


async def _host(world: World) -> str:
    return world.host


NETWORK_SCENES: dict[str, Scene] = {
    "PIF.reconfigure_ip": Scene(
        second_card, call("PIF.reconfigure_ip", "Static", "10.0.9.5", "255.255.255.0", "10.0.9.1", "10.0.9.2")
    ),
    "PIF.reconfigure_ip of IPv6": Scene(second_card, call("PIF.reconfigure_ipv6", "Static", "fd00::5/64", "", "")),
    "PIF.reconfigure_ip where a member is managed": Scene(
        far_managing_card, call("PIF.reconfigure_ip", "Static", "10.0.0.60", "255.255.255.0", "", "")
    ),
    "PIF.reconfigure_ip where a member is managed, by DHCP": Scene(
        _with_dhcp, call("PIF.reconfigure_ip", "DHCP", "", "", "", "")
    ),
    "PIF.reconfigure_ip where the coordinator is managed": Scene(
        own_managing_card, call("PIF.reconfigure_ip", "Static", "10.0.0.50", "255.255.255.0", "", "")
    ),
    "host.management_reconfigure": Scene(far_second_card, call("host.management_reconfigure")),
    "VIF.set_locking": Scene(plugged_vif, call("VIF.set_locking_mode", "disabled")),
    "VIF.set_locking to an address": Scene(_locked_vif, call("VIF.add_ipv4_allowed", "10.0.0.7")),
    "host.set_hostname_live": Scene(_host, call("host.set_hostname_live", "kaltblut.stall.example")),
}
