"""Plans that give a VM out: its records and its disks, one after the other, as an archive."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gespann.pool.images import ova
from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import closing, open_by_pool
from gespann.pool.plan.legal_moves import SUSPENDED, assert_vm, other_operation
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts, disks_of, peek
from gespann.pool.plan.suspend_plans import OWNER_KEY
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError

#: what an exported VM is not any more
_FRESH = (
    *("snapshot_of", "snapshot_time", "is_a_snapshot", "snapshots", "transportable_snapshot_id", "parent", "children"),
    *("snapshot_metadata", "snapshot_info", "power_state", "suspend_VDI", "domid", "guest_metrics", "blobs"),
)


@dataclass(frozen=True)
class Exported:
    """``disks``: (VDI, its name in the archive), in the order in which they are sent."""

    writer: ova.Writer
    disks: tuple[tuple[str, str], ...]


def gather(db: Database, vms: list[str], *, snapshots: bool = False, memory: bool = False) -> Exported:
    """The VMs and everything that they refer to. ``snapshots``: theirs, too, as records. ``memory``: they are told as
    suspended, if they are, and their memory is among the disks."""
    writer = ova.Writer(db.get)
    disks: dict[str, str] = {}
    for vm in vms:
        _gather_vm(db, writer, vm, disks, snapshots=snapshots)
        if memory:
            _gather_memory(db, writer, vm, disks)
        for snapshot in db.get("VM", vm)["snapshots"] if snapshots else ():
            _gather_vm(db, writer, snapshot, disks, snapshots=True)
    return Exported(writer, tuple(sorted(disks.items(), key=lambda item: item[1])))


def _gather_vm(db: Database, writer: ova.Writer, vm: str, disks: dict[str, str], *, snapshots: bool) -> None:
    fields = datamodel.classes()["VM"].fields
    fresh = {name: fields[name].default for name in _FRESH if not snapshots or name in ("domid", "guest_metrics")}
    writer.add("VM", vm, **fresh)
    for vif in db.get("VM", vm)["VIFs"]:
        writer.add("VIF", vif, currently_attached=False)
        network = db.get("VIF", vif)["network"]
        if peek(db, "network", network) is not None:
            writer.add("network", network)
    for vbd, record in disks_of(db, vm):
        writer.add("VBD", vbd, currently_attached=False)
        vdi = peek(db, "VDI", record["VDI"])
        if vdi is None:
            continue
        name = writer.add("VDI", record["VDI"])
        writer.add("SR", vdi["SR"])
        if record["type"] != "CD" and db.get("SR", vdi["SR"])["content_type"] != "iso":
            disks[record["VDI"]] = name


def _gather_memory(db: Database, writer: ova.Writer, vm: str, disks: dict[str, str]) -> None:
    """A checkpoint is told as the machine that it was: under the uuid that its memory is of. Which devices were plugged
    stands in the image's own record."""
    record = db.get("VM", vm)
    image = peek(db, "VDI", record["suspend_VDI"])
    if record["power_state"] != SUSPENDED:
        return
    if image is None or image["missing"]:
        raise XenApiError("VM_HAS_NO_SUSPEND_VDI", [vm])
    owner = image["other_config"].get(OWNER_KEY, record["uuid"])
    as_it_was = {"is_a_template": False, "uuid": owner} if record["is_a_snapshot"] else {}
    writer.changed[vm] |= {"power_state": SUSPENDED, "suspend_VDI": record["suspend_VDI"], **as_it_was}
    disks[record["suspend_VDI"]] = writer.add("VDI", record["suspend_VDI"])
    writer.add("SR", image["SR"])


@operation("VM.export")
def plan_export(db: Database, vm: str, prefix: str, version: Mapping[str, str], *, preserve: bool = False) -> Plan:
    """``memory["sink"]`` takes the archive, which bears none of the names and references of here but uuids.
    ``preserve``: with the memory of a suspended VM, or of a checkpoint."""
    assert_vm(db, vm, "export")
    exported = gather(db, [vm], memory=preserve)
    acts = [Act("archive-begin", {"xml": exported.writer.xml(version).decode()})]
    locks = [Lock("VM", vm, "export", shared=True)]
    for vdi, name in exported.disks:
        acts += _disk(db, vm, vdi, name, prefix)
        locks.append(Lock("VDI", vdi, "copy", shared=True))
    return Plan("VM.export", (*acts, Act("archive-end")), tuple(locks))


def _disk(db: Database, vm: str, vdi: str, name: str, prefix: str) -> list[Act]:
    """A suspended VM has its disks plugged, and does not write to them."""
    record = db.get("VDI", vdi)
    other_operation("VDI", vdi, record, frozenset({"copy", "clone"}))
    hosts = attached_hosts(db, record["SR"])
    if not hosts:
        raise XenApiError("SR_NOT_ATTACHED", [record["SR"]])
    vbds = [db.get("VBD", vbd) for vbd in record["VBDs"]]
    if any(vbd["currently_attached"] and (vbd["VM"] != vm or not _sleeps(db, vm)) for vbd in vbds):
        raise XenApiError("VDI_IN_USE", [vdi, "export"])
    opened = open_by_pool(record["SR"], vdi, record["uuid"], "RO", prefix)
    sending = Act("archive-disk", {"host": hosts[0], "opening_id": opened.args["opening_id"], "name": name})
    return [opened, sending, closing(opened)]


def _sleeps(db: Database, vm: str) -> bool:
    return bool(db.get("VM", vm)["power_state"] == SUSPENDED)


def vms_for_metadata(db: Database, vm: str | None) -> list[str]:
    """One, or (none) all that somebody has made."""
    if vm is None:
        return [
            ref
            for ref, record in db.all("VM").items()
            if not (record["is_default_template"] or record["is_control_domain"] or record["is_a_snapshot"])
        ]
    if db.get("VM", vm)["is_a_snapshot"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["Exporting metadata of a snapshot is not allowed"])
    assert_vm(db, vm, "metadata_export")
    return [vm]


def version_of(host: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the archive about who made it."""
    software = host["software_version"]
    names = {key: software.get(key, "") for key in ("date", "product_version", "product_brand", "build_number")}
    return {"hostname": host["hostname"], **names}
