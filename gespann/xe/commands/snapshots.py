"""Snapshots of VMs: going back to one, making VMs of one, removing one."""

from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.commands.vm_lifecycle import show_new_vm
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import Selected, snapshot_or_template


async def _snapshot(call: Call) -> Selected:
    found = await snapshot_or_template(call, "snapshot-uuid", "uuid")
    if not found.record["is_a_snapshot"]:
        raise CommandFailure("This uuid is not that of a snapshot")
    return found


async def snapshot_revert(call: Call) -> None:
    await call.run_task("VM.revert", (await _snapshot(call)).ref)


async def snapshot_destroy(call: Call) -> None:
    """Only the record: ``snapshot-uninstall`` takes the disks too."""
    await call.request("VM.destroy", (await _snapshot(call)).ref)


async def snapshot_clone(call: Call) -> None:
    snapshot = await snapshot_or_template(call, "uuid", "snapshot-uuid")
    await show_new_vm(call, await call.run_task("VM.clone", snapshot.ref, call.arguments.required("new-name-label")))


async def snapshot_copy(call: Call) -> None:
    snapshot = await snapshot_or_template(call, "uuid", "snapshot-uuid")
    sr_uuid = call.arguments.text("sr-uuid")
    sr = await call.ref_of("SR", sr_uuid) if sr_uuid else NULL_REF
    await show_new_vm(call, await call.run_task("VM.copy", snapshot.ref, call.arguments.required("new-name-label"), sr))


async def snapshot_reset_powerstate(call: Call) -> None:
    call.must_be_forced()
    await call.request("VM.power_state_reset", (await _snapshot(call)).ref)


COMMANDS: dict[str, Handler] = {
    "snapshot-revert": snapshot_revert,
    "snapshot-destroy": snapshot_destroy,
    "snapshot-clone": snapshot_clone,
    "snapshot-copy": snapshot_copy,
    "snapshot-reset-powerstate": snapshot_reset_powerstate,
}
