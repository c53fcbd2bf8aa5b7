"""Keeps records and world in step while the pool runs.

reconciler = Reconciler(pool)
await reconciler.start()                    after first_start; the API opens after it
agent client: on_event -> reconciler.agent_event(host, event), on_up -> reconciler.agent_up(host),
              on_down -> reconciler.agent_down(host)
await reconciler.stop()
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from gespann.pool.classes.context import capabilities_of
from gespann.pool.model import kept_changes
from gespann.pool.plan.allowed_operations import derive_allowed_operations, refresh_all, rules_mark
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.reconcile import host_boots
from gespann.pool.reconcile.adoption import adopt
from gespann.pool.reconcile.data_shedding import Shedding
from gespann.pool.reconcile.domains import look_at_host, refresh_guest
from gespann.pool.reconcile.guest_ends import GuestEnds
from gespann.pool.reconcile.held_up import HeldUp
from gespann.pool.reconcile.host_facts import ensure_vlans, refresh_host, show_live
from gespann.pool.reconcile.snapshot_schedules import SnapshotSchedules
from gespann.pool.reconcile.storage_alerts import StorageAlerts
from gespann.pool.reconcile.storage_losses import note_losses
from gespann.pool.reconcile.storage_scan import close_strays, refresh_stat
from gespann.pool.reconcile.storage_warnings import tell_warnings
from gespann.pool.reconcile.unfinished import discard, unfinished_vms
from gespann.pool.steps import host_steps
from gespann.pool.steps.openings import prepare_tables, start_of
from gespann.pool.steps.runner import Work
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.pool.succession import terms
from gespann.seams.host_agent import DomainChanged, Event, GuestChanged
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
ROUND_S = 5.0  # what has stalled is tried again, and guests without an address are asked
HOSTS_EVERY_ROUNDS = 6
STORAGE_EVERY_ROUNDS = 12
GUESTS_EVERY_ROUNDS = 12


def prepare(pool: "Pool") -> Work:
    """Before anything else is done with a pool: its tables, its work, its derived fields."""
    prepare_tables(pool.db)
    host_steps.prepare_tables(pool.db)
    kept_changes.prepare_tables(pool.db)
    terms.prepare_tables(pool.db)
    host_boots.prepare_tables(pool.db)
    derive_allowed_operations(pool.db, capabilities_of(pool))
    return Work(pool)


class Reconciler:
    """``pool`` has been through ``prepare`` and ``first_start``."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.work: Work = pool.services["work"]
        self.schedules = SnapshotSchedules(pool)
        self._jobs: set[asyncio.Task[None]] = set()
        self._looking: dict[str, asyncio.Event] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, dict[str, str]] = {}  # host -> VM uuid -> why it stopped
        self._asking: set[str] = set()
        self._busy = 0  # looks and questions under way
        self._unreached: set[str] = set()  # SRs that could not be attached again yet
        self._alerts = StorageAlerts(pool)
        self._held_up = HeldUp(pool)
        self._shedding = Shedding(pool)
        self._guest_ends = GuestEnds(pool)
        self._unfinished: set[str] = set()  # VMs whose install ended with an earlier coordinator

    # -- from start to stop

    async def start(self) -> None:
        """Journal first, then hosts, then storage. Answers when records and world agree as far as both can be reached;
        the rest is tried again from time to time."""
        await self.work.recover()
        drivers = {sr_type: driver.info.capabilities for sr_type, driver in self.pool.drivers.items()}
        refresh_all(self.pool.db, rules_mark(drivers))
        if to_adopt := terms.hosts_to_adopt(self.pool.db):
            await self._attach_again(set(self.pool.db.all("SR")))
            await asyncio.gather(*(self._adopt(host) for host in to_adopt))
        await asyncio.gather(*(self._meet(host) for host in self.pool.db.all("host")))
        await self._attach_again(set(self.pool.db.all("SR")))
        self._unfinished = unfinished_vms(self.pool.db)
        await self._discard_unfinished()
        kept_changes.forget_strangers(self.pool.db)
        for host in self.pool.db.all("host"):
            self._watch_over(host)
        self._spawn(self._sweep())
        self._spawn(self._rounds())
        self._spawn(self._run_schedules())

    async def stop(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self.work.stop()

    # -- what agents tell

    def agent_event(self, host: str, event: Event) -> None:
        if isinstance(event, DomainChanged):
            if event.domain.state == "stopped":
                self._reasons.setdefault(host, {})[event.domain.uuid] = event.domain.reason
            elif event.domain.reason == "rebooted":
                self._spawn(self._guest_ends.rebooted(event.domain))
            self._look_soon(host)
        elif isinstance(event, GuestChanged):
            self._ask_soon(event.uuid)

    def agent_up(self, host: str) -> None:
        self._spawn(self._greet(host))

    def agent_down(self, host: str) -> None:
        if self.pool.db.find("host", host) is not None:
            show_live(self.pool, host, live=False)

    @property
    def quiet(self) -> bool:
        """Everything that agents have told so far has been dealt with."""
        return not (self._busy or self._asking or any(wanted.is_set() for wanted in self._looking.values()))

    async def _greet(self, host: str) -> None:
        if self.pool.db.find("host", host) is not None and await refresh_host(self.pool, host):
            await ensure_vlans(self.pool, host)
            self._look_soon(host)

    async def _meet(self, host: str) -> None:
        if await refresh_host(self.pool, host):
            await ensure_vlans(self.pool, host)
            await self._look(host)

    async def _adopt(self, host: str) -> None:
        """Before any host is looked at: what has moved since the copy is found on one host and missed on another."""
        try:
            await adopt(self.pool, host)
        except XenApiError as error:
            log.warning("what runs on host %s is not known yet: %s", host, error)

    # -- looking

    def _look_soon(self, host: str) -> None:
        """A host that has joined meanwhile is watched from here on."""
        if self._watchers and host not in self._looking and self.pool.db.find("host", host) is not None:
            self._watch_over(host)
        if host in self._looking:
            self._looking[host].set()

    def _watch_over(self, host: str) -> None:
        self._looking[host] = asyncio.Event()
        self._watchers[host] = self._spawn(self._watch(host))

    async def _watch(self, host: str) -> None:
        wanted = self._looking[host]
        while True:
            await wanted.wait()
            wanted.clear()
            if self.pool.db.find("host", host) is None:  # it has left the pool
                del self._looking[host], self._watchers[host]
                return
            self._busy += 1
            try:
                await _guarded(self._look(host))
            finally:
                self._busy -= 1

    async def _look(self, host: str) -> None:
        if self.pool.db.still:
            return
        reasons = self._reasons.pop(host, {})
        try:
            later = await look_at_host(self.pool, host, reasons)
        except XenApiError as error:
            log.warning("host %s cannot be looked at: %s", self.pool.db.get("host", host)["hostname"], error)
            self._reasons[host] = {**reasons, **self._reasons.get(host, {})}
            return
        for vm in later:
            record = self.pool.db.find("VM", vm)
            if record is not None and record["uuid"] in reasons:
                self._reasons.setdefault(host, {}).setdefault(record["uuid"], reasons[record["uuid"]])
            self._spawn(self._look_when_free(host, vm))
        for vm in list(self.pool.db.get("host", host)["resident_VMs"]):
            if self.pool.db.find("VM_guest_metrics", self.pool.db.get("VM", vm)["guest_metrics"]) is None:
                self._ask_soon(self.pool.db.get("VM", vm)["uuid"])

    async def _look_when_free(self, host: str, vm: str) -> None:
        await self.work.locks.until_free("VM", vm)
        self._look_soon(host)

    def _ask_soon(self, uuid: str) -> None:
        if uuid not in self._asking:
            self._asking.add(uuid)
            self._spawn(self._ask_guest(uuid))

    async def _ask_guest(self, uuid: str) -> None:
        try:
            vm = self.pool.db.by_uuid("VM", uuid)
        except XenApiError:
            self._asking.discard(uuid)
            return
        await self.work.locks.until_free("VM", vm)
        self._asking.discard(uuid)  # an event from here on is asked about again
        self._busy += 1
        try:
            await refresh_guest(self.pool, vm)
        finally:
            self._busy -= 1

    # -- storage

    async def _attach_again(self, srs: set[str]) -> None:
        """A driver must hold its SRs again after a restart. One that cannot be reached stays plugged in the records:
        its VMs may run on, and it is tried again. Side by side: an array that is silent is waited for once."""
        await asyncio.gather(*(self._attach_one_again(sr) for sr in srs))

    async def _attach_one_again(self, sr: str) -> None:
        if self.pool.db.find("SR", sr) is None or not attached_hosts(self.pool.db, sr):
            self._unreached.discard(sr)
            return
        try:
            driver = driver_of(self.pool, sr)
            with storage_words(sr):
                await driver.attach(sr_as_driver_sees_it(self.pool.db, sr))
                await refresh_stat(self.pool, sr)
            self._unreached.discard(sr)
            self._alerts.measured(sr)
        except XenApiError as error:
            log.warning("SR %s cannot be reached: %s", self.pool.db.get("SR", sr)["uuid"], error)
            self._unreached.add(sr)
            self._alerts.lost(sr, error)

    async def _discard_unfinished(self) -> None:
        for vm in list(self._unfinished):
            if await discard(self.pool, vm):
                self._unfinished.discard(vm)

    async def sweep(self) -> int:
        """Closes what the storage has open for nobody; gives how many."""
        closed = 0
        for sr in list(self.pool.db.all("SR")):
            if self.pool.db.find("SR", sr) is not None:
                try:
                    closed += await close_strays(self.pool, sr)
                except XenApiError as error:
                    log.warning("openings of SR %s cannot be checked: %s", sr, error)
        return closed

    async def _sweep(self) -> None:
        """Once every host has been seen by this coordinator: what is open for nobody that this one knows, another
        coordinator may have opened, and then its hosts would say so."""
        while not self._all_live():
            await self.pool.clock.sleep(ROUND_S)
        await self.sweep()

    def _all_live(self) -> bool:
        db = self.pool.db
        return all(db.get("host_metrics", host["metrics"])["live"] for host in db.all("host").values())

    # -- from time to time

    async def _rounds(self) -> None:
        count = 0
        while True:
            await self.pool.clock.sleep(ROUND_S)
            count += 1
            await _guarded(self.round(count))

    async def _run_schedules(self) -> None:
        while True:
            await self.pool.clock.sleep(ROUND_S)
            await _guarded(self.schedules.round())

    async def round(self, count: int) -> None:
        """One round. ``count`` says which of the rarer things are due."""
        if self.pool.db.still:  # the pool is about to be another coordinator's, or is already
            return
        await self.work.retry_stalled()
        await self._held_up.go_on()
        if self._unreached:
            await self._attach_again(set(self._unreached))
        await self._discard_unfinished()
        await self._measure_storage(self.work.take_changed_srs())
        if count % HOSTS_EVERY_ROUNDS == 0:
            await asyncio.gather(*(self._greet(host) for host in list(self.pool.db.all("host"))))
            for host in set(self._looking) - set(self.pool.db.all("host")):
                self._look_soon(host)  # the watch finds that it has left, and ends
        if count % STORAGE_EVERY_ROUNDS == 0:
            await self._shedding.round()
            await self._measure_storage(set(self.pool.db.all("SR")))
            await tell_warnings(self.pool)
            await note_losses(self.pool)
        for vm, record in list(self.pool.db.all("VM").items()):
            if record["power_state"] == "Running" and start_of(self.pool.db, vm) is not None:
                guest = self.pool.db.find("VM_guest_metrics", record["guest_metrics"])
                if guest is None or not guest["networks"] or count % GUESTS_EVERY_ROUNDS == 0:
                    self._ask_soon(record["uuid"])

    async def _measure_storage(self, srs: set[str]) -> None:
        await asyncio.gather(*(self._measure(sr) for sr in srs))

    async def _measure(self, sr: str) -> None:
        if self.pool.db.find("SR", sr) is None or not attached_hosts(self.pool.db, sr):
            return
        try:
            await refresh_stat(self.pool, sr)
            if self.pool.db.find("SR", sr) is not None:
                self._alerts.measured(sr)
        except XenApiError as error:
            log.warning("SR %s does not tell its sizes: %s", sr, error)
            if self.pool.db.find("SR", sr) is not None and getattr(error, "nobody_answered", False):
                self._alerts.lost(sr, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.get_running_loop().create_task(_guarded(work))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        job.add_done_callback(lambda _: work.close())  # if it was stopped before it began
        return job


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    """What nobody foresaw is told, and the rest of the reconciler goes on: the next round may well work."""
    try:
        await work
    except Exception:
        log.exception("reconciling failed")
