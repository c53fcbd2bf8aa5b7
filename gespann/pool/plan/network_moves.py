"""The plan for a VIF that goes to another network, also while its guest uses it."""

from gespann.pool.model.database import Database
from gespann.pool.plan.domain_spec import locking_shape, nic_shape
from gespann.pool.plan.legal_moves import other_operation
from gespann.pool.plan.reachable_networks import assert_reachable
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.steps.openings import start_of
from gespann.seams.xenapi.errors import XenApiError


@operation("VIF.move")
def plan_move(db: Database, vif: str, network: str) -> Plan:
    """A machine that runs keeps its NIC, and finds itself at another bridge. VM_REQUIRES_NETWORK: nothing can be
    plugged into that network."""
    record = db.get("VIF", vif)
    other_operation("VIF", vif, record)
    if db.get("VM", record["VM"])["is_a_snapshot"]:
        raise XenApiError("VM_IS_SNAPSHOT", [record["VM"], "move"])
    there = db.get("network", network)
    if not there["managed"]:
        raise XenApiError("VM_REQUIRES_NETWORK", [record["VM"], network])
    start = start_of(db, record["VM"])
    locks = (Lock("VIF", vif), Lock("VM", record["VM"], shared=True))
    if start is None or not record["currently_attached"]:
        return Plan("VIF.move", (Act("records-write", {"set": [("VIF", vif, {"network": network})]}),), locks)
    assert_reachable(db, start.host, network)
    before = nic_shape(db, vif)
    after = {**before, "bridge": there["bridge"], "mtu": record["MTU"] or there["MTU"], **locking_shape(record, there)}
    args = {"host": start.host, "vm_uuid": db.get("VM", record["VM"])["uuid"], "vif": vif, "network": network}
    acts = (
        Act("bridge-ready", {"host": start.host, "bridge": after["bridge"], "mtu": after["mtu"]}),
        Act("nic-move", {**args, "nic": after, "before": before, "network_before": record["network"]}),
    )
    return Plan("VIF.move", acts, locks)
