"""What has changed between two VDIs of which that is tracked."""

from dataclasses import dataclass

from gespann.pool.model import kept_changes
from gespann.pool.model.database import Database
from gespann.pool.model.kept_changes import Hop
from gespann.pool.plan.disk_plans import closing, open_by_pool
from gespann.pool.plan.legal_moves import Capabilities, assert_vdi, vdi_in_use
from gespann.pool.plan.lineage import lineage, with_volumes
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.xenapi.errors import XenApiError

TRACKED_TYPES = ("user", "system")
CHANGES_UNKNOWN = "SR_BACKEND_FAILURE_460"


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
    way = _way(db, older, newer, capabilities)
    acts: list[Act] = []
    if way.asked is not None:
        one, other = (db.get("VDI", vdi) for vdi in way.asked)
        uuids = {"older_uuid": one["uuid"], "newer_uuid": other["uuid"]}
        if one["SR"] == other["SR"]:
            args = {"sr": one["SR"], "vdi": way.asked[1], **uuids, "size_bytes": other["virtual_size"]}
            acts.append(Act("volume-changes", args))
    return Plan("VDI.list_changed_blocks", (*acts, *way.joining), way.locks)


@operation("VDI.compare")
def plan_compare(db: Database, older: str, newer: str, capabilities: Capabilities, prefix: str) -> Plan:
    """``memory["changed"]`` gets the bits: a host reads what the storage could not tell of."""
    way = _way(db, older, newer, capabilities)
    sides = way.asked or (older, newer)
    records = [db.get("VDI", vdi) for vdi in sides]
    hosts = [host for host in attached_hosts(db, records[0]["SR"]) if host in attached_hosts(db, records[1]["SR"])]
    if not hosts:
        raise XenApiError("HOST_CANNOT_SEE_SR", [records[1]["SR"]])
    opened = [
        open_by_pool(record["SR"], vdi, record["uuid"], "RO", prefix)
        for vdi, record in zip(sides, records, strict=True)
    ]
    read = {"older": opened[0].args["opening_id"], "newer": opened[1].args["opening_id"]}
    compared = Act("image-compare", {"host": hosts[0], **read})
    return Plan("VDI.compare", (*opened, compared, *(closing(act) for act in opened), *way.joining), way.locks)


@dataclass(frozen=True)
class _Way:
    """``asked``: the two of which storage or contents must tell; none: what the pool keeps is enough. ``joining``: adds
    what the pool keeps."""

    asked: tuple[str, str] | None
    joining: tuple[Act, ...]
    locks: tuple[Lock, ...]


def _way(db: Database, older: str, newer: str, capabilities: Capabilities) -> _Way:
    for vdi in (older, newer):
        assert_vdi(db, vdi, "list_changed_blocks", capabilities)
        if not db.get("VDI", vdi)["cbt_enabled"]:
            raise XenApiError("VDI_NO_CBT_METADATA", [vdi])
    hops = _hops(db, older, newer)
    asked = next(((hop.older, hop.newer) for hop in hops if not hop.kept), None)
    here = {db.get("VDI", ref)["uuid"]: ref for ref in db.get("SR", db.get("VDI", newer)["SR"])["VDIs"]}
    here |= {db.get("VDI", vdi)["uuid"]: vdi for vdi in (older, newer)}
    kept = [[hop.older, hop.newer] for hop in hops if hop.kept]
    joined = {"kept": kept, "asked": asked is not None, "size_bytes": db.get("VDI", newer)["virtual_size"]}
    held = [here[uuid] for hop in hops for uuid in (hop.older, hop.newer) if uuid in here]
    locks = tuple(Lock("VDI", vdi, "list_changed_blocks", shared=True) for vdi in dict.fromkeys((older, newer, *held)))
    joining = (Act("changes-join", joined),) if kept or not asked else ()
    return _Way((here[asked[0]], here[asked[1]]) if asked else None, joining, locks)


def _hops(db: Database, older: str, newer: str) -> list[Hop]:
    one, other = db.get("VDI", older), db.get("VDI", newer)
    gone = kept_changes.dataless(db)
    if one["uuid"] not in gone and other["uuid"] not in gone:
        return [Hop(one["uuid"], other["uuid"], False)]
    hops = None
    if lineage(one) == lineage(other) and one["SR"] == other["SR"]:
        usable = [db.get("VDI", ref)["uuid"] for ref in with_volumes(db, newer) if not vdi_in_use(db, ref)]
        hops = kept_changes.way(db, one["uuid"], other["uuid"], usable)
    if hops is None:
        text = "Failed to calculate changed blocks for given VDIs."
        raise XenApiError(CHANGES_UNKNOWN, ["", text, "the data of one is gone, and nothing that ties it to the other"])
    return hops
