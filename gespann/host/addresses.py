"""The addresses that the pool has given to this host (``seams.host_addresses``), kept in DATA/addresses.json.

           change                     keep
  (kept) ─────────► change pending ─────────► (kept)
     ▲                    │  not kept in time, undo, the agent starts anew
     └────────────────────┘

What is about to be changed is in the file before it is changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.host import spec_check
from gespann.host.hypervisor import Hypervisor
from gespann.seams.engine_socket import Empty
from gespann.seams.host_addresses import (
    AddressesChange,
    AddressesChangeReply,
    AddressesKeep,
    AddressesUndo,
    Addressing,
    HostnameSet,
    InterfaceAddresses,
)
from gespann.seams.host_agent import FactsReply, HostInterface
from gespann.seams.json_lines import SeamError
from gespann.system.files import write_durable

log = logging.getLogger(__name__)

FILE = "addresses.json"
ANSWER_LEAVES_S = 0.2
AGAIN_AFTER_S = 15.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """``before``: what the interface had, whoever gave it; ``kept_before``: what of it was the pool's."""

    change_id: str
    device: str
    wanted: InterfaceAddresses
    before: InterfaceAddresses
    kept_before: InterfaceAddresses | None
    managed_by: str
    managed_by_before: str
    pending: bool = True


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """``managed_by``: a card; "": the host is managed as its processes were told at their start."""

    interfaces: dict[str, InterfaceAddresses] = {}
    managed_by: str = ""
    last: Change | None = None


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
        self._kept = self._read()
        self._lock = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self.move_door: Callable[[bool], Awaitable[None]] | None = None

    @property
    def wide_door(self) -> bool:
        return bool(self._kept.managed_by)

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            AddressesChange: self._change,
            AddressesKeep: self._keep,
            AddressesUndo: self._undo,
            HostnameSet: self._hostname,
        }

    def open(self) -> None:
        """What was not kept is taken back; what was is in force again. Waits for nothing: a lease may take long."""
        if self._kept.interfaces or self._kept.last is not None:
            self._spawn(self._restore())

    async def close(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def shown(self, facts: FactsReply) -> FactsReply:
        """With what the pool has configured."""
        by = [one for one in facts.interfaces if one.device == self._kept.managed_by]
        ours = sorted((text for one in by for text in one.addresses), key=lambda text: ":" in text)  # IPv4 first
        managed_at = ours[0].partition("/")[0] if ours else ""
        interfaces = [self._shown(one) for one in facts.interfaces]
        return msgspec.structs.replace(facts, interfaces=interfaces, managed_at=managed_at)

    def _shown(self, interface: HostInterface) -> HostInterface:
        kept = self._kept.interfaces.get(interface.device)
        if kept is None:
            return interface
        return msgspec.structs.replace(interface, configured=kept)

    # -- changes

    async def _change(self, request: AddressesChange) -> AddressesChangeReply:
        spec_check.check_addresses(request)
        if self._path is None:
            raise SeamError("BAD_STATE", "this agent keeps nothing, and so changes no addresses")
        async with self._lock:
            last = self._kept.last
            if last is not None and last.change_id == request.change_id:
                return AddressesChangeReply(now=last.wanted)
            if last is not None and last.pending:
                await self._take_back(last)
            wanted = await self._with_lease(request.device, request.wanted)
            before = await self._hypervisor.addresses_show(request.device)
            change = Change(
                change_id=request.change_id,
                device=request.device,
                wanted=wanted,
                before=_of_the_same(before, wanted, self._kept.interfaces.get(request.device)),
                kept_before=self._kept.interfaces.get(request.device),
                managed_by=request.device if request.manages else self._kept.managed_by,
                managed_by_before=self._kept.managed_by,
            )
            log.warning("%s: %s is to be %s", change.change_id, change.device, wanted)
            self._write(msgspec.structs.replace(self._kept, last=change))
            if request.answer_first:
                self._spawn(self._make_later(change))
            else:
                await self._make_or_take_back(change)
            self._spawn(self._watch(change, request.keep_within_s))
            return AddressesChangeReply(now=wanted)

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

    async def _make_or_take_back(self, change: Change) -> None:
        try:
            await self._hypervisor.addresses_set(change.device, change.wanted)
            await self._set_door(change)
        except SeamError:
            await self._take_back(change)
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
        await self._hypervisor.addresses_set(change.device, change.before)
        await self._set_door(change, back=True)
        interfaces = {name: kept for name, kept in self._kept.interfaces.items() if name != change.device}
        if change.kept_before is not None:
            interfaces[change.device] = change.kept_before
        self._write(Kept(interfaces=interfaces, managed_by=change.managed_by_before))

    async def _keep(self, request: AddressesKeep) -> Empty:
        async with self._lock:
            last = self._kept.last
            if last is None or last.change_id != request.change_id:
                raise SeamError("NOT_FOUND", "the change has been taken back")
            if last.pending:
                done = msgspec.structs.replace(last, pending=False)
                interfaces = {**self._kept.interfaces, last.device: _joined(last.kept_before, last.wanted)}
                self._write(Kept(interfaces=interfaces, managed_by=last.managed_by, last=done))
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
            for device, wanted in self._kept.interfaces.items():
                try:
                    await self._hypervisor.addresses_set(device, _for_a_new_lease(wanted))
                except SeamError as error:
                    log.error("%s does not get the addresses that the pool gave it: %s", device, error)

    # -- the file

    def _read(self) -> Kept:
        if self._path is None or not self._path.exists():
            return Kept()
        return msgspec.json.decode(self._path.read_bytes(), type=Kept)

    def _write(self, kept: Kept) -> None:
        assert self._path is not None
        write_durable(self._path, msgspec.json.encode(kept), 0o600)
        self._kept = kept

    def _spawn(self, work: Any) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def _of_the_same(
    now: InterfaceAddresses, wanted: InterfaceAddresses, kept: InterfaceAddresses | None
) -> InterfaceAddresses:
    """What is there now of what is to be changed. An interface that had a lease gets one again."""
    leased = kept is not None and kept.ipv4 is not None and kept.ipv4.mode == "dhcp"
    return InterfaceAddresses(
        ipv4=None if wanted.ipv4 is None else kept.ipv4 if leased and kept is not None else now.ipv4,
        ipv6=None if wanted.ipv6 is None else now.ipv6,
        dns=None if wanted.dns is None else now.dns,
    )


def _joined(kept: InterfaceAddresses | None, wanted: InterfaceAddresses) -> InterfaceAddresses:
    """A family that the change has left as it was stays the pool's if it was the pool's."""
    before = kept or InterfaceAddresses()
    return InterfaceAddresses(
        ipv4=wanted.ipv4 or before.ipv4,
        ipv6=wanted.ipv6 or before.ipv6,
        dns=wanted.dns if wanted.dns is not None else before.dns,
    )


def _for_a_new_lease(kept: InterfaceAddresses) -> InterfaceAddresses:
    """What the lease said once may be another's by now."""
    if kept.ipv4 is None or kept.ipv4.mode != "dhcp":
        return kept
    return msgspec.structs.replace(kept, ipv4=Addressing(mode="dhcp"))
