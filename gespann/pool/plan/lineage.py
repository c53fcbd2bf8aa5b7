"""Which VDIs are a disk and its snapshots, and which of them the storage can compare."""

from collections.abc import Mapping
from typing import Any

from gespann.pool.model import kept_changes
from gespann.pool.model.database import Database
from gespann.pool.plan.legal_moves import vdi_in_use
from gespann.pool.plan.shapes import Act, Lock

#: what the storage calls the source of a snapshot: in its sm_config, since ``snapshot_of`` follows the pool's wishes
SOURCE_KEY = "snapshot-of"


def keeping_before_destroy(db: Database, vdi: str) -> tuple[list[Act], list[Lock]]:
    """What is compared by way of this VDI is tied to another, if there is one, before the volume goes."""
    record = db.get("VDI", vdi)
    if kept_changes.is_dataless(db, record["uuid"]) or not kept_changes.neighbours(db, record["uuid"]):
        return [], []
    quiet = [ref for ref in siblings(db, vdi) if not db.get("VDI", ref)["current_operations"]]
    others = [ref for ref in quiet if not vdi_in_use(db, ref)]
    earlier, later = around(db, vdi, others)
    pivot = later or earlier
    if pivot is None:
        return [], []
    act = Act("changes-keep", {"sr": record["SR"], "vdi": vdi, **pair(db, vdi, pivot), "required": False})
    return [act], [Lock("VDI", pivot, "list_changed_blocks", shared=True)]


def lineage(record: Mapping[str, Any]) -> str:
    """The uuid of the disk that it is or is a snapshot of, also after that has gone."""
    return str(record["sm_config"].get(SOURCE_KEY) or record["uuid"])


def with_volumes(db: Database, vdi: str) -> list[str]:
    """This VDI and all others of its lineage that the storage can compare; references."""
    record, gone = db.get("VDI", vdi), kept_changes.dataless(db)
    here = [(ref, db.get("VDI", ref)) for ref in db.get("SR", record["SR"])["VDIs"]]
    ours = [(ref, other) for ref, other in here if lineage(other) == lineage(record)]
    return [ref for ref, other in ours if other["uuid"] not in gone and not other["missing"]]


def siblings(db: Database, vdi: str) -> list[str]:
    """Other snapshots of the same disk that have a volume."""
    return [ref for ref in with_volumes(db, vdi) if ref != vdi and db.get("VDI", ref)["is_a_snapshot"]]


def around(db: Database, vdi: str, others: list[str]) -> tuple[str | None, str | None]:
    """Of ``others`` the last one before it and the first one after it, or of the same second."""

    def taken(ref: str) -> str:
        return str(db.get("VDI", ref)["snapshot_time"])

    earlier = [ref for ref in others if taken(ref) < taken(vdi)]
    later = [ref for ref in others if taken(ref) >= taken(vdi)]
    return max(earlier, key=taken, default=None), min(later, key=taken, default=None)


def pair(db: Database, vdi: str, pivot: str) -> dict[str, Any]:
    """Arguments of the steps that compare the two."""
    one, other = db.get("VDI", vdi), db.get("VDI", pivot)
    older, newer = (one, other) if one["snapshot_time"] <= other["snapshot_time"] else (other, one)
    return {"older_uuid": older["uuid"], "newer_uuid": newer["uuid"], "size_bytes": newer["virtual_size"]}
