"""Plans for snapshots whose data goes while what has changed can still be told of them.

    data_destroy   the VDI becomes cbt_metadata: nobody can open it any more
    shed_data      as soon as the storage has a later snapshot of the disk: what differs from that one (and from the one
                   before) is kept by the pool, and the volume goes

Until then the volume stays, since only it can tell what will have been written between it and the next snapshot.
"""

from gespann.pool.model import kept_changes
from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import plan_update
from gespann.pool.plan.legal_moves import METADATA_TYPE, Capabilities, assert_vdi
from gespann.pool.plan.lineage import around, lineage, pair, siblings
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.seams.xenapi.errors import XenApiError


@operation("VDI.data_destroy")
def plan_data_destroy(db: Database, vdi: str, capabilities: Capabilities) -> Plan:
    """Its VBDs go."""
    assert_vdi(db, vdi, "data_destroy", capabilities)
    record = db.get("VDI", vdi)
    told = plan_update(db, vdi, {"type": METADATA_TYPE}, capabilities)
    gone = Act("records-write", {"destroy": [("VBD", vbd) for vbd in record["VBDs"]]})
    locks = (Lock("VDI", vdi, "data_destroy"), Lock("SR", record["SR"], "vdi_data_destroy", shared=True))
    return Plan("VDI.data_destroy", (*told.acts, gone), locks)


@operation("VDI.shed_data")
def plan_shed_data(db: Database, vdi: str) -> Plan:
    """OPERATION_NOT_ALLOWED while it is too early. Fails if the storage cannot tell what has changed."""
    record = db.get("VDI", vdi)
    pivots = _pivots_for_shedding(db, vdi)
    if pivots is None:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"Nothing later can tell what has changed: {vdi}"])
    act = {"sr": record["SR"], "vdi": vdi}
    acts = [Act("changes-keep", {**act, **pair(db, vdi, pivot), "required": True}) for pivot in pivots]
    acts.append(Act("volume-shed", {**act, "vdi_uuid": record["uuid"]}))
    locks = [Lock("VDI", vdi, "data_destroy"), *(Lock("VDI", pivot, "list_changed_blocks", True) for pivot in pivots)]
    return Plan("VDI.shed_data", tuple(acts), tuple(locks))


def is_shedding_due(db: Database, vdi: str) -> bool:
    record = db.get("VDI", vdi)
    if record["type"] != METADATA_TYPE or record["missing"] or kept_changes.is_dataless(db, record["uuid"]):
        return False
    return _pivots_for_shedding(db, vdi) is not None


def _pivots_for_shedding(db: Database, vdi: str) -> list[str] | None:
    """None: the disk is still there, and no later snapshot of it."""
    record = db.get("VDI", vdi)
    earlier, later = around(db, vdi, siblings(db, vdi))
    disk_is_there = any(
        not other["is_a_snapshot"] and lineage(other) == lineage(record)
        for other in (db.get("VDI", ref) for ref in db.get("SR", record["SR"])["VDIs"])
    )
    if later is None and disk_is_there:
        return None
    return [pivot for pivot in (earlier, later) if pivot is not None]
