"""Checkpoints: the memory and the disks of a running VM at one instant.

The guest is paused from before its memory is written until its disks' snapshots are there. The checkpoint is a snapshot
that is suspended; going back to it makes the VM a suspended one, with a copy of the memory: the checkpoint stays.
"""

from gespann.pool.model.database import Database
from gespann.pool.plan.legal_moves import SUSPENDED, Capabilities, assert_vm
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.snapshot_plans import Together, disks_to_snapshot, snapshot_disks, snapshot_of_vm
from gespann.pool.plan.snapshot_plans import locks_of as locks_of
from gespann.pool.plan.suspend_plans import memory_acts, memory_image, running_start


@operation("VM.checkpoint")
def plan_checkpoint(
    db: Database, vm: str, new_name: str, capabilities: Capabilities, together: Together, now: str, prefix: str
) -> Plan:
    """``now``: as the XenAPI writes times."""
    assert_vm(db, vm, "checkpoint")
    start = running_start(db, vm)
    image = memory_image(db, vm, start.host, capabilities)
    made = snapshot_disks(db, disks_to_snapshot(db, vm), capabilities, together, now)
    fields = {"power_state": SUSPENDED, "suspend_VDI": image.ref}
    ref, records = snapshot_of_vm(db, vm, new_name, made.disks, now, fields=fields)
    domain = {"host": start.host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"]}
    acts = (
        *image.acts,
        Act("domain-pause", domain),
        *memory_acts(db, vm, start, image, prefix),
        *made.acts,
        Act("domain-unpause", domain),
        Act("records-write", {"create": [image.record, *records], "set": [("VM", vm, {"parent": ref})]}),
    )
    locks = [Lock("VM", vm, "checkpoint"), *locks_of(made)]
    locks.append(Lock("SR", image.record[2]["SR"], "vdi_create", shared=True))
    return Plan("VM.checkpoint", acts, tuple(locks), result=ref)
