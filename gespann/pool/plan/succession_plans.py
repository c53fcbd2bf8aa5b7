"""The plan by which a pool gets another coordinator, both hosts being there to agree."""

from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.host_plans import coordinator_of
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import is_live
from gespann.seams.xenapi.errors import XenApiError


@operation("pool.designate_new_master")
def plan_designate(db: Database, host: str, next_epoch: int) -> Plan:
    """HOST_OFFLINE for one that does not answer."""
    record = db.get("host", host)
    if not is_live(db, host):
        raise XenApiError("HOST_OFFLINE", [host])
    if host == coordinator_of(db):
        raise XenApiError("OPERATION_NOT_ALLOWED", ["The host is the pool's coordinator already"])
    ((pool, fields),) = db.all("pool").items()
    common: dict[str, Any] = {"host": host, "pool_uuid": fields["uuid"], "epoch": next_epoch}
    acts = (
        Act("handover-copy", common),
        Act("handover-decide", {**common, "address": record["address"]}),
        Act("handover-follow", {**common, "address": record["address"]}),
    )
    return Plan("pool.designate_new_master", acts, (Lock("pool", pool), Lock("host", host)))
