"""What is told about an operation that has ended well: a message about its VM, made in the transaction that ends it, so
that there is one for each that happened and none for others. Names and priority as published."""

from gespann.pool.model.database import Transaction
from gespann.pool.model.messages import leave
from gespann.pool.pool import Pool
from gespann.pool.steps.journal import Entry
from gespann.pool.steps.vm_records import wire_time

PRIORITY = 5  # of all of these: for the record, nobody need act

#: operation -> name of the message, and what happened
NOTICES = {
    "VM.start": ("VM_STARTED", "started on host: {host}"),
    "VM.clean_shutdown": ("VM_SHUTDOWN", "shut down"),
    "VM.hard_shutdown": ("VM_SHUTDOWN", "shut down forcibly"),
    "VM.clean_reboot": ("VM_REBOOTED", "rebooted"),
    "VM.hard_reboot": ("VM_REBOOTED", "rebooted forcibly"),
    "VM.pause": ("VM_PAUSED", "paused"),
    "VM.unpause": ("VM_UNPAUSED", "unpaused"),
    "VM.suspend": ("VM_SUSPENDED", "suspended"),
    "VM.resume": ("VM_RESUMED", "resumed on host: {host}"),
    "VM.clone": ("VM_CLONED", "cloned"),
    "VM.snapshot": ("VM_SNAPSHOTTED", "snapshotted"),
    "VM.snapshot_with_quiesce": ("VM_SNAPSHOTTED", "snapshotted"),
    "VM.checkpoint": ("VM_CHECKPOINTED", "checkpointed"),
    "VM.revert": ("VM_SNAPSHOT_REVERTED", "reverted to a snapshot"),
    "VM.pool_migrate": ("VM_MIGRATED", "migrated to host: {host}"),
}


def tell(pool: Pool, tx: Transaction, entry: Entry) -> None:
    """The VM is the first that the operation holds."""
    vm = next((lock.ref for lock in entry.locks if lock.class_name == "VM"), "")
    if entry.operation not in NOTICES or not tx.exists("VM", vm):
        return
    name, happened = NOTICES[entry.operation]
    record = tx.get("VM", vm)
    host = record["resident_on"]
    shown = (
        f"{tx.get('host', host)['name_label']} (uuid: {tx.get('host', host)['uuid']})"
        if tx.exists("host", host)
        else ""
    )
    body = f"VM '{record['name_label']}' {happened.format(host=shown)}"
    if "stood_still_ms" in entry.notes:
        body += f"; it stood still for {entry.notes['stood_still_ms']} ms"
    if "failed" in entry.notes:
        body += f"; {entry.notes['failed']}"
    when = wire_time(pool.clock.now())
    leave(pool.db, tx, name=name, priority=PRIORITY, cls="VM", obj_uuid=record["uuid"], body=body, timestamp=when)
