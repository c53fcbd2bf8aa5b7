"""Plans for VDIs: made, copied, grown, taken away."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from gespann.pool.model.database import Database, new_ref
from gespann.pool.plan.legal_moves import METADATA_TYPE, Capabilities, assert_sr, assert_vdi
from gespann.pool.plan.lineage import keeping_before_destroy
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts, peek
from gespann.pool.steps.openings import start_of
from gespann.seams.sr_driver import VolumeSpec
from gespann.seams.xenapi.errors import XenApiError

SIZE_LIMIT_BYTES = 1 << 62  # what no storage has; the rest is for the driver to judge
#: fields of a VDI that a copy takes over
KEPT_BY_COPY = ("name_label", "name_description", "type", "other_config", "xenstore_data", "tags")


@dataclass(frozen=True)
class NewDisk:
    """A VDI to be: ``acts`` make its volume, ``record`` is for ``records-write``."""

    ref: str
    uuid: str
    acts: tuple[Act, ...]
    record: tuple[str, str, dict[str, Any]]


def assert_size(size_bytes: int) -> None:
    if size_bytes > SIZE_LIMIT_BYTES:
        raise XenApiError("INVALID_VALUE", ["virtual_size", str(size_bytes)])


def spec_of(vdi: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """The VolumeSpec (JSON) of a VDI record."""
    spec = VolumeSpec(
        vdi_uuid=vdi["uuid"],
        size_bytes=vdi["virtual_size"],
        name_label=vdi["name_label"],
        name_description=vdi["name_description"],
        vdi_type=vdi["type"],
        read_only=vdi["read_only"],
        sharable=vdi["sharable"],
        sm_config=vdi["sm_config"],
    )
    return {**asdict(spec), **changed}


def new_disk(sr: str, wanted: Mapping[str, Any]) -> NewDisk:
    """``wanted``: fields of a VDI record."""
    assert_size(wanted["virtual_size"])
    uuid, ref = str(uuid4()), new_ref()
    spec = spec_of({**wanted, "uuid": uuid})
    record = {**wanted, "SR": sr, "uuid": uuid, "managed": True, "volume": uuid}
    return NewDisk(ref, uuid, (Act("volume-create", {"sr": sr, "spec": spec}),), ("VDI", ref, record))


def cloned_disk(db: Database, vdi: str, capabilities: Capabilities, operation_name: str, **changed: Any) -> NewDisk:
    """A copy made by the storage itself, in the same SR."""
    source = db.get("VDI", vdi)
    sr = source["SR"]
    if "VDI_CLONE" not in capabilities(db.get("SR", sr)["type"]):
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [sr])
    assert_vdi(db, vdi, operation_name, capabilities)
    uuid, ref = str(uuid4()), new_ref()
    kept = {name: source[name] for name in KEPT_BY_COPY} | changed
    sm_config = {key: value for key, value in source["sm_config"].items() if key != "snapshot-of"}
    spec = spec_of({**source, **kept, "uuid": uuid, "read_only": False, "sm_config": sm_config})
    act = Act("volume-clone", {"sr": sr, "source": vdi, "source_uuid": source["uuid"], "spec": spec})
    record = {**kept, "SR": sr, "uuid": uuid, "managed": True, "sharable": source["sharable"], "volume": uuid}
    return NewDisk(ref, uuid, (act,), ("VDI", ref, record))


def streamed_disk(db: Database, vdi: str, sr: str, capabilities: Capabilities, prefix: str, **changed: Any) -> NewDisk:
    """A copy into another SR: both volumes are opened on a host that sees both, and the host copies."""
    source = db.get("VDI", vdi)
    assert_vdi(db, vdi, "copy", capabilities)
    assert_sr(db, sr, "vdi_create", capabilities)
    hosts = [host for host in attached_hosts(db, source["SR"]) if host in attached_hosts(db, sr)]
    if not hosts:
        raise XenApiError("HOST_CANNOT_SEE_SR", [sr])
    kept = {name: source[name] for name in KEPT_BY_COPY} | changed
    sm_config = {key: value for key, value in source["sm_config"].items() if key == "allocation"}
    new = new_disk(
        sr,
        {**kept, "virtual_size": source["virtual_size"], "sharable": False, "read_only": False, "sm_config": sm_config},
    )
    read = open_by_pool(source["SR"], vdi, source["uuid"], "RO", prefix)
    write = open_by_pool(sr, new.ref, new.uuid, "RW", prefix)
    sides = {"host": hosts[0], "source": read.args["opening_id"], "target": write.args["opening_id"]}
    acts = (*new.acts, read, write, Act("image-copy", sides), closing(read), closing(write))
    return NewDisk(new.ref, new.uuid, acts, new.record)


def open_by_pool(sr: str, vdi: str, vdi_uuid: str, mode: str, prefix: str) -> Act:
    """An opening for one use by the pool itself."""
    nonce = uuid4().hex[:16]
    return Act(
        "volume-open",
        {
            "sr": sr,
            "vdi": vdi,
            "vdi_uuid": vdi_uuid,
            "opening_id": f"pool-{nonce}",
            "initiator": f"{prefix}:pool-{nonce}",
            "mode": mode,
            "vm": "",
            "vbd": "",
        },
    )


def closing(opened: Act) -> Act:
    return Act("volume-close", {key: opened.args[key] for key in ("sr", "vdi_uuid", "opening_id")})


def _write(*disks: NewDisk) -> Act:
    return Act("records-write", {"create": [disk.record for disk in disks]})


@operation("VDI.create")
def plan_create(db: Database, fields: Mapping[str, Any], capabilities: Capabilities) -> Plan:
    sr = fields["SR"]
    assert_sr(db, sr, "vdi_create", capabilities)
    disk = new_disk(sr, fields)
    lock = Lock("SR", sr, "vdi_create", shared=True)
    return Plan("VDI.create", (*disk.acts, _write(disk)), (lock,), result=disk.ref)


@operation("VDI.destroy")
def plan_destroy(db: Database, vdi: str, capabilities: Capabilities) -> Plan:
    assert_vdi(db, vdi, "destroy", capabilities)
    record = db.get("VDI", vdi)
    act = Act("volume-destroy", {"sr": record["SR"], "vdi": vdi, "vdi_uuid": record["uuid"]})
    keeping, held = keeping_before_destroy(db, vdi)
    locks = (Lock("VDI", vdi, "destroy"), Lock("SR", record["SR"], "vdi_destroy", shared=True), *held)
    return Plan("VDI.destroy", (*keeping, act), locks)


@operation("VDI.clone")
def plan_clone(db: Database, vdi: str, capabilities: Capabilities) -> Plan:
    disk = cloned_disk(db, vdi, capabilities, "clone")
    sr = db.get("VDI", vdi)["SR"]
    locks = (Lock("VDI", vdi, "clone", shared=True), Lock("SR", sr, "vdi_clone", shared=True))
    return Plan("VDI.clone", (*disk.acts, _write(disk)), locks, result=disk.ref)


@operation("VDI.resize")
def plan_resize(db: Database, vdi: str, size_bytes: int, capabilities: Capabilities, *, online: bool) -> Plan:
    assert_vdi(db, vdi, "resize_online" if online else "resize", capabilities)
    assert_size(size_bytes)
    record = db.get("VDI", vdi)
    args = {"sr": record["SR"], "vdi": vdi, "vdi_uuid": record["uuid"], "size_bytes": size_bytes}
    acts = [Act("volume-resize", args)]
    for ref in record["VBDs"]:
        vbd = db.get("VBD", ref)
        vm = peek(db, "VM", vbd["VM"])
        start = start_of(db, vbd["VM"])
        if vbd["currently_attached"] and vm is not None and start is not None:
            device = {"host": start.host, "vm_uuid": vm["uuid"], "vdi": vdi, "device": int(vbd["userdevice"])}
            acts.append(Act("disk-grow", device))
    name = "resize_online" if online else "resize"
    locks = (Lock("VDI", vdi, name), Lock("SR", record["SR"], f"vdi_{name}", shared=True))
    return Plan("VDI.resize", tuple(acts), locks)


@operation("VDI.update")
def plan_update(db: Database, vdi: str, fields: Mapping[str, Any], capabilities: Capabilities) -> Plan:
    """``fields`` of the record that the storage keeps too: name_label, name_description, sm_config, ..."""
    assert_vdi(db, vdi, "update", capabilities)
    record = db.get("VDI", vdi)
    args = {
        "sr": record["SR"],
        "vdi": vdi,
        "spec": spec_of({**record, **fields}),
        "old": spec_of(record),
        "fields": dict(fields),
    }
    locks = (Lock("VDI", vdi, "update"), Lock("SR", record["SR"], "vdi_update", shared=True))
    return Plan("VDI.update", (Act("volume-update", args),), locks)


@operation("VDI.import")
def plan_import(db: Database, vdi: str, prefix: str) -> Plan:
    """The body of a request goes into the volume; ``memory["body"]`` holds it."""
    return _stream(db, vdi, prefix, "VDI.import", "image-fill", "RW")


@operation("VDI.export")
def plan_export(db: Database, vdi: str, prefix: str) -> Plan:
    """The volume goes into ``memory["sink"]``."""
    return _stream(db, vdi, prefix, "VDI.export", "image-read", "RO")


@operation("VDI.serve")
def plan_serve(db: Database, vdi: str, prefix: str) -> Plan:
    """The volume is read by others: ``memory["serve"]`` gets the path of a socket that speaks NBD, and returns when
    nobody needs it any more."""
    return _stream(db, vdi, prefix, "VDI.serve", "image-serve", "RO")


def assert_streamable(db: Database, vdi: str, mode: str, doing: str) -> str:
    """A host that can read it, or (RW) write it, since nobody has it plugged."""
    record = db.get("VDI", vdi)
    hosts = attached_hosts(db, record["SR"])
    if not hosts:
        raise XenApiError("SR_NOT_ATTACHED", [record["SR"]])
    if record["type"] == METADATA_TYPE:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [vdi, METADATA_TYPE])
    if mode == "RW" and record["read_only"]:
        raise XenApiError("VDI_READONLY", [vdi])
    if any(db.get("VBD", vbd)["currently_attached"] for vbd in record["VBDs"]):
        raise XenApiError("VDI_IN_USE", [vdi, doing])
    return hosts[0]


def _stream(db: Database, vdi: str, prefix: str, name: str, step: str, mode: str) -> Plan:
    host = assert_streamable(db, vdi, mode, name.split(".")[1])
    record = db.get("VDI", vdi)
    opened = open_by_pool(record["SR"], vdi, record["uuid"], mode, prefix)
    args = {
        "host": host,
        "opening_id": opened.args["opening_id"],
        "vdi": vdi,
        "size_bytes": record["virtual_size"],
    }
    lock = Lock("VDI", vdi, "copy", shared=mode == "RO")
    return Plan(name, (opened, Act(step, args), closing(opened)), (lock,))


@operation("VDI.forget")
def plan_forget(db: Database, vdi: str, capabilities: Capabilities) -> Plan:
    """The record goes, the volume stays."""
    assert_vdi(db, vdi, "forget", capabilities)
    record = db.get("VDI", vdi)
    gone = [("VBD", vbd) for vbd in record["VBDs"]] + [("VDI", vdi)]
    return Plan("VDI.forget", (Act("records-write", {"destroy": gone}),), (Lock("VDI", vdi, "forget"),))
