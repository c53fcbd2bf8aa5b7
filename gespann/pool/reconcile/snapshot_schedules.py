"""Runs the snapshot schedules that are due: a snapshot of each VM, a message, and the oldest ones go."""

import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from gespann.pool.api.classes.message import post
from gespann.pool.classes.context import capabilities_of, work_of
from gespann.pool.classes.snapshot import take, take_checkpoint
from gespann.pool.plan import disk_plans, machine_plans
from gespann.pool.plan.legal_moves import HALTED, RUNNING
from gespann.pool.plan.snapshot_schedules import LATE, latest_due, surplus
from gespann.pool.plan.storage_view import disks_of
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
#: as published for the three alerts
SUCCEEDED, FAILED, MISSED = 5, 3, 3
_WIRE = "%Y%m%dT%H:%M:%SZ"


class SnapshotSchedules:
    """``round`` is called from time to time. What was due before the first look at a schedule that never ran is not."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self._considered: dict[str, datetime] = {}  # VMSS -> the due time that was dealt with

    async def round(self) -> None:
        now = self.pool.clock.now()
        for vmss, record in list(self.pool.db.all("VMSS").items()):
            last_run = datetime.strptime(record["last_run_time"], _WIRE).replace(tzinfo=UTC)
            never = last_run.timestamp() == 0
            before = self._considered.get(vmss, now if never else last_run)
            self._considered[vmss] = max(before, now if not record["enabled"] else before)
            due = latest_due(record["frequency"], record["schedule"], now)
            if not record["enabled"] or due <= before:
                continue
            self._considered[vmss] = now
            if now - due > LATE:
                text = f"The snapshots of {due:%Y-%m-%d %H:%M} UTC were not made: the coordinator did not run then"
                post(self.pool.db, self.pool.clock, "VMSS_SNAPSHOT_MISSED_EVENT", MISSED, "VMSS", record["uuid"], text)
            else:
                await run_schedule(self.pool, vmss)


async def run_schedule(pool: "Pool", vmss: str) -> str:
    """Each of its VMs in turn; one that fails does not keep the others from theirs."""
    record = pool.db.get("VMSS", vmss)
    with pool.db.transaction() as tx:
        tx.set("VMSS", vmss, last_run_time=wire_time(pool.clock.now()))
    failures: list[str] = []
    for vm in list(record["VMs"]):
        if pool.db.find("VM", vm) is not None:
            failures += await _one(pool, record, vm)
    made = len(record["VMs"]) - len(failures)
    text = f"{made} of {len(record['VMs'])} snapshots were made"
    name, priority = ("VMSS_SNAPSHOT_FAILED", FAILED) if failures else ("VMSS_SNAPSHOT_SUCCEEDED", SUCCEEDED)
    post(pool.db, pool.clock, name, priority, "VMSS", record["uuid"], "; ".join([text, *failures]))
    return text


async def _one(pool: "Pool", schedule: Any, vm: str) -> list[str]:
    """What went wrong. A machine that does not run is quiet by itself, and one that is halted has no memory."""
    source = pool.db.get("VM", vm)
    quiet = schedule["type"] == "snapshot_with_quiesce" and source["power_state"] == RUNNING
    scheduled = {"is_vmss_snapshot": True}
    name = f"[{schedule['name_label']}] [{source['name_label']}] [{pool.clock.now():%Y-%m-%d %H:%M}]"
    try:
        if schedule["type"] == "checkpoint" and source["power_state"] != HALTED:
            await take_checkpoint(pool, vm, name, fields=scheduled)
        else:
            await take(pool, vm, name, quiet=quiet, fields=scheduled)
        snapshots = [(ref, pool.db.get("VM", ref)) for ref in pool.db.get("VM", vm)["snapshots"]]
        for old in surplus(snapshots, schedule["retained_snapshots"]):
            await _uninstall(pool, old)
    except XenApiError as error:
        log.warning("schedule %s, VM %s: %s", schedule["uuid"], source["uuid"], error)
        return [f"{source['name_label']}: {error}"]
    return []


async def _uninstall(pool: "Pool", snapshot: str) -> None:
    """The snapshot's record goes last: if this is cut short it is found again by the next run."""
    can = capabilities_of(pool)
    for vdi in [vbd["VDI"] for _, vbd in disks_of(pool.db, snapshot) if vbd["type"] == "Disk"]:
        record = pool.db.find("VDI", vdi)
        if record is not None and record["is_a_snapshot"]:
            await work_of(pool).run(partial(disk_plans.plan_destroy, pool.db, vdi, can))
    await work_of(pool).run(lambda: machine_plans.plan_destroy(pool.db, snapshot))
