"""What an agent does for bonds, and for addresses on VLANs, done by Debian's kernel: its words to ``ip`` are run in the
guest that has the modules. Two of the guest's cards lead to another machine (a network namespace)."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gespann.host import bonds, facts, vlans
from gespann.host.addresses import Addresses
from gespann.host.kernel_addresses import KernelAddresses
from gespann.seams.host_addresses import AddressesChange, AddressesKeep, Addressing, InterfaceAddresses
from gespann.seams.host_bonds import BondChange, BondShape
from gespann.seams.host_network import VlanEnds
from tests.product.engine.kernel_initiator.guest import IP, Guest, wait_for

NEAR, FAR = "198.18.78.1/24", "198.18.78.2/24"
TAGGED, FAR_TAGGED = "198.18.79.1/24", "198.18.79.2/24"
FAR_ADDRESS = FAR.partition("/")[0]


class Kernel:
    """The part of a hypervisor that addresses, VLANs and bonds need, with the guest's kernel."""

    def __init__(self, run_dir: Path) -> None:
        addresses = KernelAddresses(run_dir)
        self.addresses_show, self.addresses_set = addresses.show, addresses.set
        self.vlan_ensure, self.vlan_remove = vlans.vlan_ensure, vlans.vlan_remove
        self.bond_places, self.bond_set, self.bond_remove = bonds.bond_places, bonds.bond_set, bonds.bond_remove


@pytest.fixture
def guest(ip_of_guest: Guest) -> Iterator[Guest]:
    """The other machine has a bond of its own, and VLAN 100 on it."""
    lines = [
        "netns add beyond",
        "link add card1 type veth peer name wire1 netns beyond",
        "link add card2 type veth peer name wire2 netns beyond",
        "-n beyond link add both type bond mode 802.3ad miimon 100 lacp_rate fast",
        "-n beyond link set wire1 master both",
        "-n beyond link set wire2 master both",
        "-n beyond link set both up",
        f"-n beyond addr add {FAR} dev both",
        "-n beyond link add link both name tagged type vlan id 100",
        f"-n beyond addr add {FAR_TAGGED} dev tagged",
        "-n beyond link set tagged up",
        "link set card1 up",
        "link set card2 up",
        f"addr add {NEAR} dev card1",
    ]
    ip_of_guest.run(" && ".join(f"{IP} {line}" for line in lines))
    yield ip_of_guest
    every = ("bond0", "gsbond", "gstag", "card1", "card2")
    ip_of_guest.attempt("; ".join([*(f"{IP} link del {name}" for name in every), f"{IP} netns del beyond"]))


@pytest.fixture
async def agent(guest: Guest, tmp_path: Path) -> AsyncIterator[Addresses]:
    found = Addresses(Kernel(tmp_path / "run"), tmp_path)  # type: ignore[arg-type]
    yield found
    await found.close()


def shape(mac: str, **given: Any) -> BondShape:
    wanted = {"device": "bond0", "members": ["card1", "card2"], "bridge": "gsbond", "mac": mac, "mode": "lacp"}
    return BondShape(**{**wanted, "fast": True, "hashing": "src_mac", "key": 5, **given})


async def told(agent: Addresses, request: Any) -> Any:
    return await agent.handlers()[type(request)](request)


def link(guest: Guest, name: str) -> dict[str, Any]:
    shown = json.loads(guest.run(f"{IP} -j -d addr show dev {name}"))
    return next(one for one in shown if one)


def ipv4(guest: Guest, name: str) -> list[str]:
    found = link(guest, name).get("addr_info", [])
    return [f"{one['local']}/{one['prefixlen']}" for one in found if one["family"] == "inet"]


def options(guest: Guest) -> dict[str, Any]:
    found: dict[str, Any] = link(guest, "bond0")["linkinfo"]["info_data"]
    return found


async def test_a_bond_carries_what_its_cards_did(guest: Guest, agent: Addresses, tmp_path: Path) -> None:
    mac = str(link(guest, "card1")["address"])
    await vlans.vlan_ensure("card1", 100, "gstag", 1500)
    vlan = VlanEnds(device="card1", tag=100, bridge="gstag")
    wanted = InterfaceAddresses(ipv4=Addressing(mode="static", addresses=[TAGGED]))
    tagged = AddressesChange(change_id="tag", device="v100.card1", wanted=wanted, vlan=vlan, keep_within_s=60.0)
    await told(agent, tagged)
    await told(agent, AddressesKeep(change_id="tag"))

    # the other machine answers through both cards, and by the tag
    made = BondChange(change_id="made", device="bond0", shape=shape(mac), vlans=[vlan], keep_within_s=60.0)
    assert (await told(agent, made)).now.ipv4 == Addressing(mode="static", addresses=[NEAR])
    await told(agent, AddressesKeep(change_id="made"))
    has = options(guest)
    assert (has["mode"], has["ad_lacp_rate"], has["xmit_hash_policy"]) == ("802.3ad", "fast", "vlan+srcmac")
    assert (has["miimon"], has["ad_user_port_key"]) == (bonds.LINK_LOOKED_AT_EVERY_MS, 5)
    both = "grep -q 'Number of ports: 2' /proc/net/bonding/bond0"
    wait_for(lambda: guest.attempt(both).status == 0, "both machines agree that two cards are one")
    answers(guest)
    answers(guest, FAR_TAGGED.partition("/")[0])
    interfaces, tagged_ones, _ = await facts.interfaces()
    members = {one.device: one for one in interfaces if one.bond == "bond0"}
    assert members.keys() == {"card1", "card2"}
    assert members["card1"].mac == mac != members["card2"].mac  # each its own
    (own,) = [one for one in interfaces if one.device == "bond0"]
    assert (own.addresses, own.bridge, own.mac, own.carrier) == ([NEAR], "gsbond", mac, True)
    assert [(one.device, one.addresses, one.bridge) for one in tagged_ones] == [("v100.bond0", [TAGGED], "gstag")]

    # as it is to be already: nobody notices; and one card is lost
    await bonds.bond_set(shape(mac))
    assert "Failure Count: 1" not in guest.run("cat /proc/net/bonding/bond0")
    guest.run(f"{IP} -n beyond link set wire1 down")
    answers(guest)

    # another mode, beside a switch that knows no bonds
    index, active = link(guest, "bond0")["ifindex"], shape(mac, mode="active-backup")
    await told(agent, BondChange(change_id="mode", device="bond0", shape=active, keep_within_s=60.0))
    await told(agent, AddressesKeep(change_id="mode"))
    assert (options(guest)["mode"], link(guest, "bond0")["ifindex"]) == ("active-backup", index)
    _other_machine_has_a_switch(guest)
    answers(guest)  # by the active card

    # the machine starts anew with its own configuration
    begins = [*(f"link del {name}" for name in ("bond0", "gsbond", "gstag")), f"addr add {NEAR} dev card1"]
    guest.run(" && ".join(f"{IP} {line}" for line in (*begins, "link set card1 up", "link set card2 up")))
    anew = Addresses(Kernel(tmp_path / "run"), tmp_path)  # type: ignore[arg-type]
    await anew._restore()
    assert [ipv4(guest, name) for name in ("gsbond", "gstag", "card1")] == [[NEAR], [TAGGED], []]
    answers(guest)

    # a change that nobody keeps: it is taken apart, and is there again
    back = VlanEnds(device="bond0", tag=100, bridge="gstag")
    await told(anew, BondChange(change_id="apart", device="bond0", shape=None, vlans=[back], keep_within_s=60.0))
    assert guest.attempt(f"{IP} link show dev bond0").status != 0
    assert (link(guest, "card1")["address"], link(guest, "v100.card1")["master"]) == (mac, "gstag")
    assert ipv4(guest, "card1") == [NEAR]
    assert anew._kept.last is not None
    await anew._take_back(anew._kept.last)
    assert [ipv4(guest, name) for name in ("gsbond", "card1")] == [[NEAR], []]
    answers(guest)
    await anew.close()


def answers(guest: Guest, address: str = FAR_ADDRESS) -> None:
    """Sooner or later: each of the two machines has to find out that the other's cards are one, or which is active."""
    wait_for(lambda: guest.attempt(f"ping -c 1 -W 1 {address}").status == 0, f"an answer of {address}")


def _other_machine_has_a_switch(guest: Guest) -> None:
    """Its cards are ports of one bridge, as those of a switch without LACP are."""
    lines = [
        "link del tagged",
        "link del both",
        "link add both type bridge forward_delay 0",
        "link set wire1 master both up",
        "link set wire2 master both up",
        f"addr add {FAR} dev both",
        "link set both up",
    ]
    guest.run(" && ".join(f"{IP} -n beyond {line}" for line in lines))
