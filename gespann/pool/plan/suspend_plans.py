"""Plans that put a VM to sleep in a volume and wake it.

          suspend                  hard_shutdown, power_state_reset: the image is thrown away
Running ──────────► Suspended ──────────────────────────────────────────────────────────────► Halted
   ▲                    │
   └───── resume ───────┘
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.device_numbers import disk_name, disk_number
from gespann.pool.plan.disk_plans import NewDisk, cloned_disk, closing, new_disk, open_by_pool
from gespann.pool.plan.domain_spec import Names, disk_shape, domain_shape, nic_shape, open_act
from gespann.pool.plan.legal_moves import SUSPENDED, Capabilities, assert_sr, assert_vm
from gespann.pool.plan.placement import assert_usable, choose_host
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts, disks_of, peek
from gespann.pool.plan.vm_limits import suspend_image_bytes
from gespann.pool.steps.openings import Start, openings_of_vm, start_of
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

#: in a memory image's other_config: the device numbers of what was plugged, as JSON, and the uuid of the VM
DEVICES_KEY = "memory-devices"
OWNER_KEY = "memory-of"


def choose_suspend_sr(db: Database, vm: str, host: str) -> str:
    """The VM's own, else the pool's, else the host's; VM_NO_SUSPEND_SR if none of them names one that exists."""
    pool = next(iter(db.all("pool").values()))
    wanted = (db.get("VM", vm)["suspend_SR"], pool["suspend_image_SR"], db.get("host", host)["suspend_image_sr"])
    for sr in wanted:
        if db.find("SR", sr) is not None:
            return str(sr)
    raise XenApiError("VM_NO_SUSPEND_SR", [vm])


def running_start(db: Database, vm: str) -> Start:
    start = start_of(db, vm)
    if start is None:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", db.get("VM", vm)["power_state"].lower()])
    return start


def memory_image(db: Database, vm: str, host: str, capabilities: Capabilities) -> NewDisk:
    sr = choose_suspend_sr(db, vm, host)
    assert_sr(db, sr, "vdi_create", capabilities)
    if host not in attached_hosts(db, sr):
        raise XenApiError("HOST_CANNOT_SEE_SR", [host, sr])
    wanted = {
        "name_label": "Suspend image",
        "name_description": f"Memory of {db.get('VM', vm)['name_label']}"[:255],
        "type": "suspend",
        "virtual_size": suspend_image_bytes(db.get("VM", vm)),
        "sharable": False,
        "read_only": False,
        "sm_config": {},
        "other_config": {DEVICES_KEY: json.dumps(_devices(db, vm)), OWNER_KEY: db.get("VM", vm)["uuid"]},
    }
    return new_disk(sr, wanted)


def _devices(db: Database, vm: str) -> dict[str, list[str]]:
    """What is plugged: what the guest will believe to have when it goes on."""
    disks = [vbd["userdevice"] for _, vbd in disks_of(db, vm) if vbd["currently_attached"]]
    vifs = [db.get("VIF", ref) for ref in db.get("VM", vm)["VIFs"]]
    return {"disks": disks, "nics": sorted(vif["device"] for vif in vifs if vif["currently_attached"])}


def memory_acts(db: Database, vm: str, start: Start, image: NewDisk, prefix: str) -> list[Act]:
    """The memory of a paused domain into a new volume, which is closed again."""
    record = db.get("VM", vm)
    opened = open_by_pool(image.record[2]["SR"], image.ref, image.uuid, "RW", prefix)
    args = {
        "host": start.host,
        "vm": vm,
        "vm_uuid": record["uuid"],
        "start_id": start.start_id,
        "opening_id": opened.args["opening_id"],
        "memory_bytes": record["memory_static_max"],
    }
    return [opened, Act("memory-save", args), closing(opened)]


@dataclass(frozen=True)
class KeptMemory:
    """A suspended VM's memory for a snapshot of it. ``fields``: of the snapshot's record."""

    fields: dict[str, Any]
    records: list[tuple[str, str, dict[str, Any]]]
    acts: tuple[Act, ...] = ()
    locks: tuple[Lock, ...] = ()


def kept_memory(db: Database, vm: str, capabilities: Capabilities) -> KeptMemory:
    """A copy of the image, made by the storage: the VM can go on from its own, the snapshot from this one. Nothing for
    a VM that is not suspended. VM_HAS_NO_SUSPEND_VDI if the image is gone."""
    record = db.get("VM", vm)
    if record["power_state"] != SUSPENDED:
        return KeptMemory({}, [])
    image = peek(db, "VDI", record["suspend_VDI"])
    if image is None or image["missing"]:
        raise XenApiError("VM_HAS_NO_SUSPEND_VDI", [vm])
    copy = cloned_disk(db, record["suspend_VDI"], capabilities, "clone")
    fields = {"power_state": SUSPENDED, "suspend_VDI": copy.ref}
    locks = (
        Lock("VDI", record["suspend_VDI"], "clone", shared=True),
        Lock("SR", image["SR"], "vdi_clone", shared=True),
    )
    return KeptMemory(fields, [copy.record], copy.acts, locks)


def _locks(db: Database, vm: str, name: str) -> list[Lock]:
    vdis = {vbd["VDI"] for _, vbd in disks_of(db, vm)} - {NULL_REF}
    return [Lock("VM", vm, name), *(Lock("VDI", vdi, shared=True) for vdi in sorted(vdis))]


@operation("VM.suspend")
def plan_suspend(db: Database, vm: str, capabilities: Capabilities, prefix: str) -> Plan:
    assert_vm(db, vm, "suspend")
    start = running_start(db, vm)
    image = memory_image(db, vm, start.host, capabilities)
    uuid = db.get("VM", vm)["uuid"]
    acts = (
        *image.acts,
        Act("domain-pause", {"host": start.host, "vm": vm, "vm_uuid": uuid}),
        *memory_acts(db, vm, start, image, prefix),
        Act("vm-suspended", {"vm": vm, "image": image.record}),
        Act("domain-end", {"host": start.host, "vm_uuid": uuid, "start_id": start.start_id}),
        *(
            Act("volume-close", {"sr": o.sr, "vdi_uuid": o.vdi_uuid, "opening_id": o.opening_id})
            for o in openings_of_vm(db, vm)
        ),
    )
    locks = (*_locks(db, vm, "suspend"), Lock("SR", image.record[2]["SR"], "vdi_create", shared=True))
    return Plan("VM.suspend", acts, locks)


@operation("VM.resume")
def plan_resume(
    db: Database, vm: str, names: Names, prefix: str, *, host: str = NULL_REF, paused: bool = False
) -> Plan:
    name = "resume" if host == NULL_REF else "resume_on"
    assert_vm(db, vm, name)
    record = db.get("VM", vm)
    image = peek(db, "VDI", record["suspend_VDI"])
    if image is None or image["missing"]:
        raise XenApiError("VM_HAS_NO_SUSPEND_VDI", [vm])
    chosen = choose_host(db, vm, host)
    acts, shapes, vbds = _plugged(db, vm, names)
    nics = [nic_shape(db, vif) for vif in sorted(record["VIFs"]) if db.get("VIF", vif)["currently_attached"]]
    bridges = {nic["bridge"]: nic["mtu"] for nic in nics}
    memory = open_by_pool(image["SR"], record["suspend_VDI"], image["uuid"], "RO", prefix)
    spec = domain_shape(record, names, shapes, nics, paused=True)
    held = {"host": chosen, "vm": vm}
    wakes = () if paused else (Act("guest-goes-on", {**held, "vm_uuid": record["uuid"]}),)
    all_acts = (
        Act("vm-claim", {"vm": vm}),
        *(Act("bridge-ready", {"host": chosen, "bridge": b, "mtu": mtu}) for b, mtu in sorted(bridges.items())),
        *acts,
        memory,
        Act("domain-restore", {**held, "spec": spec, "opening_id": memory.args["opening_id"]}),
        closing(memory),
        Act("vm-resumed", {**held, "start_id": names.start_id, "vbds": vbds}),
        *wakes,
        *discard_acts(record, image),
    )
    locks = (*_locks(db, vm, name), Lock("VDI", record["suspend_VDI"]), Lock("host", chosen, "vm_resume", shared=True))
    return Plan(
        "VM.resume",
        all_acts,
        locks,
        prepare=lambda tx: tx.set("VM", vm, scheduled_to_be_resident_on=chosen),
    )


def _plugged(db: Database, vm: str, names: Names) -> tuple[list[Act], list[dict[str, Any]], dict[str, str]]:
    """The disks that it had when it was suspended: their openings, their shapes, {VBD: its device's name}."""
    acts, shapes, vbds = [], [], {}
    for vbd, record in disks_of(db, vm):
        if not record["currently_attached"]:
            continue
        opening_id = ""
        if not record["empty"]:
            assert_usable(db, record["VDI"], writes=record["mode"] == "RW" and record["type"] != "CD", but=vbd)
            act, opening_id = open_act(db, names, vm, vbd)
            acts.append(act)
        shape = disk_shape(db, vbd, opening_id)
        shapes.append(shape)
        vbds[vbd] = disk_name(shape["device"])
    return acts, shapes, vbds


@dataclass(frozen=True)
class MemoryBack:
    """What of going back to a snapshot is about memory. ``records``: the devices to be, and the image. ``fields``: of
    the VM."""

    records: list[tuple[str, str, dict[str, Any]]]
    fields: dict[str, Any]
    acts: tuple[Act, ...] = ()
    locks: tuple[Lock, ...] = ()


def memory_back(
    db: Database,
    snapshot: Mapping[str, Any],
    devices: list[tuple[str, str, dict[str, Any]]],
    capabilities: Capabilities,
) -> MemoryBack:
    """A checkpoint's memory is copied for the VM, whose devices are plugged as they were then. ``devices``: records of
    VBDs and VIFs to be made."""
    image = peek(db, "VDI", snapshot["suspend_VDI"])
    if image is None:
        return MemoryBack(devices, {})
    copy = cloned_disk(db, snapshot["suspend_VDI"], capabilities, "clone")
    plugged = json.loads(image["other_config"][DEVICES_KEY])
    records = [(name, ref, {**fields, **plugged_again(name, fields, plugged)}) for name, ref, fields in devices]
    state = {"power_state": SUSPENDED, "suspend_VDI": copy.ref}
    locks = (Lock("VDI", snapshot["suspend_VDI"], "clone", shared=True),)
    return MemoryBack([copy.record, *records], state, copy.acts, locks)


def plugged_again(class_name: str, fields: Mapping[str, Any], plugged: Mapping[str, list[str]]) -> dict[str, Any]:
    if class_name == "VBD" and fields["userdevice"] in plugged["disks"]:
        return {"currently_attached": True, "device": disk_name(disk_number(fields["userdevice"]))}
    return {"currently_attached": True} if class_name == "VIF" and fields["device"] in plugged["nics"] else {}


def discard_acts(vm: Mapping[str, Any], image: Mapping[str, Any] | None) -> list[Act]:
    """What takes the memory image away, if there is one."""
    if image is None:
        return []
    return [Act("volume-destroy", {"sr": image["SR"], "vdi": vm["suspend_VDI"], "vdi_uuid": image["uuid"]})]
