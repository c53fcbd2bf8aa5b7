"""Compares what runs on a host with what the records say, and makes them agree.

The world is looked at first and judged afterwards, and much may happen in between. So a VM is only touched if no
operation held it before the look, none holds it now, and it is still in the same start.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gespann.pool.api.classes.message import post
from gespann.pool.classes.context import fresh_names
from gespann.pool.plan.device_numbers import disk_number
from gespann.pool.plan.device_plans import plan_unplug
from gespann.pool.plan.power_plans import plan_start, plan_stopped
from gespann.pool.reconcile.adoption import adopt
from gespann.pool.reconcile.guest_ends import (
    CRASHED,
    CRASHED_PRIORITY,
    PANIC,
    QEMU_ENDED,
    action_after,
    may_start_again,
    words_of_crash,
)
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.openings import Start, all_openings, all_starts, openings_of_vm, start_of
from gespann.pool.steps.runner import Work
from gespann.pool.steps.vm_records import POWER_STATES, show_guest, show_running
from gespann.pool.succession.terms import hosts_to_adopt
from gespann.seams.host_agent import Domain, DomainDestroy, DomainList, GuestMetrics
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A VM before the look: its start, None for one that is not meant to run, and what it had open."""

    start: Start | None
    openings: frozenset[str] = frozenset()


def _before(pool: "Pool", work: Work) -> dict[str, Seen]:
    starts = all_starts(pool.db)
    openings: dict[str, set[str]] = {}
    for opening in all_openings(pool.db):
        openings.setdefault(opening.vm, set()).add(opening.opening_id)
    return {
        vm: Seen(starts.get(vm), frozenset(openings.get(vm, ())))
        for vm, record in pool.db.all("VM").items()
        if not record["is_control_domain"] and not work.locks.is_held("VM", vm)
    }


async def look_at_host(pool: "Pool", host: str, reasons: dict[str, str] | None = None) -> list[str]:
    """``reasons``: VM uuid -> why its domain stopped, as an event said. Gives the VMs that could not be judged because
    an operation holds them. XenApiError if the host does not answer."""
    work: Work = pool.services["work"]
    if host in hosts_to_adopt(pool.db):
        await adopt(pool, host)
    before = _before(pool, work)
    reply = await ask(pool, host, DomainList())
    domains: dict[str, Domain] = {domain.uuid: domain for domain in reply.domains if domain.state != "stopped"}
    later, starts = [], all_starts(pool.db)
    for vm, record in list(pool.db.all("VM").items()):
        domain = domains.pop(record["uuid"], None)
        if vm not in before or work.locks.is_held("VM", vm):
            if domain is not None or host in (record["resident_on"], record["scheduled_to_be_resident_on"]):
                later.append(vm)
            continue
        if domain is None and before[vm].start is None and vm not in starts:
            continue  # neither meant to run nor running
        if domain is None and hosts_to_adopt(pool.db):
            continue  # it may run on a host that has not been looked at since this database came from a copy
        if before[vm].start != start_of(pool.db, vm):
            continue
        try:
            await _judge(pool, host, vm, before[vm], domain, (reasons or {}).get(record["uuid"], ""))
        except XenApiError as error:
            log.warning("VM %s: %s", record["uuid"], error)
    for uuid in domains:
        log.warning("domain %s on this host belongs to no VM of the pool: left alone", uuid)
    return later


async def _judge(pool: "Pool", host: str, vm: str, seen: Seen, domain: Domain | None, reason: str) -> None:
    start = seen.start
    if start is None or start.host != host:
        if domain is not None:
            log.warning("a domain of VM %s runs that nobody started: stopped", domain.uuid)
            await ask(pool, host, DomainDestroy(uuid=domain.uuid, start_id=domain.start_id))
        return
    if domain is not None and domain.start_id == start.start_id:
        if domain.state == "paused" and domain.reason in CRASHED:
            await _gave_up(pool, host, vm, start, domain)
            return
        _show(pool, host, vm, domain)
        if "held_up" in pool.services:
            pool.services["held_up"].seen(vm, start, domain)
        await _close_lost_disks(pool, vm, seen, domain)
        return
    record = pool.db.get("VM", vm)
    log.info("VM %s has stopped by itself (%s)", record["uuid"], reason or "nobody saw why")
    await _end(pool, vm, record, reason, QEMU_ENDED)


async def _end(pool: "Pool", vm: str, record: Any, reason: str, text: str) -> None:
    """Takes away what is left of it, and starts it again if that is wanted."""
    again = action_after(record, reason) == "restart" and may_start_again(pool, record, reason)
    await pool.services["work"].run(lambda: plan_stopped(pool.db, vm))
    if reason in CRASHED:
        _alert(pool, record, text)
    if again:
        await pool.services["work"].run(lambda: plan_start(pool.db, vm, fresh_names(pool, vm)))


async def _gave_up(pool: "Pool", host: str, vm: str, start: Start, domain: Domain) -> None:
    """The guest has said so; its machine stands still until somebody decides."""
    record = pool.db.get("VM", vm)
    if action_after(record, "crashed") != "preserve":
        await _end(pool, vm, record, "crashed", PANIC)
        return
    _show(pool, host, vm, domain)
    if pool.services["guest_ends"].is_new(vm, start):
        _alert(pool, record, f"{PANIC}; its machine is kept as it is, paused")


def _alert(pool: "Pool", record: Any, text: str) -> None:
    body = words_of_crash(record, text)
    post(pool.db, pool.clock, "VM_CRASHED", CRASHED_PRIORITY, "VM", record["uuid"], body)


def _show(pool: "Pool", host: str, vm: str, domain: Domain) -> None:
    record = pool.db.get("VM", vm)
    known = pool.db.find("VM_metrics", record["metrics"]) is not None and record["consoles"]
    if not known or record["resident_on"] != host:
        with pool.db.transaction() as tx:
            show_running(tx, vm, host, domain, pool.clock.now(), pool.tls_port)
    elif record["power_state"] != POWER_STATES[domain.state]:
        with pool.db.transaction() as tx:
            tx.set("VM", vm, power_state=POWER_STATES[domain.state])
    metrics = pool.db.find("VM_metrics", record["metrics"])
    if metrics is not None and metrics["memory_actual"] != domain.memory_bytes:
        with pool.db.transaction() as tx:
            tx.set("VM_metrics", record["metrics"], memory_actual=domain.memory_bytes)


async def _close_lost_disks(pool: "Pool", vm: str, seen: Seen, domain: Domain) -> None:
    """A disk that the records call plugged and the domain does not have: its unplugging was interrupted."""
    for opening in openings_of_vm(pool.db, vm):
        vbd = pool.db.find("VBD", opening.vbd)
        if opening.opening_id not in seen.openings or vbd is None or not vbd["currently_attached"]:
            continue
        if disk_number(vbd["userdevice"]) not in domain.disks:
            log.warning("disk %s of VM %s is gone from the machine: closed", vbd["userdevice"], domain.uuid)
            await pool.services["work"].run(lambda ref=opening.vbd: plan_unplug(pool.db, ref, "unplug_force"))


async def refresh_guest(pool: "Pool", vm: str) -> None:
    """What the guest's agent says now."""
    start = start_of(pool.db, vm)
    record = pool.db.find("VM", vm)
    if start is None or record is None:
        return
    try:
        said = await ask(pool, start.host, GuestMetrics(uuid=record["uuid"]))
    except XenApiError as error:
        log.info("guest of VM %s cannot be asked: %s", record["uuid"], error)
        return
    if start_of(pool.db, vm) == start:
        with pool.db.transaction() as tx:
            show_guest(tx, vm, said, pool.clock.now())
