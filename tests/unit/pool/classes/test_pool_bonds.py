"""Bonds: several cards of a host as one interface, with what was on them."""

from typing import Any

import pytest

from gespann.pool.steps.address_steps import AGAIN_AFTER_S
from gespann.seams.host_addresses import Addressing
from gespann.seams.host_bonds import BondShape
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.bond_scenes import far_four_cards, four_cards, network, vif_on, vlan_on
from tests.unit.pool.network_scenes import card
from tests.unit.pool.world import World, vif_fields


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


async def make(world: World, *devices: str, host: str = "", mode: str = "active-backup", **properties: str) -> str:
    pifs = [card(world, device, host) for device in devices]
    given = {name.replace("_", "-"): value for name, value in properties.items()}
    return str(await world.call("Bond.create", await network(world), pifs, "", mode, given))


def shown(world: World, pif: str) -> list[Any]:
    record = world.get("PIF", pif)
    return [record[name] for name in ("ip_configuration_mode", "IP", "management", "currently_attached")]


async def test_cards_become_one_and_two_again_with_what_was_on_them(world: World) -> None:
    await four_cards(world)
    first, second = card(world, "eth2"), card(world, "eth3")
    vlan = await vlan_on(world, first)
    old_network = world.get("PIF", second)["network"]
    vif = await vif_on(world, old_network)
    before = world.snapshot()
    bond = await make(world, "eth3", "eth2")

    record = world.get("Bond", bond)
    master = record["master"]
    assert record["primary_slave"] == first  # it has the address
    assert (set(record["slaves"]), record["mode"], record["links_up"]) == ({first, second}, "active-backup", 2)
    assert world.get("PIF", master)["bond_master_of"] == [bond]
    assert [world.get("PIF", pif)["bond_slave_of"] for pif in (first, second, master)] == [bond, bond, NULL_REF]
    assert shown(world, master) == ["Static", "10.0.2.5", False, True]
    assert shown(world, first) == shown(world, second) == ["None", "", False, False]
    assert world.get("PIF", master)["MAC"] == world.get("PIF", first)["MAC"]
    assert not world.get("PIF", master)["physical"]
    assert world.hypervisor.bonds["bond0"].members == ["eth2", "eth3"]
    assert world.hypervisor.vlans == {("bond0", 100): "tag100"}
    assert world.get("VLAN", vlan)["tagged_PIF"] == master
    assert world.get("PIF", world.get("VLAN", vlan)["untagged_PIF"])["device"] == "bond0"
    assert world.get("VIF", vif)["network"] == world.get("PIF", master)["network"]
    (machine,) = world.running().values()
    assert set(machine.bridges.values()) == {"bondbr"}

    await world.call("PIF.reconfigure_ip", master, "Static", "10.0.2.7", "255.255.255.0", "", "")
    await world.call("PIF.reconfigure_ip", master, "Static", "10.0.2.5", "255.255.255.0", "", "")
    await world.call("Bond.destroy", bond)
    after = world.snapshot()
    for records in (before[0], after[0]):
        records["network"] = {ref: {**one, "VIFs": sorted(one["VIFs"])} for ref, one in records["network"].items()}
        del records["PIF"][first]["DNS"]  # an empty one, said by the pool
    (added,) = after[0]["network"].keys() - before[0]["network"].keys()
    assert after[0]["network"].pop(added)["bridge"] == "bondbr"
    assert after[0]["network"].pop(old_network)["VIFs"] == before[0]["network"].pop(old_network)["VIFs"]
    assert after[0]["PIF"] == before[0]["PIF"]
    assert after[0]["Bond"] == {}
    assert after == before


async def test_it_is_there_again_when_the_host_has_started_anew(world: World) -> None:
    await four_cards(world)
    bond = await make(world, "eth2", "eth3", mode="lacp")
    await world.call("PIF.set_property", world.get("Bond", bond)["master"], "gro", "off")
    machine = world.hypervisor
    has, shape = machine.cards.pop("bond0"), machine.bonds.pop("bond0")
    machine.cards["eth2"], machine.cards["eth3"] = has, machine.cards["eth1"]  # as its own configuration says
    machine.ports = {"eth3": "xenbr3"}
    machine.without_gro.clear()
    await world.agent_server.addresses._restore()
    assert machine.bonds == {"bond0": shape}
    assert machine.ports == {"bond0": "bondbr"}
    assert machine.cards["bond0"].ipv4 == has.ipv4
    assert machine.cards["eth2"].ipv4 == Addressing(mode="none")
    await world.reconciler._greet(world.host)
    assert machine.without_gro == {"bond0", "eth2", "eth3"}


async def test_the_network_of_a_bonded_card_leads_nowhere_on_that_host(world: World) -> None:
    host = await far_four_cards(world)
    net = world.get("PIF", card(world, "eth3"))["network"]
    vm = await world.make_vm()
    vif = await world.call("VIF.create", vif_fields(vm, net))
    await make(world, "eth2", "eth3")
    nowhere = ["HOST_CANNOT_ATTACH_NETWORK", world.host, net]
    assert await refusal(world, "VM.start_on", vm, world.host, False, False) == nowhere
    assert await refusal(world, "network.attach", net, world.host) == nowhere
    await world.call("VM.start", vm, False, False)  # elsewhere
    assert world.get("VM", vm)["resident_on"] == host
    assert (await refusal(world, "VM.pool_migrate", vm, world.host, {}))[0] == "HOST_CANNOT_ATTACH_NETWORK"
    await world.call("VM.hard_shutdown", vm)
    other = await world.call("VIF.create", vif_fields(vm, await network(world, "inner"), device="1"))
    await world.call("VIF.destroy", vif)
    await world.call("VM.start_on", vm, world.host, False, False)
    assert await refusal(world, "VIF.move", other, net) == nowhere
    loose = await world.call("VIF.create", vif_fields(vm, net, device="2"))
    assert await refusal(world, "VIF.plug", loose) == nowhere


async def test_modes_and_properties(world: World) -> None:
    await four_cards(world)
    before = world.snapshot()
    pifs = [card(world, "eth1"), card(world, "eth2")]
    answer = await refusal(world, "Bond.create", NULL_REF, pifs, "", "lacp", {})
    assert answer[0] == "HANDLE_INVALID"
    net = await network(world)
    answer = await refusal(world, "Bond.create", net, pifs, "")  # the published default
    assert answer[:3] == ["VALUE_NOT_SUPPORTED", "mode", "balance-slb"]
    for mode, name, value, code in (
        ("lacp", "lacp-time", "soon", "INVALID_VALUE"),
        ("lacp", "hashing_algorithm", "", "INVALID_VALUE"),
        ("lacp", "lacp-aggregation-key", "-1", "INVALID_VALUE"),
        ("lacp", "lacp-aggregation-key", "9" * 5000, "INVALID_VALUE"),
        ("lacp", "lacp-aggregation-key", "1024", "VALUE_NOT_SUPPORTED"),
        ("lacp", "lacp-fallback-ab", "false", "VALUE_NOT_SUPPORTED"),
        ("lacp", "speed", "high", "INVALID_VALUE"),
        ("active-backup", "lacp-time", "fast", "INVALID_VALUE"),
    ):
        answer = await refusal(world, "Bond.create", net, pifs, "", mode, {name: value})
        assert answer[:3] == [code, name, value], answer
    assert (await refusal(world, "Bond.create", net, pifs, "01:00:00:00:00:01", "lacp", {}))[0] == "MAC_INVALID"
    await world.call("network.destroy", net)
    assert world.snapshot() == before

    bond = await make(world, "eth1", "eth2", mode="lacp", lacp_time="fast", lacp_aggregation_key="7")
    defaults = {"hashing_algorithm": "tcpudp_ports", "lacp-fallback-ab": "true"}
    assert world.get("Bond", bond)["properties"] == defaults | {"lacp-time": "fast", "lacp-aggregation-key": "7"}
    await world.call("Bond.set_property", bond, "hashing_algorithm", "src_mac")
    mac = world.get("PIF", card(world, "eth2"))["MAC"]
    wanted = {"device": "bond0", "members": ["eth2", "eth1"], "mac": mac, "bridge": "bondbr"}
    assert world.hypervisor.bonds["bond0"] == BondShape(**wanted, mode="lacp", fast=True, hashing="src_mac", key=7)
    assert (await refusal(world, "Bond.set_property", bond, "gro", "on"))[0] == "INVALID_VALUE"
    await world.call("Bond.set_mode", bond, "active-backup")
    assert world.hypervisor.bonds["bond0"] == BondShape(**wanted, mode="active-backup")
    assert world.get("Bond", bond)["properties"] == {}
    assert (await refusal(world, "Bond.set_mode", bond, "balance-slb"))[0] == "VALUE_NOT_SUPPORTED"
    assert world.get("PIF", world.get("Bond", bond)["master"])["IP"] == "10.0.2.5"


async def test_what_cannot_be_bonded(world: World) -> None:
    host = await far_four_cards(world)
    eth0, eth1, eth2 = (card(world, f"eth{number}") for number in range(3))
    tagged = world.get("VLAN", await vlan_on(world, eth1))["untagged_PIF"]
    bond = await make(world, "eth2", "eth3")
    master, net = world.get("Bond", bond)["master"], await network(world, "other")
    before = world.snapshot()
    create = "Bond.create"
    for members, answer in (
        ([], ["PIF_BOND_NEEDS_MORE_MEMBERS"]),
        ([eth1], ["PIF_BOND_NEEDS_MORE_MEMBERS"]),
        ([eth1, eth1], ["PIF_BOND_NEEDS_MORE_MEMBERS"]),
        ([eth1, eth2], ["PIF_ALREADY_BONDED", eth2]),
        ([eth1, master], ["PIF_ALREADY_BONDED", master]),
        ([eth1, tagged], ["PIF_IS_VLAN", tagged]),
        ([eth1, card(world, "eth0", host)], ["PIF_CANNOT_BOND_CROSS_HOST"]),
        ([card(world, "eth2", host), card(world, "eth0", host)], ["PIF_BOND_MORE_THAN_ONE_IP"]),
    ):
        assert await refusal(world, create, net, members, "", "lacp", {}) == answer
    own = world.get("PIF", master)["network"]
    connected = ["NETWORK_ALREADY_CONNECTED", world.host, master]
    assert await refusal(world, create, own, [eth0, eth1], "", "lacp", {}) == connected
    unmanaged = world.get("PIF", eth0)["network"]
    assert (await refusal(world, create, unmanaged, [eth0, eth1], "", "lacp", {}))[0] == "NETWORK_UNMANAGED"
    for method, params, answer in (
        ("VLAN.create", (eth2, 7, net), ["CANNOT_ADD_VLAN_TO_BOND_SLAVE", eth2]),
        ("PIF.plug", (eth2,), ["CANNOT_PLUG_BOND_SLAVE", eth2]),
        ("PIF.forget", (eth2,), ["PIF_ALREADY_BONDED", eth2]),
        ("PIF.forget", (master,), ["PIF_ALREADY_BONDED", master]),
        ("PIF.set_property", (eth2, "gro", "off"), ["CANNOT_CHANGE_PIF_PROPERTIES", eth2]),
        ("PIF.set_property", (tagged, "gro", "off"), ["CANNOT_CHANGE_PIF_PROPERTIES", tagged]),
        ("PIF.set_property", (eth1, "gro", "maybe"), ["INVALID_VALUE", "gro", "maybe"]),
        ("PIF.set_property", (eth1, "tso", "off"), ["INVALID_VALUE", "tso", "off"]),
        ("host.management_reconfigure", (eth2,), ["CANNOT_PLUG_BOND_SLAVE", eth2]),
    ):
        assert await refusal(world, method, *params) == answer
    assert world.snapshot() == before
    await world.call("PIF.set_property", eth1, "gro", "off")
    assert world.get("PIF", tagged)["properties"] == {"gro": "off"}
    net2 = await network(world, "third")
    assert await refusal(world, create, net2, [eth0, eth1], "", "lacp", {}) == ["INCOMPATIBLE_PIF_PROPERTIES"]
    await world.call("VLAN.create", master, 9, net)  # a bond has VLANs as a card has


async def test_a_kernel_without_bonding_and_an_agent_that_refuses(world: World) -> None:
    await four_cards(world)
    net, pifs = await network(world), [card(world, "eth0"), card(world, "eth3")]
    world.hypervisor.knows_bonds = False
    before = world.snapshot()
    answer = await refusal(world, "Bond.create", net, pifs, "", "active-backup", {})
    assert answer[:2] == ["PIF_CONFIGURATION_ERROR", pifs[0]]
    assert "Unknown device type" in answer[2]
    assert world.snapshot() == before
    assert world.hypervisor.ports == {"eth3": "xenbr3"}
    assert world.work.stalled == []
    world.hypervisor.knows_bonds = True
    await world.call("Bond.create", net, pifs, "", "active-backup", {})


async def test_a_member_that_cannot_bond_what_it_is_managed_by_says_why(world: World) -> None:
    """It answers before it tries."""
    host = await far_four_cards(world)
    (far,) = world.far.values()
    far.hypervisor.knows_bonds = False
    net, pifs = await network(world), [card(world, "eth0", host), card(world, "eth1", host)]
    before = world.snapshot()
    answer = await refusal(world, "Bond.create", net, pifs, "", "active-backup", {})
    assert answer[:2] == ["PIF_CONFIGURATION_ERROR", pifs[0]]
    assert "took the change back" in answer[2]
    assert "Unknown device type" in answer[2]
    assert world.snapshot() == before
    assert world.work.stalled == []


async def test_the_management_goes_over_to_the_bond_and_back(world: World) -> None:
    host = await far_four_cards(world)
    bond = await make(world, "eth1", "eth0", host=host)
    master = world.get("Bond", bond)["master"]
    assert await world.call("host.get_management_interface", host) == master
    assert world.get("host", host)["address"] == "10.0.0.6"
    await world.power_cut()
    await world.boot()
    assert await world.call("host.get_management_interface", host) == master
    pool = next(iter(world.db.all("pool")))
    with world.db.transaction() as tx:
        tx.set("pool", pool, ha_enabled=True)
    assert await refusal(world, "Bond.destroy", bond) == ["HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE"]
    with world.db.transaction() as tx:
        tx.set("pool", pool, ha_enabled=False)
    await world.call("Bond.destroy", bond)
    assert await world.call("host.get_management_interface", host) == card(world, "eth0", host)


async def test_a_bond_that_cuts_a_member_off_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await far_four_cards(world)
    (far,) = world.far.values()
    net, before = await network(world), world.snapshot()
    monkeypatch.setattr(far, "has_address", lambda address: not far.hypervisor.bonds)
    pifs = [card(world, "eth0", host), card(world, "eth1", host)]
    answer = await refusal(world, "Bond.create", net, pifs, "", "lacp", {})
    assert answer[:2] == ["PIF_CONFIGURATION_ERROR", pifs[0]]
    assert "taken back" in answer[2]
    before[0]["network"][net] = world.get("network", net)
    assert world.snapshot() == before
    assert world.work.stalled == []


async def test_a_bond_that_nobody_keeps_is_over_after_its_time(world: World) -> None:
    """The coordinator dies, and is away for longer than the host waits."""
    host = await far_four_cards(world)
    (far,) = world.far.values()
    net = await network(world)
    pifs = [card(world, "eth0", host), card(world, "eth1", host)]
    world.moments.passed.clear()
    world.moments.fail_at, world.moments.crash = 2, True
    with pytest.raises(BaseException, match=r"before addresses\.made"):
        await world.call("Bond.create", net, pifs, "", "active-backup", {})
    await world.power_cut()
    for _ in range(int(60 / AGAIN_AFTER_S) + 2):
        await world.clock.sleep(AGAIN_AFTER_S)
    assert far.hypervisor.bonds == {}
    assert far.has_address("10.0.0.6")
    await world.boot()
    assert world.work.stalled == []
    assert world.db.all("Bond") == {}


async def test_a_host_without_a_pool_shows_the_bonds_that_it_has(world: World) -> None:
    """As one that has left its pool does: its new coordinator knows nothing yet."""
    await four_cards(world)
    bond = await make(world, "eth2", "eth3", mode="lacp")
    wanted = {name: world.get("Bond", bond)[name] for name in ("mode", "properties", "links_up")}
    with world.db.transaction() as tx:
        tx.destroy("Bond", bond)
        for pif in world.get("host", world.host)["PIFs"]:
            tx.destroy("PIF", pif)
    await world.call("PIF.scan", world.host)
    (found,) = world.db.all("Bond").values()
    assert {name: found[name] for name in wanted} == wanted
    assert found["primary_slave"] == card(world, "eth2")
    assert shown(world, found["master"]) == ["Static", "10.0.2.5", False, True]
    assert not world.get("PIF", found["master"])["physical"]


async def test_which_kind_of_address_a_host_is_managed_by(world: World) -> None:
    await four_cards(world)
    eth0, eth1, eth2 = (card(world, f"eth{number}") for number in range(3))
    await world.call("PIF.reconfigure_ipv6", eth2, "Static", "fd00::2/64", "", "")
    managed = ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
    assert await refusal(world, "PIF.set_primary_address_type", eth0, "IPv6") == managed
    await world.call("PIF.set_primary_address_type", eth2, "IPv6")
    await world.call("PIF.set_primary_address_type", eth1, "IPv6")
    assert await refusal(world, "host.management_reconfigure", eth1) == ["INTERFACE_HAS_NO_IP", "eth1"]
    answer = await refusal(world, "host.management_reconfigure", eth2)
    assert answer == ["PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", eth2]
    await world.call("PIF.set_primary_address_type", eth2, "IPv4")
    await world.call("host.management_reconfigure", eth2)
    assert world.get("host", world.host)["address"] == "10.0.2.5"


async def test_a_vlan_has_addresses_as_long_as_it_is_plugged(world: World) -> None:
    await four_cards(world)
    vlan = await vlan_on(world, card(world, "eth1"))
    pif = world.get("VLAN", vlan)["untagged_PIF"]
    machine = world.hypervisor
    machine.leases["v100.eth1"] = Addressing(mode="dhcp", addresses=["10.0.7.9/24"], gateway="10.0.7.1")
    await world.call("PIF.reconfigure_ip", pif, "DHCP", "", "", "", "")
    assert shown(world, pif) == ["DHCP", "10.0.7.9", False, True]
    await world.call("PIF.reconfigure_ip", pif, "Static", "10.0.7.5", "255.255.255.0", "", "")
    for _ in range(2):
        has = machine.vlans_with_addresses()["tag100"].ipv4
        assert has == Addressing(mode="static", addresses=["10.0.7.5/24"])
        await world.call("PIF.unplug", pif)
        assert machine.vlans_with_addresses() == {}
        await world.call("PIF.scan", world.host)
        assert shown(world, pif)[1:] == ["", False, False]
        await world.call("PIF.plug", pif)

    machine.vlans.clear()  # the host starts anew: its agent makes the VLAN and gives it its address by itself
    machine.vlan_addresses.clear()
    await world.agent_server.addresses._restore()
    assert machine.vlans_with_addresses()["tag100"].ipv4 == Addressing(mode="static", addresses=["10.0.7.5/24"])
    await world.call("PIF.scan", world.host)

    await world.call("host.management_reconfigure", pif)
    assert world.get("host", world.host)["address"] == "10.0.7.5"
    for method, ref in (("VLAN.destroy", vlan), ("PIF.unplug", pif)):
        assert await refusal(world, method, ref) == ["PIF_IS_MANAGEMENT_INTERFACE", pif]
    await world.call("host.management_reconfigure", card(world, "eth0"))
    await world.call("VLAN.destroy", vlan)
    again = await world.call("VLAN.create", card(world, "eth1"), 100, await network(world, "tag100b"))
    assert shown(world, world.get("VLAN", again)["untagged_PIF"])[:2] == ["None", ""]
    assert machine.vlans_with_addresses() == {}
