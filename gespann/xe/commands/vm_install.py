"""``vm-install``: a VM from a template, its disks on a chosen SR."""

import asyncio
import contextlib
from xml.etree import ElementTree

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from gespann.seams.xenapi.errors import XenApiError
from gespann.seams.xenapi.unfinished import unfinished_label
from gespann.xe.api import NULL_REF, Record
from gespann.xe.call import Call, Handler
from gespann.xe.failures import CommandFailure

DISKS = "disks"  # the key of a template's other_config that says which disks to make
OWNER = "owner"  # the key of a VBD's other_config that says: this disk goes when the VM goes


async def vm_install(call: Call) -> None:
    template, record = await _template(call)
    sr = await _wanted_sr(call, record)
    name = call.arguments.required("new-name-label")
    label = unfinished_label(name)  # a coordinator that starts again takes away what bears it
    if sr is None:
        vm = await call.run_task("VM.clone", template, label)
    else:
        vm = await call.run_task("VM.copy", template, label, sr)
    try:
        await _finish(call, vm, sr)
        await call.request("VM.set_name_label", vm, name)
    except BaseException:
        # Also when the connection or the server ends meanwhile: half a VM must not stay behind.
        await asyncio.shield(discard_vm(call, vm))
        raise
    await call.printer.values([await call.uuid_of("VM", vm)])


async def _template(call: Call) -> tuple[str, Record]:
    arguments = call.arguments
    uuid = arguments.get("template-uuid", None)
    name = arguments.get("template-name", arguments.get("template-name-label", None))
    either = arguments.get("template", None)
    if uuid is None and name is None and either is None:
        raise CommandFailure("Template must be specified by parameter 'template-uuid', 'template-name', or 'template'")
    found = [
        (ref, record)
        for ref, record in (await call.tables.all("VM")).items()
        if record["is_a_template"] and _is_wanted(record, uuid, name, either)
    ]
    if not found:
        raise CommandFailure("No templates matched")
    if len(found) > 1:
        raise CommandFailure("More than one matching template found")
    return found[0]


def _is_wanted(record: Record, uuid: str | None, name: str | None, either: str | None) -> bool:
    if uuid is not None:
        return bool(record["uuid"] == uuid)
    if name is not None:
        return bool(record["name_label"] == name)
    return either in (record["uuid"], record["name_label"])


async def _wanted_sr(call: Call, template: Record) -> str | None:
    uuid, name = call.arguments.get("sr-uuid", None), call.arguments.get("sr-name-label", None)
    if uuid is None and name is None:
        return None
    if template["is_a_snapshot"]:
        raise CommandFailure(
            "Do not use the sr-name-label or sr-uuid argument when installing from a snapshot."
            " Its disks are cloned where they are."
        )
    if uuid is not None:
        return await call.ref_of("SR", uuid)
    found = [ref for ref, record in (await call.tables.all("SR")).items() if record["name_label"] == name]
    if len(found) != 1:
        raise CommandFailure(f"{'More than one SR has' if found else 'No SR has'} the name-label '{name}'")
    return found[0]


async def _finish(call: Call, vm: str, sr: str | None) -> None:
    await call.request("VM.set_name_description", vm, "Installed via xe CLI")
    if sr is not None:
        await call.request("VM.set_suspend_SR", vm, sr)
    if (source := call.arguments.get("copy-bios-strings-from", None)) is not None:
        await call.request("VM.copy_bios_strings", vm, await call.ref_of("host", source))
    await _place_disks(call, vm, sr)
    await _configure_disks(call, vm)
    await call.run_task("VM.provision", vm)


async def _place_disks(call: Call, vm: str, sr: str | None) -> None:
    """Writes the SR into the template's list of disks to make."""
    other_config = await call.request("VM.get_other_config", vm)
    if DISKS not in other_config:
        return
    try:
        tree = SafeTree.fromstring(other_config[DISKS])
    except (ElementTree.ParseError, DefusedXmlException) as error:
        raise CommandFailure(f"The template's list of disks cannot be read: {error}") from error
    disks = tree.findall("disk")
    if not disks:
        return
    place = sr or await call.default_sr()
    if place is None:
        raise CommandFailure(
            "Failed to find a valid default SR for the Pool. Please provide an sr-name-label or sr-uuid parameter."
        )
    for disk in disks:
        disk.set("sr", await call.uuid_of("SR", place))
    await call.request("VM.remove_from_other_config", vm, DISKS)
    await call.request("VM.add_to_other_config", vm, DISKS, ElementTree.tostring(tree, encoding="unicode"))


async def _configure_disks(call: Call, vm: str) -> None:
    """``sm-config:key=value`` of the command line, such as ``allocation=thin``, for every disk that the VM owns.

    Disks that came with the template exist by now, and their storage takes the settings up.
    """
    settings = call.arguments.mapping("sm-config")
    if not settings:
        return
    for vdi in await owned_disks(call, vm):
        # In one call: between taking a key out and putting it in, storage might fill in its own value again.
        now = await call.request("VDI.get_sm_config", vdi)
        if now | settings != now:
            await call.request("VDI.set_sm_config", vdi, now | settings)


async def owned_disks(call: Call, vm: str) -> list[str]:
    """VDIs that belong to this VM alone: on its disks' VBDs that carry the owner mark."""
    found = []
    for ref in await call.request("VM.get_VBDs", vm):
        vbd = await call.request("VBD.get_record", ref)
        if OWNER in vbd["other_config"] and vbd["VDI"] != NULL_REF and vbd["type"] == "Disk":
            found.append(str(vbd["VDI"]))
    return found


async def discard_vm(call: Call, vm: str) -> None:
    """Removes a VM that could not be finished, with the disks made for it; what fails here hides no earlier cause."""
    disks = []
    with contextlib.suppress(XenApiError):
        disks = await owned_disks(call, vm)
    with contextlib.suppress(XenApiError):
        await call.request("VM.destroy", vm)
    for vdi in disks:
        with contextlib.suppress(XenApiError):
            await call.request("VDI.destroy", vdi)


COMMANDS: dict[str, Handler] = {"vm-install": vm_install}
