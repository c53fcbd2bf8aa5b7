"""The addresses of hosts, and by which of their interfaces they are managed."""

from typing import Any

import pytest

from gespann.pool.steps.address_steps import AGAIN_AFTER_S
from gespann.seams.host_addresses import AddressesKeep, Addressing
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.far_hosts import FarHost
from tests.unit.pool.network_scenes import addresses, card, far_cards, own_cards
from tests.unit.pool.world import World

STATIC = ("Static", "10.0.0.60", "255.255.255.0", "", "")


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


def shown(world: World, pif: str) -> list[Any]:
    record = world.get("PIF", pif)
    return [record[name] for name in ("ip_configuration_mode", "IP", "netmask", "gateway", "DNS", "management")]


def far_host(world: World) -> FarHost:
    (far,) = world.far.values()
    return far


async def test_an_interface_gets_an_address_another_and_none(world: World) -> None:
    _, pif = await own_cards(world)
    await world.call("PIF.reconfigure_ip", pif, "Static", "10.0.9.5", "255.255.255.0", "10.0.9.1", "10.0.9.2,10.0.9.3")
    has = world.hypervisor.cards["eth1"]
    assert has.ipv4 == Addressing(mode="static", addresses=["10.0.9.5/24"], gateway="10.0.9.1")
    assert has.dns == ["10.0.9.2", "10.0.9.3"]
    assert shown(world, pif) == ["Static", "10.0.9.5", "255.255.255.0", "10.0.9.1", "10.0.9.2,10.0.9.3", False]

    world.hypervisor.leases["eth1"] = Addressing(mode="dhcp", addresses=["10.0.8.5/22"], gateway="10.0.8.1")
    await world.call("PIF.reconfigure_ip", pif, "DHCP", "", "", "", "")
    assert shown(world, pif)[:4] == ["DHCP", "10.0.8.5", "255.255.252.0", "10.0.8.1"]
    await world.call("PIF.reconfigure_ipv6", pif, "Static", "fd00::5/64", "fe80::1", "")
    assert world.get("PIF", pif)["IPv6"] == ["fd00::5/64"]
    assert world.get("PIF", pif)["ipv6_gateway"] == "fe80::1"
    assert shown(world, pif)[:2] == ["DHCP", "10.0.8.5"]

    await world.call("PIF.reconfigure_ip", pif, "None", "", "", "", "")
    await world.call("PIF.reconfigure_ipv6", pif, "None", "", "", "")
    assert shown(world, pif)[:4] == ["None", "", "", ""]
    assert world.get("PIF", pif)["IPv6"] == []


async def test_what_cannot_be_an_address(world: World) -> None:
    managing, pif = await own_cards(world)
    network = await world.call("network.create", {"name_label": "tagged", "other_config": {}, "bridge": "br100"})
    vlan = await world.call("VLAN.create", managing, 100, network)
    before = world.snapshot()
    for words, parameter in (
        (("10.0.9.500", "255.255.255.0", "", ""), "IP"),
        (("fd00::5", "255.255.255.0", "", ""), "IP"),
        (("224.0.0.5", "255.255.255.0", "", ""), "IP"),
        (("0.0.0.0", "255.255.255.0", "", ""), "IP"),
        (("10.0.9.255", "255.255.255.0", "", ""), "IP"),
        (("10.0.9.5/24", "255.255.255.0", "", ""), "IP"),
        (("10.0.9.5", "24", "", ""), "netmask"),
        (("10.0.9.5", "255.0.255.0", "", ""), "netmask"),
        (("10.0.9.5", "0.0.0.0", "", ""), "netmask"),
        (("10.0.9.5", "255.255.255.0", "10.0.8.1", ""), "gateway"),
        (("10.0.9.5", "255.255.255.0", "10.0.9.5", ""), "gateway"),
        (("10.0.9.5", "255.255.255.0", "router", ""), "gateway"),
        (("10.0.9.5", "255.255.255.0", "", "10.0.9.2,,"), "DNS"),
        (("10.0.9.5", "255.255.255.0", "", "x" * 100000), "DNS"),
    ):
        assert await refusal(world, "PIF.reconfigure_ip", pif, "Static", *words) == [
            "INVALID_IP_ADDRESS_SPECIFIED",
            parameter,
        ], words
    for text in ("fd00::5", "fd00::5/0", "fd00::5/129", "10.0.0.5/24", "fe80::1%eth0/64", "ff02::1/64"):
        answer = await refusal(world, "PIF.reconfigure_ipv6", pif, "Static", text, "", "")
        assert answer == ["INVALID_IP_ADDRESS_SPECIFIED", "IPv6"], text
    taken = await refusal(world, "PIF.reconfigure_ip", pif, "Static", "10.0.0.5", "255.255.255.0", "", "")
    assert taken[0] == "PIF_CONFIGURATION_ERROR"
    no_server = await refusal(world, "PIF.reconfigure_ip", pif, "DHCP", "", "", "", "")
    assert no_server[0] == "PIF_CONFIGURATION_ERROR"
    assert "no DHCP server answers" in no_server[2]
    tagged = world.get("VLAN", vlan)["untagged_PIF"]
    unreachable = ["INTERFACE_HAS_NO_IP", "eth0"]
    assert await refusal(world, "host.management_reconfigure", tagged) == unreachable
    none = await refusal(world, "PIF.reconfigure_ip", managing, "None", "", "", "", "")
    assert none == ["PIF_IS_MANAGEMENT_INTERFACE", managing]
    assert await refusal(world, "host.management_reconfigure", pif) == ["INTERFACE_HAS_NO_IP", "eth1"]
    assert world.snapshot() == before


async def test_a_member_is_managed_at_its_new_address(world: World) -> None:
    managing, second = await far_cards(world)
    host = world.get("PIF", managing)["host"]
    await world.call("PIF.reconfigure_ip", managing, *STATIC)
    assert world.get("host", host)["address"] == "10.0.0.60"
    assert world.links.door(host).address == "10.0.0.60"
    await world.power_cut()
    await world.boot()
    assert await world.call("host.get_management_interface", host) == managing

    await world.call("host.management_reconfigure", second)
    assert world.get("host", host)["address"] == "10.0.1.6"
    assert [world.get("PIF", pif)["management"] for pif in (managing, second)] == [False, True]
    await world.call("PIF.reconfigure_ip", managing, "None", "", "", "", "")  # nobody needs it any more


async def test_the_coordinator_tells_the_others_where_it_is(world: World) -> None:
    await far_cards(world)
    await world.call("PIF.reconfigure_ip", card(world, "eth0"), "Static", "10.0.0.50", "255.255.255.0", "", "")
    assert world.get("host", world.host)["address"] == "10.0.0.50"
    await world.call("PIF.scan", next(host for host in world.db.all("host") if host != world.host))
    assert far_host(world).leader[1] == "10.0.0.50"
    await world.power_cut()
    await world.boot()  # started by the words that name its first address
    assert world.get("host", world.host)["address"] == "10.0.0.50"


async def test_a_change_that_cuts_a_member_off_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    managing, _ = await far_cards(world)
    far, before = far_host(world), world.snapshot()
    monkeypatch.setattr(far, "has_address", lambda address: address == far.address and has_old())

    def has_old() -> bool:
        """At its new address nobody reaches it: it is another network's."""
        return far.hypervisor.cards["eth0"].ipv4 == Addressing(mode="static", addresses=[f"{far.address}/24"])

    answer = await refusal(world, "PIF.reconfigure_ip", managing, *STATIC)
    assert answer[0] == "PIF_CONFIGURATION_ERROR"
    assert "taken back" in answer[2]
    assert world.snapshot() == before
    assert world.work.stalled == []
    monkeypatch.undo()
    await world.call("PIF.reconfigure_ip", managing, *STATIC)
    assert shown(world, managing)[1] == "10.0.0.60"


async def test_a_coordinator_that_loses_its_members_goes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await far_cards(world)
    far, before = far_host(world), world.snapshot()
    first = world.hypervisor.cards["eth0"]
    monkeypatch.setattr(far, "has_address", lambda address: world.hypervisor.cards["eth0"] == first)
    answer = await refusal(world, "PIF.reconfigure_ip", card(world, "eth0"), *STATIC)
    assert answer[0] == "PIF_CONFIGURATION_ERROR"
    assert world.hypervisor.cards["eth0"] == first
    assert world.snapshot() == before
    assert world.links.address == "10.0.0.5"


async def test_a_change_that_nobody_keeps_is_over_after_its_time(world: World) -> None:
    """The coordinator dies, and is away for longer than the host waits."""
    managing, _ = await far_cards(world)
    far = far_host(world)
    world.moments.fail_at, world.moments.crash = len(world.moments.passed) + 2, True  # the first word after the change
    with pytest.raises(BaseException, match=r"before addresses\.made"):
        await world.call("PIF.reconfigure_ip", managing, *STATIC)
    await world.power_cut()
    assert far.has_address("10.0.0.60")
    for _ in range(int(60 / AGAIN_AFTER_S) + 2):
        await world.clock.sleep(AGAIN_AFTER_S)
    assert far.has_address("10.0.0.6")
    await world.boot()
    assert world.work.stalled == []
    assert shown(world, managing)[1] == "10.0.0.6"
    with pytest.raises(SeamError, match="taken back"):
        await world.pool.agents[world.get("PIF", managing)["host"]].call(AddressesKeep(change_id="other"))


async def test_all_hosts_are_managed_over_another_network(world: World) -> None:
    """All of them need an address there, and one of a network that is not theirs is refused before anything changes."""
    await far_cards(world)
    network = world.get("PIF", card(world, "eth1"))["network"]
    before = world.snapshot()
    assert (await refusal(world, "pool.management_reconfigure", network))[0] == "INTERFACE_HAS_NO_IP"
    assert world.snapshot() == before
    world.hypervisor.cards["eth1"] = addresses("10.0.1.5/24")
    await world.call("PIF.scan", world.host)
    await world.call("pool.management_reconfigure", network)
    assert sorted(record["address"] for record in world.db.all("host").values()) == ["10.0.1.5", "10.0.1.6"]


async def test_a_host_gets_another_name(world: World) -> None:
    await world.call("host.set_hostname_live", world.host, "kaltblut")
    assert world.get("host", world.host)["hostname"] == world.hypervisor.hostname == "kaltblut"
    for name in ("", "-x", "a_b", "a..b", "x" * 64 + "y", "a" * 64 + ".b", "tab\there", "ä"):
        assert (await refusal(world, "host.set_hostname_live", world.host, name))[0] == "HOST_NAME_INVALID", name
    await world.call("host.sync_data", world.host)
    assert world.get("host", world.host)["hostname"] == "kaltblut"
