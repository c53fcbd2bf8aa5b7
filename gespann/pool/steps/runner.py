"""Runs plans: takes the locks, journals the intent, does the steps, and on failure undoes them.

    work = Work(pool)                      once, before anything else of the pool is used
    await work.recover()                   at start: finishes or undoes what a crash left
    ref = await work.run(lambda: plan_vm_start(pool.db, vm), task=call.task)

What could not be undone or finished *stalls*: it stays in the journal and keeps its locks, ``retry_stalled`` tries it
again from time to time, and so does whoever finds it in the way.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gespann.pool.model.database import Transaction
from gespann.pool.plan.shapes import Lock, Plan
from gespann.pool.steps import (  # noqa: F401 each registers its steps
    address_steps,
    archive_steps,
    bond_steps,
    card_steps,
    change_steps,
    device_steps,
    domain_steps,
    format_steps,
    host_steps,
    image_steps,
    machine_steps,
    memory_steps,
    migrate_steps,
    mirror_steps,
    network_steps,
    notices,
    record_steps,
    repository_steps,
    snapshot_steps,
    succession_steps,
    volume_steps,
)
from gespann.pool.steps.host_door import counted_as_dead
from gespann.pool.steps.journal import Entry, Journal
from gespann.pool.steps.locks import Held, Locks
from gespann.pool.steps.registry import STEPS, Refused, Run
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.api.tasks import Task
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
Memory = dict[str, Any]
#: what nobody has asked for, as a guest that stopped by itself: who finds it in the way waits for it
NOBODYS = frozenset({"VM.stopped"})
#: what ends when its last reader leaves; that may just be happening, so who finds it in the way waits for so long
READERS, LEAVE_WITHIN_S = frozenset({"VDI.serve"}), 5.0


class Work:
    """All operations of one pool. One per Pool: ``pool.services["work"]``."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.locks = Locks()
        self.journal = Journal(pool.db)
        self._under_way: dict[str, Entry] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._cut_short: dict[str, asyncio.Event] = {}
        self._stalled: dict[str, Entry] = {}
        self._retries: dict[str, asyncio.Event] = {}  # those that are just being tried again
        self._changed_srs: set[str] = set()
        self._motions: list[set[str]] = []  # for those who look at storage just now
        pool.services["work"] = self

    # -- requests

    async def run(
        self, planner: Callable[[], Plan], *, task: "Task | None" = None, memory: Memory | None = None
    ) -> Any:
        """Plans and runs to the end, even when the caller goes away meanwhile. Gives ``Plan.result``; raises what the
        plan refused, or what failed (after undoing)."""
        entry, plan = await self._begin(planner)
        job = asyncio.create_task(self._drive(entry, memory if memory is not None else {}, task), name=plan.operation)
        self._jobs[entry.id] = job
        job.add_done_callback(lambda _: self._jobs.pop(entry.id, None))
        if task is not None:
            self._obey_cancel(task, entry, job)
        await asyncio.shield(job)
        return plan.result

    def _obey_cancel(self, task: "Task", entry: Entry, job: asyncio.Task[None]) -> None:
        async def watch() -> None:
            await task.wait_cancel_asked()
            if task.cancellable and entry.id in self._cut_short:
                self._cut_short[entry.id].set()

        task.allow_cancel()
        watcher = asyncio.create_task(watch())
        job.add_done_callback(lambda _: watcher.cancel())

    async def assert_possible(self, planner: Callable[[], Plan]) -> None:
        """What ``run`` would be refused for at once. Nothing is done."""
        operation_id = f"OpaqueRef:{uuid.uuid4()}"
        plan, _ = await self._claim(operation_id, planner)
        self.locks.release(operation_id, list(plan.locks))

    async def _claim(self, operation_id: str, planner: Callable[[], Plan]) -> tuple[Plan, dict[str, Entry]]:
        """The plan, with its locks taken, and what is given up for it."""
        cleared: set[str] = set()
        given_up: dict[str, Entry] = {}
        while True:
            plan = None
            try:
                plan = planner()  # from here to the locks nothing awaits, so what was decided still holds
                given_up = {key: one for key, one in given_up.items() if key in self._stalled}
                self.locks.take(operation_id, list(plan.locks), frozenset(given_up))
                return plan, given_up
            except XenApiError as refusal:
                holder = self._holder(refusal)
                if holder is None or holder in cleared:
                    raise
                if not await self._clear(holder, plan):
                    if plan is None or holder not in self._stalled:
                        raise
                    if self._stalled[holder].operation not in plan.supersedes:
                        raise
                    given_up[holder] = self._stalled[holder]
                cleared.add(holder)

    async def _begin(self, planner: Callable[[], Plan]) -> tuple[Entry, Plan]:
        operation_id = f"OpaqueRef:{uuid.uuid4()}"
        plan, given_up = await self._claim(operation_id, planner)
        for one in given_up.values():
            log.warning("%s is given up for %s", one.operation, plan.operation)
            plan = replace(plan, acts=(*plan.acts, *plan.supersedes[one.operation](one.acts)))
        entry = self.journal.entry(operation_id, plan)
        try:
            with self.pool.db.transaction() as tx:
                if plan.prepare is not None:
                    plan.prepare(tx)
                for one in given_up.values():
                    self._end(tx, one)
                self._show(tx, entry)
                self.journal.write(tx, entry, position=0)
        except BaseException:
            self.locks.release(entry.id, entry.locks)
            raise
        for one in given_up.values():
            self._stalled.pop(one.id)
            self._forget(one)
        self._under_way[entry.id] = entry
        for moving in self._motions:
            moving |= _volumes_of(entry)
        self._cut_short[entry.id] = asyncio.Event()
        return entry, plan

    def _holder(self, refusal: XenApiError) -> str | None:
        if refusal.code != "OTHER_OPERATION_IN_PROGRESS":
            return None
        return refusal.holder if isinstance(refusal, Held) else refusal.params[3]

    async def _clear(self, holder: str, plan: Plan | None) -> bool:
        """Tries to get another operation out of the way: a stalled one by trying it again, one that may be cut short by
        saying so. True if it has ended."""
        if holder in self._stalled:
            return await self._retry(self._stalled[holder])
        entry, job = self._under_way.get(holder), self._jobs.get(holder)
        if entry is None or job is None:
            return False
        if entry.operation in NOBODYS:
            await asyncio.wait([job])
            return holder not in self._under_way
        if entry.operation in READERS:
            await asyncio.wait([job], timeout=LEAVE_WITHIN_S)
            return holder not in self._under_way
        if plan is None or entry.operation not in plan.interrupts:
            return False
        self._cut_short[holder].set()
        await asyncio.wait([job])
        return holder not in self._under_way

    # -- doing

    async def _drive(self, entry: Entry, memory: Memory, task: "Task | None") -> None:
        try:
            await self._forward(entry, memory, task)
        except Exception as cause:
            unknown = entry.may_have_passed_return() and _nobody_answered(cause)  # it may have happened
            if entry.has_passed_return() or unknown:
                self._stall(entry, cause)
                raise
            entry.cause = _description(cause)
            try:
                await self._back(entry, memory)
            except Exception as second:
                self._stall(entry, second)
                cause.add_note(f"and undoing it failed too: {second}")
            raise

    async def _forward(self, entry: Entry, memory: Memory, task: "Task | None") -> None:
        cut_short = self._cut_short.get(entry.id)
        while entry.position < len(entry.acts):
            step = STEPS[entry.acts[entry.position].step]
            run = self._look(entry, memory, task)
            run.cut_short = cut_short
            if entry.is_too_late_to_cancel():
                run.cut_short = None
                if task is not None:
                    task.forbid_cancel()
            elif cut_short is not None and cut_short.is_set():
                raise XenApiError("TASK_CANCELLED", [task.ref if task is not None else entry.id])
            began_s = self.pool.clock.monotonic_s()
            try:
                await step.do(run)
            except Refused:
                raise
            except Exception:
                if not (step.point_of_no_return or entry.has_passed_return()):
                    raise
                await step.do(run)  # nobody knows whether it happened; asked once more it is sure to have, or to fail
            log.info("%s: %s took %.3f s", entry.operation, step.name, self.pool.clock.monotonic_s() - began_s)
            last = entry.position + 1 == len(entry.acts)
            with self.pool.db.transaction(entry.id) as tx:
                step.commit(run, tx)
                if last:
                    notices.tell(self.pool, tx, entry)
                    self._end(tx, entry)
                else:
                    self.journal.write(tx, entry, position=entry.position + 1)
            entry.position += 1
            if task is not None and task.ref:
                run.progress(1.0)
        self._forget(entry)

    async def _back(self, entry: Entry, memory: Memory) -> None:
        entry.undoing = True
        entry.position = min(entry.position, len(entry.acts) - 1)
        while entry.position >= 0:
            step = STEPS[entry.acts[entry.position].step]
            run = self._look(entry, memory, None)
            await step.undo(run)
            with self.pool.db.transaction(entry.id) as tx:
                step.revert(run, tx)
                if entry.position == 0:
                    self._end(tx, entry)
                else:
                    self.journal.write(tx, entry, position=entry.position - 1, undoing=True)
            entry.position -= 1
        self._forget(entry)

    def _look(self, entry: Entry, memory: Memory, task: "Task | None") -> Run:
        weights = [STEPS[act.step].weight for act in entry.acts]
        before, whole = sum(weights[: entry.position]), sum(weights)
        low, high = memory.get("share_of_task", (0.0, 1.0))  # of an operation that is one of several
        begins, ends = (part / whole for part in (before, before + weights[entry.position]))
        share = (low + (high - low) * begins, low + (high - low) * ends)
        args = entry.acts[entry.position].args
        return Run(self.pool, entry.id, args, entry.notes, memory, task, share)

    # -- work that changes nothing outside, and so needs no journal

    @contextmanager
    def holding(self, *locks: Lock) -> Iterator[None]:
        """OTHER_OPERATION_IN_PROGRESS if somebody else holds one of them."""
        holder = f"OpaqueRef:{uuid.uuid4()}"
        self.locks.take(holder, list(locks))
        try:
            yield
        finally:
            self.locks.release(holder, list(locks))

    def assert_idle(self, but: str = "") -> None:
        """OTHER_OPERATION_IN_PROGRESS if anything else is under way or holds something, stalled or not."""
        for entry in self._under_way.values():
            if entry.id != but:
                raise Held(entry.locks[0] if entry.locks else Lock("", "", entry.operation), entry.id)
        self.locks.assert_none(but)

    @contextmanager
    def volumes_in_motion(self) -> Iterator[set[str]]:
        """VDI uuids of volumes that operations make, change or take away: of those under way, and, until the end of the
        block, of each that begins, if it has ended by then as well."""
        moving: set[str] = set().union(*map(_volumes_of, self._under_way.values()))
        self._motions.append(moving)
        try:
            yield moving
        finally:
            self._motions = [other for other in self._motions if other is not moving]

    def arrivals(self) -> dict[str, str]:
        """VM -> host, of migrations that are not finished: there it stands, and its old host has it no longer."""
        return {
            act.args["vm"]: act.args["host"]
            for entry in self._under_way.values()
            if not entry.undoing
            for act in entry.acts[: entry.position]
            if act.step == "domain-send"
        }

    # -- after a crash, and after a failure that could not be undone

    async def recover(self) -> None:
        """Finishes or undoes everything in the journal; what resists stalls."""
        self._clear_shown()
        for entry in self.journal.entries():
            self.locks.take(entry.id, entry.locks)
            self._under_way[entry.id] = entry
            with self.pool.db.transaction() as tx:
                self._show(tx, entry)
            log.warning("%s was interrupted at step %d of %d", entry.operation, entry.position + 1, len(entry.acts))
            await self._resume(entry)

    async def retry_stalled(self) -> None:
        """Side by side: somebody who is silent is waited for once."""
        await asyncio.gather(*(self._retry(entry) for entry in list(self._stalled.values())))

    @property
    def stalled(self) -> list[str]:
        """The operations that could be neither finished nor undone so far."""
        return [entry.operation for entry in self._stalled.values()]

    def under_way_on(self, operation: str, class_name: str, ref: str) -> Entry | None:
        """Stalled or not."""
        found = (one for one in self._under_way.values() if one.operation == operation and one.holds(class_name, ref))
        return next(found, None)

    async def _retry(self, entry: Entry) -> bool:
        if self._stalled.pop(entry.id, None) is None:
            return False  # somebody else is at it
        over = self._retries[entry.id] = asyncio.Event()
        try:
            ended = await self._resume(entry)
            if ended:
                log.warning("%s is %s now", entry.operation, "undone" if entry.undoing else "finished")
            return ended
        finally:
            del self._retries[entry.id]
            over.set()

    async def end_without(self, hosts: frozenset[str], vm: str | None = None) -> None:
        """Finishes or undoes what waits for these hosts (of ``vm``, if it is given), as if nothing ran on them: else an
        operation that waits for a dead host would keep the administrator from saying that it is dead. Migrations have
        a way of their own (``Plan.supersedes``)."""
        for entry in list(self._under_way.values()):
            if entry.waits_for(hosts) and (vm is None or entry.holds("VM", vm)):
                job, retry = self._jobs.get(entry.id), self._retries.get(entry.id)
                if job is not None:
                    await asyncio.wait([job])  # soon: whatever is asked of a silent host ends
                elif retry is not None:
                    await retry.wait()
                with counted_as_dead(hosts):
                    await self._retry(entry)

    async def _resume(self, entry: Entry) -> bool:
        try:
            if entry.undoing or not entry.may_have_passed_return():
                await self._back(entry, {})
            else:
                await self._finish_or_back(entry)
        except Exception as error:
            self._stall(entry, error)
            return False
        return True

    async def _finish_or_back(self, entry: Entry) -> None:
        """Finishes; but a point of no return that is refused now, by somebody who is there to refuse it, was not passed
        then either (its steps may be repeated, so what had happened would succeed)."""
        try:
            await self._forward(entry, {}, None)
        except Exception as error:
            if entry.has_passed_return() or not isinstance(error, XenApiError) or _nobody_answered(error):
                raise
            log.warning("%s cannot be finished, and is undone: %s", entry.operation, error)
            entry.cause = _description(error)
            await self._back(entry, {})

    def _stall(self, entry: Entry, error: Exception) -> None:
        doing = "undone" if entry.undoing else "finished"
        log.error("%s cannot be %s now (step %d): %s", entry.operation, doing, entry.position + 1, error)
        self._stalled[entry.id] = entry

    async def stop(self) -> None:
        """Lets go of what runs, as a crash would: the journal holds it."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    # -- what others see

    def _end(self, tx: Transaction, entry: Entry) -> None:
        self.journal.end(tx, entry)
        for lock in entry.locks:
            if lock.operation and tx.exists(lock.class_name, lock.ref):
                shown = tx.get(lock.class_name, lock.ref)["current_operations"]
                left = {key: value for key, value in shown.items() if key != entry.id}
                tx.set(lock.class_name, lock.ref, current_operations=left)

    def take_changed_srs(self) -> set[str]:
        """The SRs whose volumes operations have touched since this was last asked: their sizes are to be asked anew."""
        changed, self._changed_srs = self._changed_srs, set()
        return changed

    def _forget(self, entry: Entry) -> None:
        self._changed_srs |= {act.args["sr"] for act in entry.acts if act.step.startswith("volume-")}
        self._under_way.pop(entry.id, None)
        self._cut_short.pop(entry.id, None)
        self.locks.release(entry.id, entry.locks)

    def _show(self, tx: Transaction, entry: Entry) -> None:
        for lock in entry.locks:
            if lock.operation and tx.exists(lock.class_name, lock.ref):
                shown = tx.get(lock.class_name, lock.ref)["current_operations"]
                tx.set(lock.class_name, lock.ref, current_operations={**shown, entry.id: lock.operation})

    def _clear_shown(self) -> None:
        with self.pool.db.transaction() as tx:
            for class_name, table in self.pool.db.tables.items():
                for ref, record in table.items():
                    if record.get("current_operations") and class_name != "task":
                        tx.set(class_name, ref, current_operations={})


def _volumes_of(entry: Entry) -> set[str]:
    """VDI uuids."""
    uuids: set[str] = set()
    for act in entry.acts:
        uuids |= {act.args.get("vdi_uuid", ""), act.args.get("spec", {}).get("vdi_uuid", "")}
        uuids |= {one["spec"]["vdi_uuid"] for one in act.args.get("snapshots", [])}
    return uuids - {""}


def _nobody_answered(error: Exception) -> bool:
    return getattr(error, "nobody_answered", False)


def _description(error: Exception) -> list[str]:
    return [error.code, *error.params] if isinstance(error, XenApiError) else [type(error).__name__]
