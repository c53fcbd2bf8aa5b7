"""The memory of a suspended VM in an archive: whether anything here can go on from it, and what the records become.

It is one machine's: of that uuid, with those devices and addresses. So it comes along only with a VM that comes back as
the one that it was, from a pool like this one; other VMs come in halted, and are told of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gespann.pool.images.ova import Metadata, Object
from gespann.pool.plan.import_records import RecordToWrite
from gespann.pool.plan.legal_moves import SUSPENDED
from gespann.pool.plan.suspend_plans import DEVICES_KEY, OWNER_KEY, plugged_again

LONGEST_LIST = 4096


@dataclass(frozen=True)
class CarriedMemory:
    """``why_not``: what keeps it from being used ("": nothing)."""

    vm: Object
    image: Object
    plugged: Mapping[str, list[str]]
    why_not: str = ""


def memories(metadata: Metadata, *, restore: bool) -> dict[str, CarriedMemory]:
    """Of each VM in the archive that has one, by its id there."""
    found = {}
    for vm in metadata.of_class("VM"):
        image = metadata.find("VDI", vm.get("suspend_VDI"))
        if image is not None and vm.get("power_state") == SUSPENDED and image.get("type") == "suspend":
            plugged = _plugged(image.get("other_config").get(DEVICES_KEY, ""))
            why_not = _why_not(metadata, vm, image, plugged, restore=restore)
            found[vm.id] = CarriedMemory(vm, image, plugged or {}, why_not)
    return found


def _why_not(
    metadata: Metadata, vm: Object, image: Object, plugged: Mapping[str, list[str]] | None, *, restore: bool
) -> str:
    if plugged is None:
        return "it is of another kind of hypervisor"
    if not restore:
        return "it is of a machine with that machine's uuid and addresses: import with preserve=true (restore=true)"
    if image.get("other_config").get(OWNER_KEY, vm.get("uuid")) != vm.get("uuid"):
        return "it is of another machine"
    disks = {vbd.get("userdevice") for vbd in metadata.of_class("VBD") if vbd.get("VM") == vm.id}
    nics = {vif.get("device") for vif in metadata.of_class("VIF") if vif.get("VM") == vm.id}
    if not (set(plugged["disks"]) <= disks and set(plugged["nics"]) <= nics):
        return "it is of a machine with other devices"
    return ""


def _plugged(text: str) -> Mapping[str, list[str]] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != {"disks", "nics"}:
        return None
    lists = list(value.values())
    if not all(isinstance(one, list) and len(one) <= LONGEST_LIST for one in lists):
        return None
    return value if all(isinstance(item, str) for one in lists for item in one) else None


def asleep(memory: CarriedMemory, vm: str, image: str, records: list[RecordToWrite]) -> list[RecordToWrite]:
    """The records, with the VM ``vm`` suspended, its memory in ``image``, and plugged what that knows of."""
    changed = []
    for class_name, ref, fields in records:
        more: dict[str, Any] = {}
        if class_name == "VM" and ref == vm:
            more = {"power_state": SUSPENDED, "suspend_VDI": image}
        elif fields.get("VM") == vm and class_name in ("VBD", "VIF"):
            more = plugged_again(class_name, fields, memory.plugged)
        changed.append((class_name, ref, {**fields, **more}))
    return changed
