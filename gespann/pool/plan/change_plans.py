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
def plan_list_changed_blocks(db: Database, older: str, newer: str, capabilities: Capabilities, prefix: str) -> Plan:
    """``memory["changed"]`` gets the bits."""
    hosts: list[str] = []
    for vdi in (older, newer):
        assert_vdi(db, vdi, "list_changed_blocks", capabilities)
        record = db.get("VDI", vdi)
        if not record["cbt_enabled"]:
            raise XenApiError("VDI_NO_CBT_METADATA", [vdi])
        seeing = attached_hosts(db, record["SR"])
        hosts = [host for host in hosts if host in seeing] if vdi != older else seeing
    if not hosts:
        raise XenApiError("HOST_CANNOT_SEE_SR", [db.get("VDI", newer)["SR"]])
    records = [db.get("VDI", vdi) for vdi in (older, newer)]
    opened = [
        open_by_pool(record["SR"], vdi, record["uuid"], "RO", prefix)
        for vdi, record in zip((older, newer), records, strict=True)
    ]
    sides = {"older": opened[0].args["opening_id"], "newer": opened[1].args["opening_id"]}
    acts = (*opened, Act("image-compare", {"host": hosts[0], **sides}), *(closing(act) for act in opened))
    locks = tuple(Lock("VDI", vdi, "list_changed_blocks", shared=True) for vdi in dict.fromkeys((older, newer)))
    return Plan("VDI.list_changed_blocks", acts, locks)
