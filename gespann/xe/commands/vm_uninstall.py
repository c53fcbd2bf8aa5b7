"""Removing VMs, snapshots and templates with everything that is theirs."""

import asyncio

from gespann.seams.xenapi.errors import XenApiError
from gespann.seams.xenapi.unfinished import going_label
from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.commands.vm_install import OWNER
from gespann.xe.selectors import VMS, Selected, for_each_vm, select, snapshot_or_template


async def _owned_vdis(call: Call, vm: Selected) -> list[str]:
    """The VM's own disks and its suspend image, each once."""
    found: list[str] = []
    vbds = await call.tables.all("VBD")
    for ref in vm.record["VBDs"]:
        vbd = vbds.get(ref)
        if vbd and OWNER in vbd["other_config"] and vbd["VDI"] != NULL_REF and vbd["type"] == "Disk":
            found.append(vbd["VDI"])
    found.append(vm.record.get("suspend_VDI", NULL_REF))
    vdis = await call.tables.all("VDI")
    return [ref for ref in dict.fromkeys(found) if ref in vdis]


async def _shared(call: Call, vm: Selected, vdi: str) -> bool:
    vbds = await call.tables.all("VBD")
    users = {vbd["VM"] for vbd in vbds.values() if vbd["VDI"] == vdi}
    return bool(users - {vm.ref})


async def _announce(call: Call, vm: Selected, vdis: list[str]) -> None:
    lines = [f"VM : {vm.record['uuid']} ({vm.record['name_label']})"]
    for vdi in vdis:
        record = (await call.tables.all("VDI"))[vdi]
        warning = " ** WARNING: disk is shared by other VMs" if await _shared(call, vm, vdi) else ""
        lines.append(f"VDI: {record['uuid']} ({record['name_label']}){warning}")
    for line in lines:
        await call.client.print(line)


async def _destroy(call: Call, vm: Selected, vdis: list[str]) -> None:
    """The VM goes last: it names the disks that are left. The label tells a coordinator that starts again that nobody
    wants them any more. The memory of a suspended VM goes with its shutdown, that of a checkpoint with its record."""
    if await call.request("VM.get_power_state", vm.ref) != "Halted" and not vm.record["is_a_template"]:
        await call.run_task("VM.hard_shutdown", vm.ref)
    name = vm.record["name_label"]
    await call.request("VM.set_name_label", vm.ref, going_label(name))
    try:
        late = [await _destroy_disk(call, vdi) for vdi in vdis if vdi != vm.record.get("suspend_VDI")]
        await call.request("VM.destroy", vm.ref)
    except XenApiError:
        await call.request("VM.set_name_label", vm.ref, name)
        raise
    for error in late:
        if error is not None:
            raise error


async def _destroy_disk(call: Call, vdi: str) -> XenApiError | None:
    """The error of what the pool has begun, and will finish by itself when the storage answers again."""
    try:
        await call.run_task("VDI.destroy", vdi)
    except XenApiError as error:
        if "destroy" not in (await call.request("VDI.get_current_operations", vdi)).values():
            raise
        return error
    return None


async def uninstall(call: Call, vms: list[Selected]) -> bool:
    """Shows what goes, asks unless forced, and lets it go. False: the user did not say yes."""
    plan = [(vm, await _owned_vdis(call, vm)) for vm in vms]
    await call.client.print("The following items are about to be destroyed")
    for vm, vdis in plan:
        await _announce(call, vm, vdis)
    if not call.arguments.boolean("force") and not await call.confirmed():
        return False
    for vm, vdis in plan:
        await asyncio.shield(_destroy(call, vm, vdis))  # a user who leaves has said yes all the same
    await call.client.print("All objects destroyed")
    return True


async def vm_uninstall(call: Call) -> None:
    if len(await select(call, VMS)) <= 1:

        async def one(vm: Selected) -> None:
            await uninstall(call, [vm])

        await for_each_vm(call, one)
        return
    chosen: list[Selected] = []

    async def collect(vm: Selected) -> None:
        chosen.append(vm)

    await for_each_vm(call, collect)  # refuses several without --multiple
    await uninstall(call, chosen)


async def snapshot_uninstall(call: Call) -> None:
    await uninstall(call, [await snapshot_or_template(call, "snapshot-uuid", "uuid")])


async def template_uninstall(call: Call) -> None:
    await uninstall(call, [await snapshot_or_template(call, "template-uuid")])


COMMANDS: dict[str, Handler] = {
    "vm-uninstall": vm_uninstall,
    "snapshot-uninstall": snapshot_uninstall,
    "template-uninstall": template_uninstall,
}
