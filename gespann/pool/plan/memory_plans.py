"""Plans for the memory of a VM that runs: its balloon's target."""

from gespann.pool.model.database import Database
from gespann.pool.plan.legal_moves import assert_vm
from gespann.pool.plan.placement import free_memory_bytes
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import peek
from gespann.pool.plan.suspend_plans import running_start
from gespann.pool.plan.vm_limits import MEMORY_FIELDS, assert_memory, overhead_bytes, reserved_bytes
from gespann.seams.xenapi.errors import XenApiError

KIB = 1024


@operation("VM.set_memory_dynamic_range")
def plan_dynamic_range(db: Database, vm: str, low: int, high: int, name: str = "changing_dynamic_range") -> Plan:
    """The guest is to have as much as it may. What it has to be given is its host's to give: promised to it before it
    is told, so that nobody else is given the same. HOST_NOT_ENOUGH_FREE_MEMORY."""
    assert_vm(db, vm, name)
    record, start = db.get("VM", vm), running_start(db, vm)
    limits = {field: record[field] for field in MEMORY_FIELDS} | {"memory_dynamic_min": low, "memory_dynamic_max": high}
    assert_memory(*(limits[field] for field in MEMORY_FIELDS))
    more = high + overhead_bytes(record) - reserved_bytes(record, peek(db, "VM_metrics", record["metrics"]))
    free = free_memory_bytes(db, start.host)
    if more > max(free, 0):
        raise XenApiError("HOST_NOT_ENOUGH_FREE_MEMORY", [str(more), str(max(free, 0))])
    before = {field: record[field] for field in ("memory_dynamic_min", "memory_dynamic_max")}
    args = {"host": start.host, "vm": vm, "vm_uuid": record["uuid"], "target": high // KIB * KIB, "before": before}
    return Plan(
        "VM.set_memory_dynamic_range",
        (Act("memory-target", args),),
        (Lock("VM", vm, name),),
        prepare=lambda tx: tx.set("VM", vm, memory_dynamic_min=low, memory_dynamic_max=high),
    )
