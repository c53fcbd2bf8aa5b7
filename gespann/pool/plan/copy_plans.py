"""Plans that copy a VDI: whole or only what differs from another, into a new one or into one that is there."""

from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import NewDisk, cloned_disk, closing, new_disk, open_by_pool, streamed_disk
from gespann.pool.plan.legal_moves import Capabilities, assert_sr, assert_vdi
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


@operation("VDI.copy")
def plan_copy(db: Database, vdi: str, sr: str, base: str, capabilities: Capabilities, prefix: str) -> Plan:
    """Into a new VDI. ``sr`` null: of the same SR; ``base`` null: all of it."""
    own = db.get("VDI", vdi)["SR"]
    sr = own if sr == NULL_REF else sr
    db.get("SR", sr)
    locks = [Lock("VDI", vdi, "copy", shared=True), Lock("SR", own, "vdi_copy", shared=True)]
    if sr != own:
        locks.append(Lock("SR", sr, "vdi_create", shared=True))
    if base != NULL_REF:
        disk = _differences_disk(db, vdi, base, sr, capabilities, prefix)
        locks.append(Lock("VDI", base, "copy", shared=True))
    elif sr == own and "VDI_CLONE" in capabilities(db.get("SR", own)["type"]):
        disk = cloned_disk(db, vdi, capabilities, "copy")
    else:
        disk = streamed_disk(db, vdi, sr, capabilities, prefix)
    written = Act("records-write", {"create": [disk.record]})
    return Plan("VDI.copy", (*disk.acts, written), tuple(locks), result=disk.ref)


def _differences_disk(db: Database, vdi: str, base: str, sr: str, capabilities: Capabilities, prefix: str) -> NewDisk:
    assert_sr(db, sr, "vdi_create", capabilities)
    source = db.get("VDI", vdi)
    wanted = {name: source[name] for name in ("name_label", "name_description", "type", "virtual_size")}
    new = new_disk(sr, {**wanted, "sharable": False, "read_only": False, "sm_config": {}})
    write = open_by_pool(sr, new.ref, new.uuid, "RW", prefix)
    copying = _copying(db, vdi, base, sr, write, capabilities, prefix)
    return NewDisk(new.ref, new.uuid, (*new.acts, *copying), new.record)


@operation("VDI.copy_into")
def plan_copy_into(db: Database, vdi: str, into: str, base: str, capabilities: Capabilities, prefix: str) -> Plan:
    """The target keeps its name, its users and what is behind the end of the source. ``base`` may be null. Cut short,
    the target holds some of both."""
    target, source = db.get("VDI", into), db.get("VDI", vdi)
    if into in (vdi, base):
        raise XenApiError("INVALID_VALUE", ["into_vdi", into])
    assert_vdi(db, into, "copy", capabilities)
    if target["read_only"] or target["is_a_snapshot"]:
        raise XenApiError("VDI_READONLY", [into])
    if target["virtual_size"] < source["virtual_size"]:
        raise XenApiError("VDI_TOO_SMALL", [into, str(source["virtual_size"])])
    if target["current_operations"]:
        operation_id, doing = next(iter(target["current_operations"].items()))
        raise XenApiError("OTHER_OPERATION_IN_PROGRESS", ["VDI", into, doing, operation_id])
    sr = target["SR"]
    write = open_by_pool(sr, into, target["uuid"], "RW", prefix)
    acts = _copying(db, vdi, base, sr, write, capabilities, prefix)
    locks = [Lock("VDI", vdi, "copy", shared=True), Lock("VDI", into, "copy")]
    locks += [Lock("VDI", base, "copy", shared=True)] if base != NULL_REF else []
    return Plan("VDI.copy_into", tuple(acts), tuple(locks), result=into)


def _copying(
    db: Database, vdi: str, base: str, sr: str, write: Act, capabilities: Capabilities, prefix: str
) -> list[Act]:
    """Opens what is read, moves the bytes, closes everything."""
    sources = [vdi] if base in (NULL_REF, vdi) else [vdi, base]
    hosts = attached_hosts(db, sr)
    for source in sources:
        assert_vdi(db, source, "copy", capabilities)
        hosts = [host for host in hosts if host in attached_hosts(db, db.get("VDI", source)["SR"])]
    if not hosts:
        raise XenApiError("HOST_CANNOT_SEE_SR", [sr])
    if base == vdi:
        raise XenApiError("INVALID_VALUE", ["base_vdi", base])
    records = [db.get("VDI", source) for source in sources]
    reads = [open_by_pool(r["SR"], ref, r["uuid"], "RO", prefix) for ref, r in zip(sources, records, strict=True)]
    sides = {"host": hosts[0], "source": reads[0].args["opening_id"], "target": write.args["opening_id"]}
    if base == NULL_REF:
        moving = Act("image-copy", sides)
    else:
        moving = Act("image-copy-differences", {**sides, "base": reads[1].args["opening_id"]})
    opened = [*reads, write]
    return [*opened, moving, *(closing(act) for act in opened)]
