"""What keeps a VM from starting or a disk from being used, checked without changing anything."""

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.error_texts import describe_refs, error_text
from gespann.xe.filters import needed_classes
from gespann.xe.object_commands import selected_columns, table_record
from gespann.xe.records.catalog import object_classes
from gespann.xe.records.columns import Row


async def _outcome(call: Call, method: str, *params: str) -> str:
    """``OK``, or why the API says no."""
    try:
        await call.request(method, *params)
    except XenApiError as error:
        found = error_text(error.code, await describe_refs(error, call.tables))
        return found.sentence or f"{error.code}: {', '.join(found.lines)}"
    return "OK"


async def _show(call: Call, class_name: str, ref: str) -> None:
    object_class = object_classes()[class_name]
    columns = selected_columns(object_class, None)
    await call.tables.fetch({object_class.api_class, *needed_classes(columns)})
    record = call.tables.record(object_class.api_class, ref)
    if record is not None:
        await call.printer.table([table_record(columns, Row(ref, record, call.tables))])


async def starts_on_hosts(call: Call, vm: str) -> list[tuple[str, str]]:
    """For each host ``OK``, or why this VM cannot start there."""
    hosts = await call.tables.all("host")
    return [
        (host["name_label"], await _outcome(call, "VM.assert_can_boot_here", vm, ref)) for ref, host in hosts.items()
    ]


async def diagnostic_vm_status(call: Call) -> None:
    vm = await call.ref_of("VM", call.arguments.required("uuid"))
    record = await call.request("VM.get_record", vm)
    await _show(call, "vm", vm)
    await call.printer.remark("Checking to see whether disks are attachable")
    vbds = await call.tables.all("VBD")
    attachable = [
        (vbds[ref]["userdevice"], await _outcome(call, "VBD.assert_attachable", ref)) for ref in record["VBDs"]
    ]
    await call.printer.table([attachable] if attachable else [])
    await call.printer.remark("Checking to see whether VM can boot on each host")
    await call.printer.table([await starts_on_hosts(call, vm)])


async def diagnostic_vdi_status(call: Call) -> None:
    vdi = await call.ref_of("VDI", call.arguments.required("uuid"))
    await _show(call, "vdi", vdi)
    vbds = {ref: vbd for ref, vbd in (await call.tables.all("VBD")).items() if vbd["VDI"] == vdi != NULL_REF}
    for ref in vbds:
        await _show(call, "vbd", ref)


COMMANDS: dict[str, Handler] = {
    "diagnostic-vm-status": diagnostic_vm_status,
    "diagnostic-vdi-status": diagnostic_vdi_status,
}
