"""XenAPI class VMSS: schedules of snapshots, and the VMs that are in one."""

from typing import Any

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.classes.context import given, set_fields
from gespann.pool.plan import snapshot_schedules
from gespann.pool.reconcile.snapshot_schedules import run_schedule
from gespann.seams.xenapi.errors import XenApiError

_GIVEN = frozenset({"name_label", "name_description", "enabled", "type", "retained_snapshots", "frequency", "schedule"})


@implements("VMSS.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    fields = {name: value for name, value in args.items() if name in _GIVEN}
    snapshot_schedules.assert_schedule(fields["frequency"], fields.get("schedule", {}))
    snapshot_schedules.assert_retained(fields.get("retained_snapshots", 7))
    with call.pool.db.transaction() as tx:
        return tx.create("VMSS", fields)


@implements("VMSS.destroy")
async def destroy(call: Call, vmss: str) -> None:
    if call.pool.db.get("VMSS", vmss)["VMs"]:
        raise XenApiError("VMSS_HAS_VM", [])
    with call.pool.db.transaction() as tx:
        tx.destroy("VMSS", vmss)


@implements("VMSS.snapshot_now")
async def snapshot_now(call: Call, vmss: str) -> str:
    """What became of it, as a sentence; messages say more."""
    return await run_schedule(call.pool, vmss)


@on_set("VMSS.schedule")
async def set_schedule(call: Call, vmss: str, value: dict[str, str]) -> None:
    snapshot_schedules.assert_schedule(call.pool.db.get("VMSS", vmss)["frequency"], value)
    set_fields(call, "VMSS", vmss, schedule=value)


@on_set("VMSS.frequency")
async def set_frequency(call: Call, vmss: str, value: str) -> None:
    """What the schedule says and does not mean anything any more is left out of it."""
    schedule = snapshot_schedules.kept_keys(value, call.pool.db.get("VMSS", vmss)["schedule"])
    set_fields(call, "VMSS", vmss, frequency=value, schedule=schedule)


@on_set("VMSS.retained_snapshots")
async def set_retained_snapshots(call: Call, vmss: str, value: int) -> None:
    """Takes effect at the next run."""
    snapshot_schedules.assert_retained(value)
    set_fields(call, "VMSS", vmss, retained_snapshots=value)


@on_set("VM.snapshot_schedule")
async def set_snapshot_schedule(call: Call, vm: str, value: str) -> None:
    record = call.pool.db.get("VM", vm)
    if given(value) and (record["is_a_template"] or record["is_control_domain"]):
        raise XenApiError("VM_IS_TEMPLATE" if record["is_a_template"] else "OPERATION_NOT_ALLOWED", [vm])
    set_fields(call, "VM", vm, snapshot_schedule=value)
