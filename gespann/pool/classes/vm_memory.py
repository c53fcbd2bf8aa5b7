"""XenAPI class VM: how much memory it has, before it starts and while it runs."""

from functools import partial

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import set_fields, work_of
from gespann.pool.model.database import Database
from gespann.pool.plan import legal_moves, vm_limits
from gespann.pool.plan.memory_plans import plan_dynamic_range
from gespann.seams.xenapi.errors import XenApiError

WAIT_S = 60.0
LOOK_AGAIN_S = 0.5
#: a guest that is so near its target has reached it: a balloon moves whole pages, and firmware keeps some
NEAR_BYTES = 4 * vm_limits.MIB


def _set_memory(call: Call, vm: str, operation: str, **changed: int) -> None:
    legal_moves.assert_vm(call.pool.db, vm, operation)
    record = call.pool.db.get("VM", vm)
    fields: dict[str, int] = {name: record[name] for name in vm_limits.MEMORY_FIELDS} | changed
    vm_limits.assert_memory(*fields.values())
    set_fields(call, "VM", vm, **fields)


@implements("VM.set_memory_limits")
async def set_memory_limits(
    call: Call, vm: str, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    _set_memory(
        call,
        vm,
        "changing_memory_limits",
        memory_static_min=static_min,
        memory_static_max=static_max,
        memory_dynamic_min=dynamic_min,
        memory_dynamic_max=dynamic_max,
    )


@implements("VM.set_memory")
async def set_memory(call: Call, vm: str, value: int) -> None:
    """All limits at once, so that the machine has exactly this much."""
    low = min(call.pool.db.get("VM", vm)["memory_static_min"], value)
    await set_memory_limits(call, vm, low, value, value, value)


@implements("VM.set_memory_static_range")
async def set_memory_static_range(call: Call, vm: str, low: int, high: int) -> None:
    _set_memory(call, vm, "changing_static_range", memory_static_min=low, memory_static_max=high)


@implements("VM.set_memory_static_max")
async def set_memory_static_max(call: Call, vm: str, value: int) -> None:
    _set_memory(call, vm, "changing_static_range", memory_static_max=value)


@implements("VM.set_memory_static_min")
async def set_memory_static_min(call: Call, vm: str, value: int) -> None:
    _set_memory(call, vm, "changing_static_range", memory_static_min=value)


@implements("VM.set_memory_dynamic_range")
async def set_memory_dynamic_range(call: Call, vm: str, low: int, high: int) -> None:
    """Of a VM that runs: its guest gives memory back, or takes it, as far as it can."""
    pool = call.pool
    if pool.db.get("VM", vm)["power_state"] != legal_moves.RUNNING:
        _set_memory(call, vm, "changing_dynamic_range", memory_dynamic_min=low, memory_dynamic_max=high)
        return
    await work_of(pool).run(partial(plan_dynamic_range, pool.db, vm, low, high), task=call.task)


@implements("VM.set_memory_dynamic_max")
async def set_memory_dynamic_max(call: Call, vm: str, value: int) -> None:
    await set_memory_dynamic_range(call, vm, call.pool.db.get("VM", vm)["memory_dynamic_min"], value)


@implements("VM.set_memory_dynamic_min")
async def set_memory_dynamic_min(call: Call, vm: str, value: int) -> None:
    await set_memory_dynamic_range(call, vm, value, call.pool.db.get("VM", vm)["memory_dynamic_max"])


@implements("VM.set_memory_target_live")
async def set_memory_target_live(call: Call, vm: str, target: int) -> None:
    """Exactly so much, as far as its static range goes."""
    pool = call.pool
    await work_of(pool).run(
        partial(plan_dynamic_range, pool.db, vm, target, target, "changing_memory_live"), task=call.task
    )


@implements("VM.wait_memory_target_live")
async def wait_memory_target_live(call: Call, vm: str) -> None:
    """VM_MEMORY_TARGET_WAIT_TIMEOUT: the guest has not got there within a minute; it has no balloon, or needs the
    memory."""
    db, clock = call.pool.db, call.pool.clock
    legal_moves.assert_vm(db, vm, "awaiting_memory_live")
    until_s = clock.monotonic_s() + WAIT_S
    call.task.allow_cancel()
    while True:
        record = db.get("VM", vm)
        metrics = db.find("VM_metrics", record["metrics"])
        if metrics is not None and abs(metrics["memory_actual"] - record["memory_dynamic_max"]) <= NEAR_BYTES:
            return
        if record["power_state"] != legal_moves.RUNNING:
            raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", record["power_state"].lower()])
        if clock.monotonic_s() >= until_s:
            raise XenApiError("VM_MEMORY_TARGET_WAIT_TIMEOUT", [])
        call.task.check()
        await clock.sleep(LOOK_AGAIN_S)


@implements("VM.get_cooperative")
async def get_cooperative(call: Call, vm: str) -> bool:
    return is_cooperative(call.pool.db, vm)


def is_cooperative(db: Database, vm: str) -> bool:
    """Whether it has given back what it was asked for."""
    record = db.get("VM", vm)
    metrics = db.find("VM_metrics", record["metrics"])
    if record["power_state"] != legal_moves.RUNNING or metrics is None:
        return True
    return bool(metrics["memory_actual"] <= record["memory_dynamic_max"] + NEAR_BYTES)


@implements("VM.maximise_memory")
async def maximise_memory(call: Call, vm: str, total: int, approximate: bool) -> int:
    """The largest static_max for which the VM fits into ``total``."""
    return max(0, (total - vm_limits.overhead_bytes(call.pool.db.get("VM", vm))) // vm_limits.MIB * vm_limits.MIB)


@implements("VM.compute_memory_overhead")
async def compute_memory_overhead(call: Call, vm: str) -> int:
    return vm_limits.overhead_bytes(call.pool.db.get("VM", vm))
