"""What has changed between two VDIs of which that is tracked."""

from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import closing, open_by_pool
from gespann.pool.plan.legal_moves import Capabilities, assert_vdi
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.xenapi.errors import XenApiError

TRACKED_TYPES = ("user", "system")


def assert_trackable(db: Database, vdi: str, doing: str, capabilities: Capabilities) -> None:
    """Snapshots have what their source had when they were taken."""
    assert_vdi(db, vdi, doing, capabilities)
    record = db.get("VDI", vdi)
    if record["is_a_snapshot"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"VDI is a snapshot: {vdi}"])
    if record["type"] not in TRACKED_TYPES:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [vdi, record["type"]])
    if record["on_boot"] == "reset":
        raise XenApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", [])


@operation("VDI.list_changed_blocks")
def plan_list_changed_blocks(db: Database, older: str, newer: str, capabilities: Capabilities) -> Plan:
    """``memory["changed"]`` gets the bits, unless the storage cannot tell."""
    _assert_comparable(db, older, newer, capabilities)
    record = db.get("VDI", newer)
    uuids = {"older_uuid": db.get("VDI", older)["uuid"], "newer_uuid": record["uuid"]}
    act = Act("volume-changes", {"sr": record["SR"], "vdi": newer, **uuids, "size_bytes": record["virtual_size"]})
    acts = (act,) if db.get("VDI", older)["SR"] == record["SR"] else ()
    return Plan("VDI.list_changed_blocks", acts, _locks(older, newer))


@operation("VDI.compare")
def plan_compare(db: Database, older: str, newer: str, capabilities: Capabilities, prefix: str) -> Plan:
    """``memory["changed"]`` gets the bits: a host reads both."""
    _assert_comparable(db, older, newer, capabilities)
    hosts = attached_hosts(db, db.get("VDI", older)["SR"])
    hosts = [host for host in hosts if host in attached_hosts(db, db.get("VDI", newer)["SR"])]
    if not hosts:
        raise XenApiError("HOST_CANNOT_SEE_SR", [db.get("VDI", newer)["SR"]])
    records = [db.get("VDI", vdi) for vdi in (older, newer)]
    opened = [
        open_by_pool(record["SR"], vdi, record["uuid"], "RO", prefix)
        for vdi, record in zip((older, newer), records, strict=True)
    ]
    sides = {"older": opened[0].args["opening_id"], "newer": opened[1].args["opening_id"]}
    acts = (*opened, Act("image-compare", {"host": hosts[0], **sides}), *(closing(act) for act in opened))
    return Plan("VDI.compare", acts, _locks(older, newer))


def _assert_comparable(db: Database, older: str, newer: str, capabilities: Capabilities) -> None:
    for vdi in (older, newer):
        assert_vdi(db, vdi, "list_changed_blocks", capabilities)
        if not db.get("VDI", vdi)["cbt_enabled"]:
            raise XenApiError("VDI_NO_CBT_METADATA", [vdi])


def _locks(older: str, newer: str) -> tuple[Lock, ...]:
    return tuple(Lock("VDI", vdi, "list_changed_blocks", shared=True) for vdi in dict.fromkeys((older, newer)))
