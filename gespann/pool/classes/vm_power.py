"""XenAPI class VM: power states and where it runs."""

from typing import Any

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.api.tasks import Task
from gespann.pool.classes.context import capabilities_of, fresh_names, set_fields, work_of
from gespann.pool.plan import legal_moves, migrate_plans, migrate_waits, placement, power_plans, suspend_plans
from gespann.pool.plan.cpu_tuning import assert_params
from gespann.pool.plan.shapes import Plan
from gespann.pool.pool import Pool
from gespann.pool.steps.host_door import silent_hosts
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


@implements("VM.start")
async def start(call: Call, vm: str, start_paused: bool, force: bool) -> None:
    await _start(call, vm, NULL_REF, paused=start_paused)


@implements("VM.start_on")
async def start_on(call: Call, vm: str, host: str, start_paused: bool, force: bool) -> None:
    await _start(call, vm, host, paused=start_paused)


async def _start(call: Call, vm: str, host: str, *, paused: bool) -> None:
    """``force`` of the XenAPI overrides advice that this pool does not give; what storage says is never overridden."""
    pool = call.pool

    def plan() -> Plan:
        return power_plans.plan_start(pool.db, vm, fresh_names(pool, vm), host=host, paused=paused)

    await work_of(pool).run(plan, task=call.task)


@implements("VM.pool_migrate")
async def pool_migrate(call: Call, vm: str, host: str, options: dict[str, str]) -> None:
    """Always live. To where it runs already: nothing to do. ``options`` (force, live, copy, compress) ask for nothing
    that this pool does in another way."""
    pool = call.pool
    legal_moves.assert_vm(pool.db, vm, "pool_migrate")
    if pool.db.get("VM", vm)["resident_on"] != host:
        await migrate(pool, vm, host, call.task)


async def migrate(
    pool: Pool, vm: str, host: str, task: Task | None, share_of_task: tuple[float, float] = (0.0, 1.0)
) -> None:
    """VM_MIGRATE_FAILED too if it has moved, and could not go on there; or waits, for somebody who does not answer."""
    memory: dict[str, Any] = {"share_of_task": share_of_task}
    source = pool.db.get("VM", vm)["resident_on"]
    names = [pool.db.get("host", one)["name_label"] for one in (source, host)]

    def plan() -> Plan:
        return migrate_plans.plan_migrate(pool.db, vm, host, fresh_names(pool, vm))

    try:
        await work_of(pool).run(plan, task=task, memory=memory)
    except XenApiError as error:
        if not getattr(error, "nobody_answered", False):
            raise
        raise XenApiError("VM_MIGRATE_FAILED", [vm, *names, _silence(pool, vm, error, names)]) from error
    if "failed" in memory:
        raise XenApiError("VM_MIGRATE_FAILED", [vm, *names, memory["failed"]])


def _silence(pool: Pool, vm: str, error: XenApiError, names: list[str]) -> str:
    silent, who = "", f"its storage does not answer ({error.params[-1] if error.params else error.code})"
    if error.code == "HOST_OFFLINE":
        silent = pool.db.get("host", error.params[0])["name_label"]
        who = f"host {silent} does not answer"
    entry = work_of(pool).under_way_on("VM.pool_migrate", "VM", vm)
    if entry is None:
        resident = pool.db.get("host", pool.db.get("VM", vm)["resident_on"])
        return f"{who}: the machine runs on at {resident['name_label']}, and nothing is left to be done"
    rest, ends = entry.acts[entry.position :], {"silent": silent, "source": names[0], "destination": names[1]}
    return f"{who}: {migrate_waits.where_it_is(rest, undoing=entry.undoing, **ends)}"


@implements("VM.hard_shutdown")
async def hard_shutdown(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_hard_shutdown(call.pool.db, vm), task=call.task)


@implements("VM.clean_shutdown")
async def clean_shutdown(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_clean_shutdown(call.pool.db, vm), task=call.task)


@implements("VM.shutdown")
async def shutdown(call: Call, vm: str) -> None:
    """Cleanly if the guest can, else hard."""
    try:
        await clean_shutdown(call, vm)
    except XenApiError as error:
        if error.code not in ("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", "VM_BAD_POWER_STATE"):
            raise
        await hard_shutdown(call, vm)


@implements("VM.clean_reboot")
async def clean_reboot(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_clean_reboot(call.pool.db, vm), task=call.task)


@implements("VM.hard_reboot")
async def hard_reboot(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_hard_reboot(call.pool.db, vm), task=call.task)


@implements("VM.pause")
async def pause(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_pause(call.pool.db, vm), task=call.task)


@implements("VM.unpause")
async def unpause(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_unpause(call.pool.db, vm), task=call.task)


@implements("VM.suspend")
async def suspend(call: Call, vm: str) -> None:
    pool = call.pool
    await work_of(pool).run(
        lambda: suspend_plans.plan_suspend(pool.db, vm, capabilities_of(pool), pool.iscsi_prefix), task=call.task
    )


@implements("VM.resume")
async def resume(call: Call, vm: str, start_paused: bool, force: bool) -> None:
    await _resume(call, vm, NULL_REF, paused=start_paused)


@implements("VM.resume_on")
async def resume_on(call: Call, vm: str, host: str, start_paused: bool, force: bool) -> None:
    await _resume(call, vm, host, paused=start_paused)


async def _resume(call: Call, vm: str, host: str, *, paused: bool) -> None:
    """``force`` as in ``_start``."""
    pool = call.pool

    def plan() -> Plan:
        names = fresh_names(pool, vm)
        return suspend_plans.plan_resume(pool.db, vm, names, pool.iscsi_prefix, host=host, paused=paused)

    await work_of(pool).run(plan, task=call.task)


@implements("VM.set_VCPUs_number_live")
async def set_vcpus_number_live(call: Call, vm: str, nvcpu: int) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_vcpus(call.pool.db, vm, nvcpu), task=call.task)


@implements("VM.add_to_VCPUs_params_live")
async def add_to_vcpus_params_live(call: Call, vm: str, key: str, value: str) -> None:
    await work_of(call.pool).run(lambda: power_plans.plan_tune(call.pool.db, vm, key, value), task=call.task)


@on_set("VM.VCPUs_params")
async def set_vcpus_params(call: Call, vm: str, value: dict[str, str]) -> None:
    """Of a machine that runs it holds from its next start on."""
    before = call.pool.db.get("VM", vm)["VCPUs_params"]
    assert_params({key: text for key, text in value.items() if before.get(key) != text})
    set_fields(call, "VM", vm, VCPUs_params=value)


@implements("VM.power_state_reset")
async def power_state_reset(call: Call, vm: str) -> None:
    work, db = work_of(call.pool), call.pool.db
    await work.end_without(silent_hosts(db), vm)
    await work.run(lambda: power_plans.plan_power_state_reset(db, vm), task=call.task)


@implements("VM.assert_operation_valid")
async def assert_operation_valid(call: Call, vm: str, op: str) -> None:
    legal_moves.assert_vm(call.pool.db, vm, op)


@implements("VM.update_allowed_operations")
async def update_allowed_operations(call: Call, vm: str) -> None:
    with call.pool.db.transaction() as tx:
        tx.set("VM", vm)  # they are derived at the end of every transaction


@implements("VM.get_possible_hosts")
async def get_possible_hosts(call: Call, vm: str) -> list[str]:
    return placement.possible_hosts(call.pool.db, vm)


@implements("VM.assert_can_boot_here")
async def assert_can_boot_here(call: Call, vm: str, host: str) -> None:
    why = placement.obstacle(call.pool.db, vm, host)
    if why is not None:
        raise why


@implements("VM.assert_agile")
async def assert_agile(call: Call, vm: str) -> None:
    """All its disks are on storage that every host can reach."""
    db = call.pool.db
    for vbd in db.get("VM", vm)["VBDs"]:
        vdi = db.find("VDI", db.get("VBD", vbd)["VDI"])
        if vdi is not None and not db.get("SR", vdi["SR"])["shared"]:
            raise XenApiError("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", [vdi["SR"]])
