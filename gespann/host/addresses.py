"""The addresses that the pool has given to this host (``seams.host_addresses``), and the bonds that it has made of its
cards (``seams.host_bonds``), kept in DATA/addresses.json.

           change                     keep
  (kept) ─────────► change pending ─────────► (kept)
     ▲                    │  not kept in time, undo, the agent starts anew
     └────────────────────┘

What is about to be changed is in the file before it is changed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.host import bond_moves, kept_network, spec_check
from gespann.host.hypervisor import Hypervisor
from gespann.host.kept_network import FILE, NOTHING, Change, Kept, for_a_new_lease, of_the_same
from gespann.seams.engine_socket import Empty
from gespann.seams.host_addresses import (
    AddressesChange,
    AddressesChangeReply,
    AddressesKeep,
    AddressesMade,
    AddressesUndo,
    HostnameSet,
    InterfaceAddresses,
)
from gespann.seams.host_agent import FactsReply, HostInterface
from gespann.seams.host_bonds import BondChange
from gespann.seams.host_network import VlanEnds, VlanEnsure, VlanRemove, vlan_interface
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

ANSWER_LEAVES_S = 0.2
AGAIN_AFTER_S = 15.0


class Addresses:
    """``move_door`` opens the agent's door at every address of the host (true), or where the agent was told to."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        data_dir: Path | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``data_dir``: none for an agent that keeps nothing, and so changes no addresses."""
        self._sleep = sleep
        self._hypervisor = hypervisor
        self._path = data_dir / FILE if data_dir is not None else None
        self._kept = kept_network.read(self._path)
        self._lock = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._unmade = ""  # the change that is made after its answer
        self._why: dict[str, str] = {}  # a change that could not be made after its answer -> what was in the way
        self.move_door: Callable[[bool], Awaitable[None]] | None = None

    @property
    def wide_door(self) -> bool:
        return bool(self._kept.managed_by)

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            AddressesChange: self._change_addresses,
            BondChange: self._change_bond,
            AddressesMade: self._made,
            AddressesKeep: self._keep,
            AddressesUndo: self._undo,
            HostnameSet: self._hostname,
            VlanEnsure: self._vlan_ensure,
            VlanRemove: self._vlan_remove,
        }

    def open(self) -> None:
        """What was not kept is taken back; what was is in force again. Waits for nothing: a lease may take long."""
        if self._kept != Kept():
            self._spawn(self._restore())

    async def close(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def shown(self, facts: FactsReply) -> FactsReply:
        """With what the pool has configured."""
        every = [*facts.interfaces, *facts.vlans]
        by = [one for one in every if one.device == self._kept.managed_by]
        ours = sorted((text for one in by for text in one.addresses), key=lambda text: ":" in text)  # IPv4 first
        managed_at = ours[0].partition("/")[0] if ours else ""
        return msgspec.structs.replace(
            facts,
            interfaces=[self._shown(one) for one in facts.interfaces],
            vlans=[self._shown(one) for one in facts.vlans],
            bonds=[bond.shape for bond in self._bonds().values()],
            managed_at=managed_at,
        )

    def _bonds(self) -> dict[str, kept_network.KeptBond]:
        """With one that is being made."""
        last = self._kept.last
        coming = last.bond.after if last is not None and last.bond is not None and last.pending else None
        return self._kept.bonds | ({coming.shape.device: coming} if coming is not None else {})

    def _shown(self, interface: HostInterface) -> HostInterface:
        kept = self._kept.interfaces.get(interface.device)
        if kept is None:
            return interface
        return msgspec.structs.replace(interface, configured=kept)

    # -- changes

    async def _change_addresses(self, request: AddressesChange) -> AddressesChangeReply:
        spec_check.check_addresses(request)

        async def plan() -> Change:
            wanted = await self._with_lease(request.device, request.wanted)
            before = await self._hypervisor.addresses_show(request.device)
            own = self._kept.interfaces.get(request.device)
            return Change(
                change_id=request.change_id,
                device=request.device,
                wanted=wanted,
                before=of_the_same(before, wanted, own),
                kept_before=own,
                managed_by=request.device if request.manages else self._kept.managed_by,
                managed_by_before=self._kept.managed_by,
                vlan=request.vlan,
            )

        return await self._change(request, plan)

    async def _change_bond(self, request: BondChange) -> AddressesChangeReply:
        spec_check.check_bond(request)
        return await self._change(request, lambda: bond_moves.plan_move(self._hypervisor, self._kept, request))

    async def _change(
        self, request: AddressesChange | BondChange, plan: Callable[[], Awaitable[Change]]
    ) -> AddressesChangeReply:
        """One at a time; what is under way that is another one is taken back first."""
        if self._path is None:
            raise SeamError("BAD_STATE", "this agent keeps nothing, and so changes no addresses")
        async with self._lock:
            last = self._kept.last
            if last is not None and last.change_id == request.change_id:
                return AddressesChangeReply(now=last.wanted)
            if last is not None and last.pending:
                await self._take_back(last)
            change = await plan()
            log.warning("%s: %s is to be %s", change.change_id, change.device, change.bond or change.wanted)
            self._write(msgspec.structs.replace(self._kept, last=change))
            if request.answer_first:
                self._unmade = change.change_id
                self._spawn(self._make_later(change))
            else:
                await self._make_or_take_back(change)
            self._spawn(self._watch(change, request.keep_within_s))
            return AddressesChangeReply(now=change.wanted)

    async def _with_lease(self, device: str, wanted: InterfaceAddresses) -> InterfaceAddresses:
        if wanted.ipv4 is None or wanted.ipv4.mode != "dhcp":
            return wanted
        lease = await self._hypervisor.addresses_lease(device)
        return msgspec.structs.replace(lease, ipv6=wanted.ipv6, dns=wanted.dns or lease.dns)

    async def _make_later(self, change: Change) -> None:
        await self._sleep(ANSWER_LEAVES_S)
        async with self._lock:
            if self._kept.last == change:
                try:
                    await self._make_or_take_back(change)
                except SeamError as error:
                    log.error("%s: taken back: %s", change.change_id, error)
                    self._why[change.change_id] = f": {error}"
            if self._unmade == change.change_id:
                self._unmade = ""

    async def _make_or_take_back(self, change: Change) -> None:
        try:
            if change.bond is not None:
                await bond_moves.make(self._hypervisor, change)
            else:
                await self._hypervisor.addresses_set(change.device, change.wanted)
            await self._set_door(change)
        except SeamError as cause:
            try:
                await self._take_back(change)
            except SeamError as error:
                cause.add_note(f"and taking it back failed too: {error}")
                self._spawn(self._watch(change, AGAIN_AFTER_S))
            raise

    async def _set_door(self, change: Change, *, back: bool = False) -> None:
        if self.move_door is None or bool(change.managed_by) == bool(change.managed_by_before):
            return
        try:
            await self.move_door(bool(change.managed_by_before if back else change.managed_by))
        except OSError as error:
            raise SeamError("HYPERVISOR", f"the agent's door: {error}") from error

    async def _watch(self, change: Change, within_s: float) -> None:
        await self._sleep(within_s)
        while True:
            async with self._lock:
                if self._kept.last != change:
                    return
                log.warning("%s was not kept within %g s, and is taken back", change.change_id, within_s)
                try:
                    await self._take_back(change)
                    return
                except SeamError as error:
                    log.error("%s cannot be taken back: %s", change.change_id, error)
            await self._sleep(AGAIN_AFTER_S)

    async def _take_back(self, change: Change) -> None:
        """The world first: as long as the file says that it is to be done, it will be done again."""
        if change.bond is not None:
            await bond_moves.take_back(self._hypervisor, change)
        else:
            await self._hypervisor.addresses_set(change.device, change.before)
        await self._set_door(change, back=True)
        self._write(kept_network.without_change(self._kept, change))

    def _asked_for(self, change_id: str) -> Change:
        last = self._kept.last
        if last is None or last.change_id != change_id:
            raise SeamError("NOT_FOUND", f"the change has been taken back{self._why.get(change_id, '')}")
        if change_id == self._unmade:
            raise SeamError("BAD_STATE", "the change has not been made yet")
        return last

    async def _made(self, request: AddressesMade) -> Empty:
        async with self._lock:
            self._asked_for(request.change_id)
        return Empty()

    async def _keep(self, request: AddressesKeep) -> Empty:
        async with self._lock:
            last = self._asked_for(request.change_id)
            if last.pending:
                self._write(kept_network.with_change(self._kept, last))
                log.info("%s is kept", last.change_id)
            return Empty()

    async def _undo(self, request: AddressesUndo) -> Empty:
        async with self._lock:
            last = self._kept.last
            if last is not None and last.change_id == request.change_id:
                log.warning("%s is taken back", last.change_id)
                await self._take_back(last)
            return Empty()

    async def _hostname(self, request: HostnameSet) -> Empty:
        spec_check.check_hostname(request.hostname)
        log.warning("this host is called %s from now on", request.hostname)
        await self._hypervisor.hostname_set(request.hostname)
        return Empty()

    # -- at start

    async def _restore(self) -> None:
        async with self._lock:
            last = self._kept.last
            if last is not None and last.pending:
                log.warning("%s was not kept before the agent ended, and is taken back", last.change_id)
                try:
                    await self._take_back(last)
                except SeamError as error:
                    log.error("%s cannot be taken back: %s", last.change_id, error)
                    self._spawn(self._watch(last, AGAIN_AFTER_S))
                    return
            for text in await bond_moves.restore(self._hypervisor, self._kept):
                log.error("not in force again: %s", text)
            for device, wanted in self._kept.interfaces.items():
                try:
                    await self._hypervisor.addresses_set(device, for_a_new_lease(wanted))
                except SeamError as error:
                    log.error("%s does not get the addresses that the pool gave it: %s", device, error)

    # -- VLANs: one that goes takes along what the pool gave it, and has it again when it comes back

    async def _vlan_ensure(self, request: VlanEnsure) -> Empty:
        spec_check.check_vlan(request.device, request.tag)
        spec_check.check_bridge(request.bridge, request.mtu)
        async with self._lock:
            if any(request.device in bond.shape.members for bond in self._bonds().values()):
                raise SeamError("BAD_STATE", f"{request.device} is a member of a bond")
            await self._hypervisor.vlan_ensure(request.device, request.tag, request.bridge, request.mtu)
            name = vlan_interface(request.device, request.tag)
            wanted = self._kept.interfaces.get(name)
            if wanted is not None and name not in self._kept.vlans:
                await self._hypervisor.addresses_set(name, for_a_new_lease(wanted))
                ends = VlanEnds(device=request.device, tag=request.tag, bridge=request.bridge, mtu=request.mtu)
                self._write(msgspec.structs.replace(self._kept, vlans={**self._kept.vlans, name: ends}))
        return Empty()

    async def _vlan_remove(self, request: VlanRemove) -> Empty:
        spec_check.check_vlan(request.device, request.tag)
        name = vlan_interface(request.device, request.tag)
        async with self._lock:
            if name in self._kept.vlans:
                with contextlib.suppress(SeamError):  # it is gone already
                    await self._hypervisor.addresses_set(name, NOTHING)
                vlans = {other: ends for other, ends in self._kept.vlans.items() if other != name}
                self._write(msgspec.structs.replace(self._kept, vlans=vlans))
            await self._hypervisor.vlan_remove(request.device, request.tag)
            if request.forget and name in self._kept.interfaces:
                interfaces = {other: has for other, has in self._kept.interfaces.items() if other != name}
                self._write(msgspec.structs.replace(self._kept, interfaces=interfaces))
        return Empty()

    # -- the file

    def _write(self, kept: Kept) -> None:
        assert self._path is not None
        kept_network.write(self._path, kept)
        self._kept = kept

    def _spawn(self, work: Any) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
