"""The machines that run, kept in step with libvirt's events; who waits for one of them, and who is told.

libvirt's events arrive in order, but not in order with the answers to calls. So an event only says "look again": what
is told is what libvirt says when asked, and the start that a stop belongs to is remembered from before it.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import libvirt
import msgspec

from gespann.host.hypervisor import Told
from gespann.host.libvirt import freeze, secrets
from gespann.host.libvirt.connection import Connection, LibvirtEvent
from gespann.host.libvirt.domain_view import STOPPED_REASONS, describe, find, paths_of
from gespann.host.libvirt.domain_xml import DomainView
from gespann.host.libvirt.guest import GuestWatch, ask, set_agent_timeout
from gespann.host.libvirt.worker import in_worker
from gespann.seams.host_agent import Domain, DomainChanged, GuestChanged, GuestMetricsReply
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

RESYNC_DEADLINE_S = 60.0
#: of a lifecycle event: it stands still, and goes on elsewhere or, if that fails, here
SUSPENDED_TO_MIGRATE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
AGENT_DEADLINE_S = 30.0  # libvirt gives the agent 8 s for each of at most three questions


class Machines:
    def __init__(self, uri: str, run_dir: Path, data_dir: Path) -> None:
        self.run_dir = run_dir
        self.data_dir = data_dir
        self.connection = Connection(uri, self._queue_event, self._resync)
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.starting: dict[str, str] = {}  # uuid -> start_id, between intent and createXML's answer
        self.doomed: defaultdict[str, int] = defaultdict(int)  # counts the destroys of each uuid
        self.stopped_to_migrate_s: dict[str, float] = {}  # when, on the monotonic clock
        self._known: dict[str, Domain] = {}
        self._told: Told = lambda event: None
        self._events: asyncio.Queue[LibvirtEvent] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._watch = GuestWatch(self.guest_metrics, lambda uuid: self._told(GuestChanged(uuid=uuid)))
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._removal_waiters: dict[tuple[str, str], asyncio.Future[bool]] = {}

    async def open(self, told: Told, wait_s: float) -> None:
        self._told = told
        self._reader = asyncio.create_task(self._read_events())
        await self.connection.open(wait_s)

    async def close(self) -> None:
        tasks = [*self._tasks, *([self._reader] if self._reader is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watch.close()
        await self.connection.close()

    # --- asking

    def known(self, uuid: str) -> Domain | None:
        """As last seen, without asking libvirt."""
        return self._known.get(uuid)

    def used_memory_bytes(self) -> int:
        return sum(domain.memory_bytes for domain in self._known.values())

    async def look(self, uuid: str) -> tuple[Domain, DomainView] | None:
        """What runs now. What has changed since it was last seen is told."""

        def work(connection: libvirt.virConnect) -> tuple[Domain, DomainView] | None:
            domain = find(connection, uuid)
            return describe(domain, self.run_dir, self.data_dir) if domain is not None else None

        seen = await self.connection.call(f"look at {uuid}", work, asks=True)
        if seen is not None:
            self._saw(seen[0])
        return seen

    async def need(self, uuid: str) -> tuple[Domain, DomainView]:
        seen = await self.look(uuid)
        if seen is None:
            raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
        return seen

    async def all(self) -> list[Domain]:
        return await self.connection.call("list domains", self._describe_all, asks=True)

    async def act(
        self, what: str, uuid: str, work: Callable[[libvirt.virDomain], object], *, deadline_s: float = 30.0
    ) -> None:
        """One call on a machine that runs; NOT_FOUND otherwise."""

        def found(connection: libvirt.virConnect) -> None:
            domain = find(connection, uuid)
            if domain is None:
                raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
            work(domain)

        await self.connection.call(f"{what} {uuid}", found, deadline_s=deadline_s)

    async def guest_metrics(self, uuid: str) -> GuestMetricsReply:
        def work(connection: libvirt.virConnect) -> GuestMetricsReply:
            return ask(*self._found(connection, uuid))

        return await self.connection.call(f"ask the guest of {uuid}", work, asks=True)

    async def guest_freeze(self, uuid: str) -> None:
        """It is not asked for anything else meanwhile: a frozen guest refuses, and would look as if it were gone."""
        self._watch.end(uuid)

        def work(connection: libvirt.virConnect) -> None:
            domain, view = self._found(connection, uuid)
            freeze.freeze(domain, view)

        try:
            await self.connection.call(f"freeze the guest of {uuid}", work, deadline_s=AGENT_DEADLINE_S)
        except SeamError:
            self._watch.begin(uuid)
            raise

    async def guest_thaw(self, uuid: str) -> bool:
        def work(connection: libvirt.virConnect) -> bool:
            return freeze.thaw(self._found(connection, uuid)[0])

        was_frozen = await self.connection.call(f"thaw the guest of {uuid}", work, deadline_s=AGENT_DEADLINE_S)
        if uuid in self._known:
            self._watch.begin(uuid)
        return was_frozen

    def _found(self, connection: libvirt.virConnect, uuid: str) -> tuple[libvirt.virDomain, DomainView]:
        domain = find(connection, uuid)
        seen = describe(domain, self.run_dir, self.data_dir) if domain is not None else None
        if domain is None or seen is None:
            raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
        return domain, seen[1]

    # --- waiting

    def stop_of(self, uuid: str) -> asyncio.Future[None]:
        """Done when the machine has stopped. To be taken before what stops it; ``forget_stop`` afterwards."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop_waiters[uuid].add(waiter)
        return waiter

    def forget_stop(self, uuid: str, waiter: asyncio.Future[None]) -> None:
        self._stop_waiters[uuid].discard(waiter)

    def removal_of(self, uuid: str, alias: str) -> asyncio.Future[bool]:
        """True when the guest has let go of a device, False when it refused."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._removal_waiters[uuid, alias] = waiter
        return waiter

    def forget_removal(self, uuid: str, alias: str) -> None:
        self._removal_waiters.pop((uuid, alias), None)

    # --- keeping in step

    def stopped(self, uuid: str, reason: str) -> None:
        """Tells of a stop, once."""
        last = self._known.pop(uuid, None)
        self._watch.end(uuid)
        for waiter in self._stop_waiters.pop(uuid, set()):
            if not waiter.done():
                waiter.set_result(None)
        if last is not None:
            gone = msgspec.structs.replace(
                last, state="stopped", reason=reason, domid=-1, disks=[], nics=[], serial_socket="", vnc_socket=""
            )
            log.info("%s start %s has stopped: %s", uuid, last.start_id, reason)
            self._told(DomainChanged(domain=gone))

    def _saw(self, domain: Domain) -> None:
        last = self._known.get(domain.uuid)
        if last is not None and last.start_id != domain.start_id:
            self.stopped(domain.uuid, "unknown")
            last = None
        self._known[domain.uuid] = domain
        if last is None or _told_of(last) != _told_of(domain):
            self._told(DomainChanged(domain=domain))

    def _describe_all(self, connection: libvirt.virConnect) -> list[Domain]:
        described = (
            describe(domain, self.run_dir, self.data_dir)
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        )
        return [seen[0] for seen in described if seen is not None]

    async def _resync(self, connection: libvirt.virConnect) -> None:
        """After each connection: what changed while there was none."""

        def work() -> list[Domain]:
            here = self._describe_all(connection)
            secrets.undefine_strays(connection, {domain.uuid for domain in here} | set(self.starting))
            return here

        here = await in_worker(work, RESYNC_DEADLINE_S, "look at all domains")
        for uuid in set(self._known) - {domain.uuid for domain in here}:
            self.stopped(uuid, "unknown")
        for domain in here:
            self._saw(domain)
            self._watch.begin(domain.uuid)
            self._spawn(self._limit_agent(domain.uuid))

    async def _limit_agent(self, uuid: str) -> None:
        with contextlib.suppress(SeamError):
            await self.act("limit the agent of", uuid, set_agent_timeout)

    def _queue_event(self, event: LibvirtEvent) -> None:
        if event.kind == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED:
            self._removed(event.uuid, event.details[0], True)
        elif event.kind == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED:
            self._removed(event.uuid, event.details[0], False)
        else:
            if event.kind == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE and event.details == SUSPENDED_TO_MIGRATE:
                self.stopped_to_migrate_s[event.uuid] = time.monotonic()
            self._events.put_nowait(event)

    def _removed(self, uuid: str, alias: str, let_go: bool) -> None:
        waiter = self._removal_waiters.get((uuid, alias))
        if waiter is not None and not waiter.done():
            waiter.set_result(let_go)

    async def _read_events(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await self._take(event)
            except SeamError as error:
                log.warning("event of %s: %s", event.uuid, error.message)

    async def _take(self, event: LibvirtEvent) -> None:
        uuid = event.uuid
        if event.kind == libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE:
            if event.details[0] == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
                self._watch.begin(uuid)
            else:
                self._watch.end(uuid)
                if uuid in self._known:
                    self._told(GuestChanged(uuid=uuid))
        elif event.kind == libvirt.VIR_DOMAIN_EVENT_ID_REBOOT:
            last = self._known.get(uuid)
            if last is not None:
                self._told(DomainChanged(domain=msgspec.structs.replace(last, reason="rebooted")))
        elif event.kind == libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE:
            if uuid in self._known:
                await self.look(uuid)
        elif event.details[0] == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            await self._take_stop(uuid, STOPPED_REASONS.get(event.details[1], "unknown"))
        elif uuid not in self.starting:  # create itself looks when it is done
            await self.look(uuid)

    async def _take_stop(self, uuid: str, reason: str) -> None:
        if uuid in self.starting or await self.look(uuid) is not None:
            return  # news of an earlier start, or create itself will see it
        self.stopped(uuid, reason)
        self._spawn(self._clean_up(uuid))  # not here: whoever has the lock may wait for events

    async def _clean_up(self, uuid: str) -> None:
        with contextlib.suppress(SeamError):  # stray secrets go at the next connection
            async with self.locks[uuid]:
                if uuid not in self.starting and await self.look(uuid) is None:  # it may be on its way back
                    directory = paths_of(self.run_dir, self.data_dir, uuid).serial_socket.parent
                    shutil.rmtree(directory, ignore_errors=True)
                    await self.connection.call("undefine secrets", lambda at: secrets.undefine_all(at, uuid))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _told_of(domain: Domain) -> tuple[str, str, int]:
    return domain.state, domain.reason, domain.memory_bytes
