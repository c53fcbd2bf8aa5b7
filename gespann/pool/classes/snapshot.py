"""XenAPI classes VM and VDI: snapshots, and back to them."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import capabilities_of, work_of
from gespann.pool.plan import legal_moves, power_plans, snapshot_plans
from gespann.pool.plan.checkpoint_plans import plan_checkpoint
from gespann.pool.plan.shapes import Plan
from gespann.pool.plan.snapshot_plans import Together
from gespann.pool.pool import Pool
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.api.tasks import Task


def together_of(pool: Pool) -> Together:
    def together(sr_type: str) -> int:
        driver = pool.drivers.get(sr_type)
        return driver.info.snapshots_together if driver else 1

    return together


async def take(
    pool: Pool,
    vm: str,
    new_name: str,
    *,
    quiet: bool = False,
    ignored: list[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    task: "Task | None" = None,
) -> str:
    """The new snapshot of a VM. Also for schedules. ``fields``: more of its record."""
    can, together = capabilities_of(pool), together_of(pool)
    now = wire_time(pool.clock.now())

    def plan() -> Plan:
        if quiet:
            return snapshot_plans.plan_quiet_snapshot(pool.db, vm, new_name, can, together, now, fields=fields)
        return snapshot_plans.plan_snapshot(
            pool.db, vm, new_name, can, together, now, ignored=ignored or [], fields=fields
        )

    return str(await work_of(pool).run(plan, task=task))


@implements("VM.snapshot")
async def snapshot(call: Call, vm: str, new_name: str, ignore_vdis: list[str]) -> str:
    return await take(call.pool, vm, new_name, ignored=ignore_vdis, task=call.task)


@implements("VM.snapshot_with_quiesce")
async def snapshot_with_quiesce(call: Call, vm: str, new_name: str) -> str:
    return await take(call.pool, vm, new_name, quiet=True, task=call.task)


async def take_checkpoint(
    pool: Pool, vm: str, new_name: str, *, fields: Mapping[str, Any] | None = None, task: "Task | None" = None
) -> str:
    """As ``take``, with the memory."""
    can, together = capabilities_of(pool), together_of(pool)
    now = wire_time(pool.clock.now())

    def plan() -> Plan:
        return plan_checkpoint(pool.db, vm, new_name, can, together, now, pool.iscsi_prefix, fields=fields)

    return str(await work_of(pool).run(plan, task=task))


@implements("VM.checkpoint")
async def checkpoint(call: Call, vm: str, new_name: str) -> str:
    return await take_checkpoint(call.pool, vm, new_name, task=call.task)


@implements("VM.revert")
async def revert(call: Call, snapshot: str) -> None:
    """A VM that is not halted is powered off first, as the original does."""
    pool = call.pool
    legal_moves.assert_vm(pool.db, snapshot, "revert")
    vm = pool.db.get("VM", snapshot)["snapshot_of"]
    record = pool.db.find("VM", vm)
    if record is None:
        raise XenApiError("VM_REVERT_FAILED", [vm, snapshot])
    if record["power_state"] != legal_moves.HALTED:
        await work_of(pool).run(lambda: power_plans.plan_hard_shutdown(pool.db, vm), task=call.task)
    can = capabilities_of(pool)
    await work_of(pool).run(lambda: snapshot_plans.plan_revert(pool.db, snapshot, can), task=call.task)


@implements("VDI.revert")
async def vdi_revert(call: Call, snapshot: str) -> None:
    pool = call.pool
    plan = partial(snapshot_plans.plan_vdi_revert, pool.db, snapshot, capabilities_of(pool))
    await work_of(pool).run(plan, task=call.task)


@implements("VDI.snapshot")
async def vdi_snapshot(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    pool, now = call.pool, wire_time(call.pool.clock.now())
    return str(
        await work_of(pool).run(
            lambda: snapshot_plans.plan_vdi_snapshot(pool.db, vdi, capabilities_of(pool), now), task=call.task
        )
    )
