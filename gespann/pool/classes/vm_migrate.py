"""XenAPI classes VM and host: migration with disks, within the pool."""

from collections.abc import Iterator
from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import capabilities_of, coordinator, fresh_names, given, work_of
from gespann.pool.classes.vm_power import migrate
from gespann.pool.plan.migrate_send import HOST_KEY, Wanted, wanted_of
from gespann.pool.plan.move_plans import plan_move, plan_move_disks, runs_with
from gespann.pool.plan.shapes import Plan
from gespann.pool.plan.storage_view import is_live
from gespann.seams.xenapi.errors import XenApiError

Map = dict[str, str]
Share = tuple[float, float]


@implements("host.migrate_receive")
async def migrate_receive(call: Call, host: str, network: str, options: Map) -> Map:
    """What VM.migrate_send wants to be told of where a VM goes. The session is the caller's own: nothing that it could
    not do itself is done in its name."""
    db = call.pool.db
    if not is_live(db, host):
        raise XenApiError("HOST_OFFLINE", [host])
    if not given(network):
        raise XenApiError("HANDLE_INVALID", ["network", network])
    leads, receives = (_address(db.get("host", one)["address"]) for one in (coordinator(call.pool), host))
    return {
        HOST_KEY: host,
        "master": f"https://{leads}/",
        "SM": f"https://{receives}/services/SM?session_id={call.session}",
        "xenops": f"https://{receives}/services/xenops?session_id={call.session}",
        "session_id": call.session,
    }


def _address(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _wanted(
    call: Call, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, options: Map, more: tuple[Map, ...]
) -> Wanted:
    """``more``: of what nothing may be asked, since no VM here has any."""
    if any(more):
        raise XenApiError("OPERATION_NOT_ALLOWED", ["There are no virtual GPUs and no other image formats here"])
    return wanted_of(call.pool.db, vm, dest, live, vdi_map, vif_map, options)


@implements("VM.assert_can_migrate")
async def assert_can_migrate(
    call: Call, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, options: Map, vgpu_map: Map
) -> None:
    """As far as it can be said without doing it."""
    wanted = _wanted(call, vm, dest, live, vdi_map, vif_map, options, (vgpu_map,))
    pool, capabilities = call.pool, capabilities_of(call.pool)
    running = {vdi: sr for vdi, sr in wanted.disks.items() if runs_with(pool.db, vdi) == vm}
    if running:
        plan_move_disks(pool.db, vm, running, capabilities, fresh_names(pool, vm))
    for vdi in wanted.disks.keys() - running.keys():
        plan_move(pool.db, vdi, wanted.disks[vdi], capabilities, pool.iscsi_prefix)


@implements("VM.assert_can_migrate_sender")
async def assert_can_migrate_sender(
    call: Call, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, vgpu_map: Map, options: Map
) -> None:
    await assert_can_migrate(call, vm, dest, live, vdi_map, vif_map, options, vgpu_map)


@implements("VM.migrate_send")
async def migrate_send(call: Call, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, *rest: Map) -> str:
    """First the disks, all of those that are plugged together, then those that are not, then the machine. What has
    moved stays where it is if what comes after it fails."""
    options, *more = rest
    wanted = _wanted(call, vm, dest, live, vdi_map, vif_map, options, tuple(more))
    running = {vdi: sr for vdi, sr in wanted.disks.items() if runs_with(call.pool.db, vdi) == vm}
    resting = sorted(wanted.disks.keys() - running.keys())
    shares = _shares(bool(running) + len(resting) + bool(wanted.host))
    if running:
        await _move_running(call, vm, running, next(shares))
    for vdi in resting:
        await _move_resting(call, vdi, wanted.disks[vdi], next(shares))
    if wanted.host and call.pool.db.get("VM", vm)["resident_on"] != wanted.host:
        await migrate(call.pool, vm, wanted.host, call.task, next(shares))
    return vm


def _shares(count: int) -> Iterator[Share]:
    """Of the task's progress, each operation has as much as the others."""
    return iter([(number / count, (number + 1) / count) for number in range(count)])


async def _move_running(call: Call, vm: str, wanted: Map, share: Share) -> None:
    """MIRROR_FAILED for one that could not be exchanged at the last moment; the others have moved then."""
    pool, capabilities = call.pool, capabilities_of(call.pool)
    memory: dict[str, Any] = {"share_of_task": share}

    def planner() -> Plan:
        return plan_move_disks(pool.db, vm, wanted, capabilities, fresh_names(pool, vm))

    await work_of(pool).run(planner, task=call.task, memory=memory)
    for vdi in memory.get("stay", ()):
        raise XenApiError("MIRROR_FAILED", [vdi])


async def _move_resting(call: Call, vdi: str, sr: str, share: Share) -> None:
    pool, capabilities = call.pool, capabilities_of(call.pool)

    def planner() -> Plan:
        return plan_move(pool.db, vdi, sr, capabilities, pool.iscsi_prefix)

    await work_of(pool).run(planner, task=call.task, memory={"share_of_task": share})
