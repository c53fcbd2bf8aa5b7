"""Disks, CD drives and network interfaces of VMs."""

import contextlib

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF, Record
from gespann.xe.call import Call, Handler
from gespann.xe.commands.vm_install import OWNER
from gespann.xe.failures import CommandFailure
from gespann.xe.filters import needed_classes
from gespann.xe.object_commands import selected_columns, table_record
from gespann.xe.records.catalog import object_classes
from gespann.xe.records.columns import Row
from gespann.xe.selectors import VMS, Selected, for_each_vm, one_vm, select, snapshot_or_template

_VBD_COLUMNS = "uuid,vm-name-label,userdevice"
_VIF_COLUMNS = "uuid,device,MAC,network-uuid,network-name-label"
_VDI_COLUMNS = "uuid,name-label,virtual-size,sr-name-label"


def vbd_record(
    vm: str, vdi: str, device: str, *, kind: str = "Disk", mode: str = "RW", bootable: bool = False
) -> Record:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": device,
        "bootable": bootable,
        "mode": mode,
        "type": kind,
        "unpluggable": True,
        "empty": vdi == NULL_REF,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


async def vm_disk_add(call: Call) -> None:
    """One new disk per VM. A disk whose VBD cannot be made is removed again."""
    size_bytes, device = call.arguments.size("disk-size"), call.arguments.required("device")
    sr_uuid = call.arguments.text("sr-uuid")
    sr = await call.ref_of("SR", sr_uuid) if sr_uuid else await call.default_sr()
    if sr is None:
        raise CommandFailure("No default Pool SR set; you must specify an SR on the commandline")

    async def add(vm: Selected) -> None:
        vdi = str(await call.request("VDI.create", _new_disk(call, sr, size_bytes)))
        try:
            record = vbd_record(vm.ref, vdi, device) | {"other_config": {OWNER: ""}}
            vbd = str(await call.request("VBD.create", record))
        except BaseException:
            with contextlib.suppress(XenApiError):
                await call.request("VDI.destroy", vdi)
            raise
        if await call.request("VM.get_power_state", vm.ref) == "Running":
            await call.request("VBD.plug", vbd)

    await for_each_vm(call, add)


def _new_disk(call: Call, sr: str, size_bytes: int) -> Record:
    return {
        "name_label": "Created by xe",
        "name_description": "",
        "SR": sr,
        "virtual_size": size_bytes,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": call.arguments.mapping("sm-config"),
        "tags": [],
    }


async def _vbds(call: Call, vm: Selected, kind: str) -> list[tuple[str, Record]]:
    """The VM's VBDs of one kind by their place: 0, 1, 2, then anything else."""
    vbds = await call.tables.all("VBD")
    found = [(ref, vbds[ref]) for ref in vm.record["VBDs"] if ref in vbds and vbds[ref]["type"] == kind]
    return sorted(found, key=lambda item: (not item[1]["userdevice"].isdigit(), item[1]["userdevice"].rjust(5)))


async def vm_disk_remove(call: Call) -> None:
    device = call.arguments.required("device")

    async def remove(vm: Selected) -> None:
        for ref, vbd in await _vbds(call, vm, "Disk"):
            if vbd["userdevice"] == device:
                await call.request("VBD.destroy", ref)
                await call.run_task("VDI.destroy", vbd["VDI"])
                return
        raise CommandFailure("Disk not found")

    await for_each_vm(call, remove)


async def _print_row(call: Call, class_name: str, wanted: str, ref: str, record: Record) -> None:
    object_class = object_classes()[class_name]
    columns = selected_columns(object_class, wanted)
    await call.tables.fetch(needed_classes(columns))
    await call.printer.table([table_record(columns, Row(ref, record, call.tables))])


async def _print_drives(call: Call, vm: Selected, kind: str) -> None:
    vdis = await call.tables.all("VDI")
    for number, (ref, vbd) in enumerate(await _vbds(call, vm, kind)):
        label = f"{'Disk' if kind == 'Disk' else 'CD'} {number}"
        await call.printer.remark(f"{label} VBD:")
        await _print_row(call, "vbd", call.arguments.text("vbd-params", _VBD_COLUMNS), ref, vbd)
        if vbd["VDI"] in vdis:
            await call.printer.remark(f"{label} VDI:")
            wanted = call.arguments.text("vdi-params", _VDI_COLUMNS)
            await _print_row(call, "vdi", wanted, vbd["VDI"], vdis[vbd["VDI"]])


async def vm_disk_list(call: Call) -> None:
    async def show(vm: Selected) -> None:
        await _print_drives(call, vm, "Disk")

    await for_each_vm(call, show)


async def vm_cd_list(call: Call) -> None:
    async def show(vm: Selected) -> None:
        await _print_drives(call, vm, "CD")

    await for_each_vm(call, show)


async def snapshot_disk_list(call: Call) -> None:
    await _print_drives(call, await snapshot_or_template(call, "snapshot-uuid", "uuid"), "Disk")


async def vm_vif_list(call: Call) -> None:
    object_class = object_classes()["vif"]
    columns = selected_columns(object_class, call.arguments.text("params", _VIF_COLUMNS))
    await call.tables.fetch({"VIF", *needed_classes(columns)})
    for vm in await select(call, VMS):
        vifs = await call.tables.all("VIF")
        rows = [Row(ref, vifs[ref], call.tables) for ref in vm.record["VIFs"] if ref in vifs]
        await call.printer.table([table_record(columns, row) for row in rows])


async def _cd_called(call: Call, name: str) -> str:
    """An ISO image by name: one VDI in an SR of content type iso."""
    srs = await call.tables.all("SR")
    isos = {ref for ref, record in srs.items() if record["content_type"] == "iso"}
    found = [
        ref
        for ref, record in (await call.tables.all("VDI")).items()
        if record["SR"] in isos and name in (record["name_label"], record["uuid"])
    ]
    if not found:
        raise CommandFailure(f"CD {name} not found!")
    if len(found) > 1:
        raise CommandFailure(f"Multiple CDs named {name} found. Please use vbd-insert with a uuid")
    return found[0]


async def vm_cd_add(call: Call) -> None:
    vdi = await _cd_called(call, call.arguments.required("cd-name"))
    device = call.arguments.required("device")

    async def add(vm: Selected) -> None:
        record = vbd_record(vm.ref, vdi, device, kind="CD", mode="RO", bootable=True)
        vbd = str(await call.request("VBD.create", record))
        if await call.request("VM.get_power_state", vm.ref) == "Running":
            await call.request("VBD.plug", vbd)

    await for_each_vm(call, add)


async def vm_cd_remove(call: Call) -> None:
    name = call.arguments.required("cd-name")

    async def remove(vm: Selected) -> None:
        vdi = await _cd_called(call, name)
        for ref, vbd in await _vbds(call, vm, "CD"):
            if vbd["VDI"] == vdi:
                await call.request("VBD.destroy", ref)
                return
        raise CommandFailure(f"The VM has no CD {name}")

    await for_each_vm(call, remove)


async def vm_cd_eject(call: Call) -> None:
    async def eject(vm: Selected) -> None:
        full = [ref for ref, vbd in await _vbds(call, vm, "CD") if not vbd["empty"]]
        if not full:
            raise CommandFailure("No CDs found")
        if len(full) > 1:
            raise CommandFailure("Two or more CDs found. Please use vbd-eject")
        await call.request("VBD.eject", full[0])

    await for_each_vm(call, eject)


async def vm_cd_insert(call: Call) -> None:
    vdi = await _cd_called(call, call.arguments.required("cd-name"))

    async def insert(vm: Selected) -> None:
        empty = [ref for ref, vbd in await _vbds(call, vm, "CD") if vbd["empty"]]
        if not empty:
            raise XenApiError("VM_NO_EMPTY_CD_VBD", [vm.ref])
        if len(empty) > 1:
            raise CommandFailure("Two or more empty CD devices found. Please use vbd-insert")
        await call.request("VBD.insert", empty[0], vdi)

    await for_each_vm(call, insert)


async def cd_list(call: Call) -> None:
    """The VDIs of all SRs that hold CDs."""
    srs = await call.tables.all("SR")
    columns = selected_columns(object_classes()["vdi"], call.arguments.get("params", "name-label,uuid"))
    await call.tables.fetch(needed_classes(columns))
    rows = [
        Row(ref, record, call.tables)
        for ref, record in (await call.tables.all("VDI")).items()
        if srs.get(record["SR"], {}).get("content_type") == "iso"
    ]
    await call.printer.table([table_record(columns, row) for row in rows])


async def vm_crashdump_list(call: Call) -> None:
    vm = await one_vm(call)
    dumps = await call.tables.all("crashdump")
    await call.tables.fetch(["VDI"])
    await call.printer.table(
        [
            [
                ("uuid ( RO)", str(dump["uuid"])),
                ("vm-uuid ( RO)", str(vm.record["uuid"])),
                ("vm-name-label ( RO)", str(vm.record["name_label"])),
                ("vdi-uuid ( RO)", call.tables.uuid("VDI", dump["VDI"])),
            ]
            for dump in dumps.values()
            if dump["VM"] == vm.ref
        ]
    )


COMMANDS: dict[str, Handler] = {
    "vm-disk-add": vm_disk_add,
    "vm-disk-remove": vm_disk_remove,
    "vm-disk-list": vm_disk_list,
    "vm-cd-list": vm_cd_list,
    "vm-cd-add": vm_cd_add,
    "vm-cd-remove": vm_cd_remove,
    "vm-cd-eject": vm_cd_eject,
    "vm-cd-insert": vm_cd_insert,
    "vm-vif-list": vm_vif_list,
    "vm-crashdump-list": vm_crashdump_list,
    "snapshot-disk-list": snapshot_disk_list,
    "cd-list": cd_list,
}
