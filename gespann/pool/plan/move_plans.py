"""The plan for a VDI that moves to another SR: copied whole, then its users are given the copy, then the old one goes.

volume made ► opened ► bytes copied ► closed ═► VBDs name the copy ► old volume gone
                                      (point of no return)
"""

from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import streamed_disk
from gespann.pool.plan.legal_moves import Capabilities, assert_sr, assert_vdi, holds_memory, vdi_in_use
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.seams.xenapi.errors import XenApiError

#: what the XenAPI calls a VDI's moving, in its current_operations
DOING = "mirror"


@operation("VDI.pool_migrate")
def plan_move(db: Database, vdi: str, sr: str, capabilities: Capabilities, prefix: str) -> Plan:
    """Not while a VM runs with it or is suspended with it: VDI_IN_USE. Its snapshots stay where they are."""
    record = db.get("VDI", vdi)
    if db.get("SR", sr) and sr == record["SR"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["The VDI is on that SR already"])
    if vdi_in_use(db, vdi) or holds_memory(db, vdi):
        raise XenApiError("VDI_IN_USE", [vdi, DOING])
    for why in ("is_a_snapshot", "sharable", "read_only"):
        if record[why]:
            raise XenApiError("OPERATION_NOT_ALLOWED", [f"A VDI that is {why.removeprefix('is_')} is not moved"])
    assert_vdi(db, vdi, "destroy", capabilities)
    assert_sr(db, record["SR"], "vdi_destroy", capabilities)
    disk = streamed_disk(db, vdi, sr, capabilities, prefix)
    old = {"sr": record["SR"], "vdi": vdi, "vdi_uuid": record["uuid"]}
    acts = (*disk.acts, Act("vdi-switch", {"vdi": vdi, "new": disk.record}), Act("volume-destroy", old))
    locks = (
        Lock("VDI", vdi, DOING),
        Lock("SR", record["SR"], "vdi_destroy", shared=True),
        Lock("SR", sr, "vdi_create", shared=True),
    )
    return Plan("VDI.pool_migrate", acts, locks, result=disk.ref)
