"""The plan for a VM that moves to another host while it runs.

    openings beside the source's ► it is expected ► memory goes over ═► the right to write moves ► it goes on ► the
    (for reading)                                        (point of no return)            source's openings end

The machine arrives standing still, and could not write if it did not: the storage itself admits one writer, and who
that is changes in one step there before the machine is let go on. So at no time two may write, whatever answer is lost.
"""

from gespann.pool.model.database import Database
from gespann.pool.plan.domain_spec import Names, disk_shape, domain_shape, nic_shape, open_act
from gespann.pool.plan.legal_moves import assert_vm
from gespann.pool.plan.placement import obstacle
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import disks_of
from gespann.pool.steps.openings import openings_of_vm, start_of
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def migration_obstacle(db: Database, vm: str, host: str) -> XenApiError | None:
    """Why this VM, which runs, cannot move to that host now."""
    try:
        assert_vm(db, vm, "pool_migrate")
        for vif in db.get("VM", vm)["VIFs"]:
            nic_shape(db, vif)
    except XenApiError as error:
        return error
    return obstacle(db, vm, host)


def given_up(acts: list[Act]) -> list[Act]:
    """After a migration that can be neither finished nor undone: whatever it may have opened is closed, and then those
    of its two hosts that answer are told."""
    opened = [act.args for act in acts if act.step == "volume-open"]
    closings = [Act("volume-close", {key: args[key] for key in ("sr", "vdi_uuid", "opening_id")}) for args in opened]
    return closings + [Act("migration-forget", act.args) for act in acts if act.step == "domain-receive"]


@operation("VM.pool_migrate")
def plan_migrate(db: Database, vm: str, host: str, names: Names) -> Plan:
    why = migration_obstacle(db, vm, host)
    if why is not None:
        raise why
    start = start_of(db, vm)
    if start is None or start.host == host:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["The VM runs on that host already"])
    record = db.get("VM", vm)
    old = {opening.vbd: opening for opening in openings_of_vm(db, vm)}
    acts, disks, moves = [Act("vm-claim", {"vm": vm})], [], []
    for vbd, shown in disks_of(db, vm):
        if not shown["currently_attached"]:
            continue
        opening_id = ""
        if vbd in old:
            act, opening_id = open_act(db, names, vm, vbd)
            before = old[vbd]
            acts.append(Act(act.step, {**act.args, "beside": before.opening_id}))
            held = {"sr": before.sr, "vdi_uuid": before.vdi_uuid, "opening_id": before.opening_id}
            moves.append(Act("volume-hand-over", {**held, "to_opening_id": opening_id}))
        disks.append(disk_shape(db, vbd, opening_id))
    nics = [nic_shape(db, vif) for vif in sorted(record["VIFs"]) if db.get("VIF", vif)["currently_attached"]]
    for bridge, mtu in sorted({nic["bridge"]: nic["mtu"] for nic in nics}.items()):
        acts.insert(1, Act("bridge-ready", {"host": host, "bridge": bridge, "mtu": mtu}))
    spec = domain_shape(record, names, disks, nics, paused=True)
    ends = {"vm": vm, "vm_uuid": record["uuid"], "host": host, "from": start.host, "ticket": names.start_id}
    acts += [
        Act("domain-receive", {**ends, "spec": spec}),
        Act("domain-send", {**ends, "start_id": start.start_id, "spec": spec}),
        *moves,
        Act("domain-go-on", {**ends, "new_start_id": names.start_id}),
        *(Act("volume-close", {"sr": o.sr, "vdi_uuid": o.vdi_uuid, "opening_id": o.opening_id}) for o in old.values()),
    ]
    vdis = sorted({shown["VDI"] for _, shown in disks_of(db, vm)} - {NULL_REF})
    locks = (Lock("VM", vm, "pool_migrate"), *(Lock("VDI", vdi, shared=True) for vdi in vdis))
    return Plan(
        "VM.pool_migrate",
        tuple(acts),
        (*locks, Lock("host", host, "vm_migrate", shared=True)),
        prepare=lambda tx: tx.set("VM", vm, scheduled_to_be_resident_on=host),
    )
