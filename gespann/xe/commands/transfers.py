"""Disks and VMs to and from files of the client. The bytes do not pass the engine: the client opens its own HTTP
connection, and a task tells how it went."""

import asyncio
import re
from urllib.parse import urlencode

from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.call import Call, Handler
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import Selected, one_vm, snapshot_or_template

_FORMATS = ("raw", "vhd", "qcow2", "tar")
_REF = re.compile(r"OpaqueRef:[^<\s]+")


async def transfer(
    call: Call, label: str, path: str, query: dict[str, str], *, upload: bool, file_key: str = "filename"
) -> str:
    """The task's result once the transfer is complete. XenApiError: why it is not."""
    own_task = call.arguments.get("task-uuid", None)
    task = await call.ref_of("task", own_task) if own_task else str(await call.request("task.create", label, ""))
    try:
        url = f"{path}?{urlencode({'session_id': call.session, 'task_id': task, **query}, safe=':')}"
        filename = call.arguments.required(file_key)
        send = call.client.http_put if upload else call.client.http_get
        progress = asyncio.ensure_future(call.wait_for_task(task)) if "progress" in call.arguments else None
        try:
            arrived = await send(filename, url)
        finally:
            if progress is not None and not progress.done():
                progress.cancel()
            if progress is not None:
                await asyncio.gather(progress, return_exceptions=True)
        if not arrived:
            await _explain_refusal(call, task)
        return await call.wait_for_task(task)
    finally:
        if own_task is None:
            await call.request("task.destroy", task)


async def _explain_refusal(call: Call, task: str) -> None:
    """The client could not do it: the server's reason if it has one, or else that the client failed."""
    error_info = await call.request("task.get_error_info", task)
    raise XenApiError(error_info[0], error_info[1:]) if error_info else XenApiError("CLIENT_ERROR")


def _format(call: Call) -> str:
    name = call.arguments.text("format", "raw").lower()
    if name not in _FORMATS:
        raise CommandFailure(f"Format {name} is none of {', '.join(_FORMATS)}")
    return name


async def vdi_export(call: Call) -> None:
    uuid = call.arguments.required("uuid")
    await call.ref_of("VDI", uuid)
    query = {"vdi": uuid, "format": _format(call)}
    if base := call.arguments.text("base"):
        query["base"] = base
    await transfer(call, f"Exporting {uuid}", "/export_raw_vdi", query, upload=False)


async def vdi_import(call: Call) -> None:
    uuid = call.arguments.required("uuid")
    await call.ref_of("VDI", uuid)
    await transfer(call, f"Importing {uuid}", "/import_raw_vdi", {"vdi": uuid, "format": _format(call)}, upload=True)


async def _export(call: Call, vm: Selected) -> None:
    arguments = call.arguments
    metadata = arguments.boolean("metadata")
    query = {
        "uuid": str(vm.record["uuid"]),
        "use_compression": arguments.text("compress", "false"),
        "preserve_power_state": str(arguments.boolean("preserve-power-state")).lower(),
    }
    path = "/export_metadata" if metadata else "/export"
    await transfer(call, f"Export of VM: {vm.record['uuid']}", path, query, upload=False)
    if call.arguments.required("filename"):  # else the archive is on the standard output
        await call.printer.remark("Export succeeded")


async def audit_log_get(call: Call) -> None:
    since = call.arguments.text("since")
    query = {"since": since} if since else {}
    await transfer(call, "Downloading the audit log", "/audit_log", query, upload=False)


async def vm_export(call: Call) -> None:
    await _export(call, await one_vm(call))


async def template_export(call: Call) -> None:
    await _export(call, await snapshot_or_template(call, "template-uuid"))


async def snapshot_export(call: Call) -> None:
    await _export(call, await snapshot_or_template(call, "snapshot-uuid"))


async def vm_import(call: Call) -> None:
    """Prints the uuid of each VM that came."""
    arguments = call.arguments
    if "type" in arguments or "host-username" in arguments:
        raise CommandFailure("Importing from another kind of hypervisor is not available in this version")
    if "url" in arguments:
        await _import_from_url(call)
        return
    metadata = arguments.boolean("metadata")
    query = {
        "restore": str(arguments.boolean("preserve")).lower(),
        "force": str(arguments.boolean("force")).lower(),
    }
    if metadata:
        query["dry_run"] = str(arguments.boolean("dry-run")).lower()
    elif sr_uuid := arguments.text("sr-uuid"):
        query["sr_uuid"] = str((await call.request("SR.get_record", await call.ref_of("SR", sr_uuid)))["uuid"])
    path = "/import_metadata" if metadata else "/import"
    result = await transfer(call, "Importing VM", path, query, upload=True)
    await call.printer.values([await call.uuid_of("VM", ref) for ref in _REF.findall(result)])


async def _import_from_url(call: Call) -> None:
    """The coordinator fetches the archive; this client only waits."""
    arguments = call.arguments
    if any(word in arguments for word in ("filename", "metadata", "dry-run", "vdi")):
        raise CommandFailure("A URL goes with sr-uuid, preserve and force only")
    sr_uuid = arguments.text("sr-uuid")
    sr = await call.ref_of("SR", sr_uuid) if sr_uuid else NULL_REF
    said = (arguments.required("url"), sr, arguments.boolean("preserve"), arguments.boolean("force"))
    result = await call.run_task("VM.import", *said)
    await call.printer.values([await call.uuid_of("VM", ref) for ref in _REF.findall(result)])


COMMANDS: dict[str, Handler] = {
    "audit-log-get": audit_log_get,
    "vdi-export": vdi_export,
    "vdi-import": vdi_import,
    "vm-export": vm_export,
    "vm-import": vm_import,
    "template-export": template_export,
    "snapshot-export-to-template": snapshot_export,
}
