"""Checkpoints: the memory and the disks of a VM at one instant.

A running guest is paused from before its memory is written until its disks' snapshots are there; one that is paused
stays so; of a suspended one there is an image already, which is copied. The checkpoint is a snapshot that is suspended;
going back to it makes the VM a suspended one, with a copy of the memory: the checkpoint stays.
"""

from collections.abc import Mapping
from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.legal_moves import PAUSED, SUSPENDED, Capabilities, assert_vm
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.snapshot_plans import SnapshotDisks, Together, disks_to_snapshot, snapshot_disks, snapshot_of_vm
from gespann.pool.plan.snapshot_plans import locks_of as locks_of
from gespann.pool.plan.suspend_plans import KeptMemory, kept_memory, memory_acts, memory_image, running_start


@operation("VM.checkpoint")
def plan_checkpoint(
    db: Database,
    vm: str,
    new_name: str,
    capabilities: Capabilities,
    together: Together,
    now: str,
    prefix: str,
    *,
    fields: Mapping[str, Any] | None = None,
) -> Plan:
    """``now``: as the XenAPI writes times. ``fields``: more of the checkpoint's record."""
    assert_vm(db, vm, "checkpoint")
    suspended = db.get("VM", vm)["power_state"] == SUSPENDED
    made = snapshot_disks(db, disks_to_snapshot(db, vm), capabilities, together, now)
    if suspended:
        memory = kept_memory(db, vm, capabilities)
        acts = (*memory.acts, *made.acts)
    else:
        memory, acts = _with_live_memory(db, vm, made, capabilities, prefix)
    ref, records = snapshot_of_vm(db, vm, new_name, made.disks, now, fields={**(fields or {}), **memory.fields})
    write = Act("records-write", {"create": [*memory.records, *records], "set": [("VM", vm, {"parent": ref})]})
    locks = (Lock("VM", vm, "checkpoint"), *locks_of(made), *memory.locks)
    return Plan("VM.checkpoint", (*acts, write), locks, result=ref)


def _with_live_memory(
    db: Database, vm: str, made: SnapshotDisks, capabilities: Capabilities, prefix: str
) -> tuple[KeptMemory, tuple[Act, ...]]:
    start = running_start(db, vm)
    image = memory_image(db, vm, start.host, capabilities)
    domain = {"host": start.host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"]}
    paused = db.get("VM", vm)["power_state"] == PAUSED
    acts = (
        *image.acts,
        *(() if paused else (Act("domain-pause", domain),)),
        *memory_acts(db, vm, start, image, prefix),
        *made.acts,
        *(() if paused else (Act("domain-unpause", domain),)),
    )
    fields = {"power_state": SUSPENDED, "suspend_VDI": image.ref}
    locks = (Lock("SR", image.record[2]["SR"], "vdi_create", shared=True),)
    return KeptMemory(fields, [image.record], locks=locks), acts
