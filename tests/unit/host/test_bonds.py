"""What an agent refuses of bonds, on a fake machine: nothing is changed then. What it does is done by a real kernel in
``product/engine/kernel_initiator/test_bonds.py``."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gespann.host.fake import FakeHypervisor
from gespann.host.fake.machine import none_at_all
from gespann.host.membership import Membership
from gespann.host.server import AgentServer
from gespann.seams.host_addresses import AddressesKeep, AddressesMade, Addressing, InterfaceAddresses
from gespann.seams.host_agent import Facts
from gespann.seams.host_bonds import BondChange, BondShape, CardProperty
from gespann.seams.host_network import VlanEnds, VlanEnsure
from gespann.seams.json_lines import SeamError

SHAPE: dict[str, Any] = {
    "device": "bond0",
    "members": ["eth0", "eth1"],
    "mode": "lacp",
    "mac": "02:00:00:00:00:01",
    "bridge": "xenbr0",
}


class Agent:
    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.machine = FakeHypervisor(run_dir=path / "run")
        self.server = AgentServer(self.machine, path / "agent.sock", Membership(path))
        self.machine.cards["eth1"] = none_at_all()
        self.machine.cards["eth2"] = with_address("10.0.2.5/24")

    async def tell(self, request: Any) -> Any:
        return await self.server._handlers()[type(request)](request)

    async def change(self, change_id: str = "one", **given: Any) -> Any:
        shape = BondShape(**{**SHAPE, **given})
        return await self.tell(BondChange(change_id=change_id, device=shape.device, shape=shape))

    def state(self) -> Any:
        machine = self.machine
        return machine.cards.copy(), machine.bonds.copy(), machine.ports.copy(), self.server.addresses._kept


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    found = Agent(tmp_path)
    yield found
    await found.server.addresses.close()


def with_address(text: str) -> InterfaceAddresses:
    own = Addressing(mode="static", addresses=[text])
    return InterfaceAddresses(ipv4=own, ipv6=Addressing(mode="none"), dns=[])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"members": ["eth0", "eth2"]}, "eth2 has addresses of its own"),
        ({"members": ["eth0", "eth7"]}, "no interface eth7"),
        ({"members": ["eth0"]}, "2 to 8 members"),
        ({"members": ["eth0", "eth0"]}, "one name, and members of other names"),
        ({"members": ["eth0", "bond0"]}, "one name, and members of other names"),
        ({"members": ["eth0", "eth1;reboot"]}, "cannot be the name of an interface"),
        ({"device": "a/b"}, "cannot be the name of an interface"),
        ({"mac": "02:00:00:00:00"}, "cannot be a MAC address"),
        ({"bridge": "-bad"}, "cannot be the name of a bridge"),
        ({"bridge": "taken"}, "eth1 is a port of taken already"),
        ({"mtu": 12}, "MTU of 12"),
        ({"key": 1024}, "aggregation key of 1024"),
    ],
)
async def test_what_cannot_be_a_bond(agent: Agent, given: dict[str, Any], text: str) -> None:
    agent.machine.ports["eth1"] = "taken"
    before = agent.state()
    with pytest.raises(SeamError, match=text):
        await agent.change(**given)
    assert agent.state() == before


async def test_a_change_is_made_once_and_kept_once(agent: Agent) -> None:
    for _ in range(2):
        reply = await agent.change()
        assert reply.now.ipv4 == Addressing(mode="static", addresses=["127.0.0.1/8"])
        await agent.tell(AddressesMade(change_id="one"))
    for _ in range(2):
        await agent.tell(AddressesKeep(change_id="one"))
    (shown,) = (await agent.tell(Facts())).bonds
    assert shown == BondShape(**SHAPE)
    with pytest.raises(SeamError, match="eth0 is a port of bond0 already"):
        await agent.change("two", device="bond1", members=["eth2", "eth0"])
    with pytest.raises(SeamError, match="eth0 is a member of a bond"):
        await agent.tell(VlanEnsure(device="eth0", tag=7, bridge="br7"))
    with pytest.raises(SeamError, match="has made no bond bond7"):
        await agent.tell(BondChange(change_id="gone", device="bond7", shape=None))
    with pytest.raises(SeamError, match="no interface eth7"):
        await agent.tell(CardProperty(device="eth7", gro=True))


async def test_one_that_cannot_be_taken_back_at_once_is_taken_back_later(agent: Agent) -> None:
    before = agent.state()
    agent.server.addresses._sleep = _no_sleep
    refused = SeamError("HYPERVISOR", "no such module")
    agent.machine.fail_next("bond_set", refused)
    agent.machine.fail_next("bond_remove", refused, times=2)
    vlan = VlanEnds(device="eth0", tag=100, bridge="br100")
    await agent.tell(VlanEnsure(device="eth0", tag=100, bridge="br100"))
    change = BondChange(change_id="one", device="bond0", shape=BondShape(**SHAPE), vlans=[vlan])
    with pytest.raises(SeamError, match="no such module"):
        await agent.tell(change)
    while agent.server.addresses._jobs:
        await next(iter(agent.server.addresses._jobs))
    assert agent.state() == before
    assert agent.machine.vlans == {("eth0", 100): "br100"}
    with pytest.raises(SeamError, match="taken back"):
        await agent.tell(AddressesKeep(change_id="one"))


class Crash(BaseException):
    """The agent's process ends."""


CHANGES = ("bond_set", "bond_remove", "addresses_set", "vlan_ensure", "vlan_remove", "bridge_ensure")


def dies_at(agent: Agent, moment: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Before and after each change of the machine is a moment. Gives those that have passed."""
    passed: list[str] = []

    def meet(name: str) -> None:
        passed.append(name)
        if len(passed) - 1 == moment:
            raise Crash(name)

    def meeting(name: str, method: Any) -> Any:
        async def both(*args: Any, **named: Any) -> Any:
            meet(f"before {name}")
            answer = await method(*args, **named)
            meet(f"after {name}")
            return answer

        return both

    for name in CHANGES:
        monkeypatch.setattr(agent.machine, name, meeting(name, getattr(agent.machine, name)))
    return passed


async def about_to(what: str, path: Path) -> tuple[Agent, BondChange]:
    """With a VLAN on the first card, or on the bond, and the second one a port of a bridge."""
    agent, shape, on = Agent(path), BondShape(**SHAPE), "eth0"
    await agent.tell(VlanEnsure(device="eth0", tag=100, bridge="br100"))
    agent.machine.ports["eth1"] = "xenbr1"
    if what != "made":
        vlan = VlanEnds(device="eth0", tag=100, bridge="br100")
        await agent.tell(BondChange(change_id="first", device="bond0", shape=shape, vlans=[vlan]))
        await agent.tell(AddressesKeep(change_id="first"))
        on = "bond0"
    vlans = [VlanEnds(device=on, tag=100, bridge="br100")] if what != "changed" else []
    wanted = {"made": shape, "changed": BondShape(**SHAPE, fast=True), "taken apart": None}[what]
    return agent, BondChange(change_id="second", device="bond0", shape=wanted, vlans=vlans)


@pytest.mark.parametrize("what", ["made", "changed", "taken apart"])
async def test_an_agent_that_dies_in_a_change_takes_it_back_when_it_starts(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the file that is written before the first change (``Addresses._change``)."""
    agent, change = await about_to(what, tmp_path / "whole")
    with monkeypatch.context() as patched:
        moments = dies_at(agent, -1, patched)
        await agent.tell(change)
    await agent.server.addresses.close()
    assert len(moments) >= 4
    for number, moment in enumerate(moments):
        path = tmp_path / str(number)
        agent, change = await about_to(what, path)
        before, vlans, kept = agent.state()[:3], dict(agent.machine.vlans), agent.server.addresses._kept.bonds
        with monkeypatch.context() as patched:
            dies_at(agent, number, patched)
            with pytest.raises(Crash):
                await agent.tell(change)
        await agent.server.addresses.close()
        agent.server = AgentServer(agent.machine, path / "agent.sock", Membership(path))
        await agent.server.addresses._restore()
        assert agent.state()[:3] == before, f"dead {moment}"
        assert agent.machine.vlans == vlans, f"dead {moment}"
        assert agent.server.addresses._kept.bonds == kept, f"dead {moment}"
        assert agent.server.addresses._kept.last is None, f"dead {moment}"
        await agent.server.addresses.close()


async def _no_sleep(delay_s: float) -> None:
    return None
