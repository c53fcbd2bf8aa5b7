"""Other hosts of a world: fake hypervisors with a membership of their own, and the way to them without its sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gespann.host.fake import FakeHypervisor
from gespann.host.membership import Membership, NotLeading
from gespann.host.server import AgentServer
from gespann.pool.pool import HostDoor, Pool
from gespann.pool.succession.terms import term_of
from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.host_membership import JoinOffer, JoinWithdraw
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.mutual_tls import certificate_of, ensure_identity

DOOR_PORT, OWN_ADDRESS = 4434, "10.0.0.5"


@dataclass
class FarHost:
    """A machine beside the coordinator's. It outlives the coordinator."""

    address: str
    hypervisor: FakeHypervisor
    membership: Membership
    reachable: bool = True

    def __post_init__(self) -> None:
        if self.hypervisor.cards["eth0"].ipv4 == Addressing(mode="static", addresses=["127.0.0.1/8"]):
            own = Addressing(mode="static", addresses=[f"{self.address}/24"])  # others reach it
            self.hypervisor.cards["eth0"] = InterfaceAddresses(ipv4=own, ipv6=Addressing(mode="none"), dns=[])
        run_dir = self.hypervisor.run_dir or Path()
        self.server = AgentServer(self.hypervisor, run_dir / "agent.sock", self.membership)

    def has_address(self, address: str) -> bool:
        cards = [*self.hypervisor.cards.values(), *self.hypervisor.vlans_with_addresses().values()]
        return address in {text.partition("/")[0] for card in cards if card.ipv4 for text in card.ipv4.addresses}

    @property
    def leader(self) -> tuple[int, str]:
        epoch, address = self.membership.leader
        return epoch, address or self.address

    @property
    def hostname(self) -> str:
        return self.hypervisor.hostname

    async def is_offered(self, pool_uuid: str, certificate: str) -> None:
        offer = JoinOffer(pool_uuid=pool_uuid, coordinator_certificate=certificate, coordinator_address=OWN_ADDRESS)
        await self.membership.handlers()[JoinOffer](offer)

    async def withdraws(self) -> str:
        return (await self.membership.handlers()[JoinWithdraw](JoinWithdraw())).state


class FarAgent:
    """As ``AgentLinks`` has it: answers only to the coordinator whose certificate the host was told."""

    def __init__(self, far: FarHost, links: "FakeLinks", address: str) -> None:
        self.handlers = far.server._handlers()
        self.far, self.links, self.address = far, links, address

    async def call(self, request: Any, timeout_s: float | None = None) -> Any:
        if not self.far.reachable or not self.far.has_address(self.address):
            raise SeamLost("nobody there")
        if self.far.membership.coordinator_certificate != self.links.certificate:
            self.links.refused.add(self.far.address)
            raise SeamLost("certificate unknown")
        self.links.refused.discard(self.far.address)
        try:
            await self.far.membership.heed(term_of(self.links.pool.db).epoch, self.links.address)
        except NotLeading as error:
            self.links.leaders[self.far.address] = self.far.leader
            raise SeamLost(str(error)) from error
        moments = self.links.moments
        moments.meet(request.op, "before", SeamError("HYPERVISOR", f"injected failure of {request.op}"))
        reply = await self.handlers[type(request)](request)
        moments.meet(request.op, "after", SeamLost(f"injected loss of the answer to {request.op}"))
        return reply


@dataclass
class FakeLinks:
    pool: Pool
    identity: Path
    hosts: dict[str, FarHost]  # by address
    moments: Any
    doors: dict[str, HostDoor] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    leaders: dict[str, tuple[int, str]] = field(default_factory=dict)
    address: str = OWN_ADDRESS

    def __post_init__(self) -> None:
        ensure_identity(self.identity)

    @property
    def certificate(self) -> str:
        return certificate_of(self.identity)

    async def open(self, host: str, door: HostDoor) -> None:
        """A door whose address no machine has is one that does not answer."""
        self.doors[host] = door
        self.pool.agents[host] = FarAgent(self.far(door), self, door.address)

    def far(self, door: HostDoor) -> FarHost:
        """By its certificate: its address may change."""
        (found,) = [one for one in self.hosts.values() if certificate_of(one.membership.identity) == door.certificate]
        return found

    async def close(self, host: str) -> None:
        self.doors.pop(host, None)
        self.pool.agents.pop(host, None)

    def shut_out(self, host: str) -> bool:
        return host in self.doors and self.far(self.doors[host]).address in self.refused

    def door(self, host: str) -> HostDoor:
        return self.doors[host]

    def leader_seen(self, host: str) -> tuple[int, str]:
        return self.leaders.get(self.far(self.doors[host]).address, (0, ""))

    async def stream(self, host: str, path: str) -> Any:
        return await asyncio.open_unix_connection(path)

    @contextlib.asynccontextmanager
    async def socket_here(self, host: str, path: str) -> AsyncIterator[str]:
        yield path
