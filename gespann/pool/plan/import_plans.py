"""Plans that take VMs in: what the records of an archive become here, and where its disks go."""

from dataclasses import dataclass, field
from uuid import uuid4

from gespann.pool.images.ova import Metadata, Object
from gespann.pool.model.database import Database, new_ref
from gespann.pool.plan.disk_plans import NewDisk, closing, new_disk, open_by_pool
from gespann.pool.plan.import_memory import CarriedMemory, asleep, memories
from gespann.pool.plan.import_records import (
    RecordToWrite,
    assert_uuid,
    network_fields,
    vbd_fields,
    vdi_fields,
    vif_fields,
    vm_fields,
)
from gespann.pool.plan.legal_moves import Capabilities, assert_sr, assert_vm
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.plan.suspend_plans import DEVICES_KEY, OWNER_KEY
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

Refs = dict[str, str]  # id in the archive -> reference here


@dataclass(frozen=True)
class Wanted:
    """``sr``: where disks go; null: only records are taken in, for disks that are here already. ``restore``: under the
    uuids and MAC addresses that they had."""

    sr: str = NULL_REF
    restore: bool = False
    force: bool = False


@dataclass
class _Import:
    """One archive as it is being thought through."""

    db: Database
    metadata: Metadata
    wanted: Wanted
    create: list[RecordToWrite] = field(default_factory=list)
    destroy: list[tuple[str, str]] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    memories: dict[str, CarriedMemory] = field(default_factory=dict)  # by the VM's id
    vms: Refs = field(default_factory=dict)
    vdis: Refs = field(default_factory=dict)
    networks: Refs = field(default_factory=dict)


@operation("VM.import")
def plan_import(
    db: Database,
    metadata: Metadata,
    wanted: Wanted,
    capabilities: Capabilities,
    prefix: str,
    halted: dict[str, str] | None = None,
) -> Plan:
    """``memory["archive"]`` holds what follows the records. Gives the references of the VMs. ``halted`` takes those
    that were suspended and will not be, with why."""
    assert_sr(db, wanted.sr, "vdi_create", capabilities)
    work = _Import(db, metadata, wanted, memories=memories(metadata, restore=wanted.restore))
    work.locks.append(Lock("SR", wanted.sr, "vdi_create", shared=True))
    acts: list[Act] = []
    for vdi in _streamed(metadata):
        disk = _disk_for(work, vdi)
        acts += _filling(work, vdi, disk, prefix)
    _think_through(work)
    create = work.create
    for id_, memory in work.memories.items():
        if id_ in work.vms and memory.image.id in work.vdis:
            create = asleep(memory, work.vms[id_], work.vdis[memory.image.id], create)
        elif id_ in work.vms and halted is not None:
            halted[work.vms[id_]] = memory.why_not
    written = Act("records-write", {"create": create, "destroy": work.destroy})
    return Plan("VM.import", (*acts, Act("archive-finish"), written), tuple(work.locks), result=_result(work))


@operation("VM.import_metadata")
def plan_import_metadata(db: Database, metadata: Metadata, wanted: Wanted) -> Plan:
    """The records alone; their disks must be here: found by SR and location."""
    work = _Import(db, metadata, wanted)
    for vdi in _disks(metadata):
        found = _disk_that_is_here(work, vdi)
        if found is not None:
            work.vdis[vdi.id] = found
    _think_through(work)
    written = Act("records-write", {"create": work.create, "destroy": work.destroy})
    return Plan("VM.import_metadata", (written,), tuple(work.locks), result=_result(work))


def _result(work: _Import) -> list[str]:
    if not work.vms:
        raise XenApiError("IMPORT_ERROR", ["there is no VM in the archive"])
    return [ref for id_, ref in work.vms.items() if not work.metadata.need("VM", id_).get("is_a_snapshot")]


# -- disks


def _is_iso(metadata: Metadata, vdi: Object) -> bool:
    return bool(metadata.need("SR", vdi.get("SR")).get("content_type") == "iso")


def _disks(metadata: Metadata) -> list[Object]:
    """The VDIs that are disks of the VMs."""
    ids = dict.fromkeys(vbd.get("VDI") for vbd in metadata.of_class("VBD") if vbd.get("type") != "CD")
    found = [metadata.need("VDI", id_) for id_ in ids if id_ != NULL_REF]
    return [vdi for vdi in found if not _is_iso(metadata, vdi)]


def _streamed(metadata: Metadata) -> list[Object]:
    """What follows the records in the archive, in its order: the disks, and images of suspended machines."""
    found = {vdi.id: vdi for vdi in _disks(metadata)}
    found |= {vdi.id: vdi for vdi in metadata.of_class("VDI") if vdi.get("type") == "suspend"}
    return [found[id_] for id_ in sorted(found)]


def _disk_for(work: _Import, vdi: Object) -> NewDisk | None:
    fields = vdi_fields(vdi)
    if vdi.get("type") == "suspend":
        usable = [one for one in work.memories.values() if one.image.id == vdi.id and not one.why_not]
        if not usable or _stays_out(work, usable[0].vm):
            return None  # nothing here could go on from it
        kept = {key: text for key, text in fields["other_config"].items() if key in (DEVICES_KEY, OWNER_KEY)}
        fields["other_config"] = kept
    disk = new_disk(work.wanted.sr, fields)
    work.vdis[vdi.id] = disk.ref
    work.create.append(disk.record)
    return disk


def _stays_out(work: _Import, vm: Object) -> bool:
    """One of that uuid is here, and is not to be replaced."""
    return any(record["power_state"] != "Halted" for _, record in work.db.where("VM", uuid=vm.get("uuid")))


def _filling(work: _Import, vdi: Object, disk: NewDisk | None, prefix: str) -> list[Act]:
    part = {"name": vdi.id, "size_bytes": vdi.get("virtual_size")}
    if disk is None:
        return [Act("archive-skip", part)]
    opened = open_by_pool(work.wanted.sr, disk.ref, disk.uuid, "RW", prefix)
    sides = {"host": attached_hosts(work.db, work.wanted.sr)[0], "opening_id": opened.args["opening_id"]}
    return [*disk.acts, opened, Act("archive-fill", {**part, **sides}), closing(opened)]


def _disk_that_is_here(work: _Import, vdi: Object) -> str | None:
    sr_uuid, location = work.metadata.need("SR", vdi.get("SR")).get("uuid"), vdi.get("location")
    for sr, _ in work.db.where("SR", uuid=sr_uuid):
        for ref, _ in work.db.where("VDI", SR=sr, location=location):
            return ref
        if not work.wanted.force:
            raise XenApiError("VDI_LOCATION_MISSING", [sr, location])
    if work.wanted.force:
        return None
    raise XenApiError("VDI_CONTENT_ID_MISSING", [])


def _medium_that_is_here(work: _Import, id_: str) -> str | None:
    """An ISO image is not carried along: one of the same name in any repository of images does."""
    vdi = work.metadata.find("VDI", id_)
    if vdi is None or not _is_iso(work.metadata, vdi):
        return None
    for sr, record in work.db.all("SR").items():
        if record["content_type"] == "iso":
            for ref, _ in work.db.where("VDI", SR=sr, location=vdi.get("location")):
                return ref
    return None


# -- records


def _think_through(work: _Import) -> None:
    for vm in sorted(work.metadata.of_class("VM"), key=lambda vm: bool(vm.get("is_a_snapshot"))):
        if not vm.get("is_control_domain") and not _is_default_template(vm):
            _take_vm(work, vm)
    for vm in work.metadata.of_class("VM"):
        if vm.id in work.vms:
            _take_devices(work, vm)


def _is_default_template(vm: Object) -> bool:
    return bool(vm.get("is_a_template") and vm.get("other_config").get("default_template") == "true")


def _take_vm(work: _Import, vm: Object) -> None:
    ref, fields = new_ref(), vm_fields(vm, restore=work.wanted.restore)
    if work.wanted.restore:
        fields["uuid"] = assert_uuid(vm.get("uuid"))
        if not _may_take_the_place(work, vm, fields["uuid"]):
            return
    if vm.get("is_a_snapshot"):
        fields["snapshot_of"] = work.vms.get(vm.get("snapshot_of"), NULL_REF)
    work.vms[vm.id] = ref
    work.create.append(("VM", ref, fields))


def _may_take_the_place(work: _Import, vm: Object, uuid: str) -> bool:
    """What is here under that uuid goes, but for its disks. False: it stays, and the newcomer is left out."""
    db = work.db
    there = db.where("VM", uuid=uuid)
    if not there:
        _assert_own_seed(db, vm)
        return True
    old, record = there[0]
    if record["power_state"] != "Halted" and work.wanted.force:
        return False
    assert_vm(db, old, "destroy")
    if record["version"] >= vm.get("version") and not work.wanted.force:
        versions = [str(record["version"]), str(vm.get("version"))]
        raise XenApiError("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", [old, *versions])
    work.locks.append(Lock("VM", old, "destroy"))
    work.destroy += [("VBD", vbd) for vbd in record["VBDs"]] + [("VIF", vif) for vif in record["VIFs"]]
    work.destroy += [("VM", old)]
    return True


def _assert_own_seed(db: Database, vm: Object) -> None:
    """Two VMs of one seed would have the same MAC addresses."""
    seed = vm.get("other_config").get("mac_seed")
    if seed and any(record["other_config"].get("mac_seed") == seed for record in db.all("VM").values()):
        raise XenApiError("DUPLICATE_MAC_SEED", [seed])


def _take_devices(work: _Import, vm: Object) -> None:
    taken: set[str] = set()
    for vbd in work.metadata.of_class("VBD"):
        if vbd.get("VM") == vm.id:
            _take_vbd(work, vm, vbd, taken)
    taken = set()
    for vif in work.metadata.of_class("VIF"):
        if vif.get("VM") == vm.id:
            network = _network_for(work, vif.get("network"))
            fields = vif_fields(vif, taken, restore=work.wanted.restore)
            work.create.append(("VIF", new_ref(), {**fields, "VM": work.vms[vm.id], "network": network}))


def _take_vbd(work: _Import, vm: Object, vbd: Object, taken: set[str]) -> None:
    id_, is_cd = vbd.get("VDI"), vbd.get("type") == "CD"
    vdi = work.vdis.get(id_) or (_medium_that_is_here(work, id_) if is_cd else None)
    if vdi is None and not is_cd:
        return  # a disk that is an ISO image, or is not here and need not be
    fields = vbd_fields(vbd, taken)
    place = {"VM": work.vms[vm.id], "VDI": vdi or NULL_REF, "empty": vdi is None}
    work.create.append(("VBD", new_ref(), {**fields, **place}))


def _network_for(work: _Import, id_: str) -> str:
    """One of the same name, or of the same bridge, or a new one."""
    if id_ == NULL_REF:
        return NULL_REF
    if id_ not in work.networks:
        network = work.metadata.need("network", id_)
        same = work.db.by_name_label("network", network.get("name_label"))
        same += [ref for ref, _ in work.db.where("network", bridge=network.get("bridge"))]
        if same:
            work.networks[id_] = same[0]
        else:
            work.networks[id_] = ref = new_ref()
            work.create.append(("network", ref, network_fields(network, f"gs{uuid4().hex[:10]}")))
    return work.networks[id_]
