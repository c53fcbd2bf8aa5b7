"""What VMs of a host have on networks whose cards go to another network with a bond, or come back from one."""

from gespann.pool.model.database import Database
from gespann.pool.plan.domain_spec import locking_shape, nic_shape
from gespann.pool.plan.shapes import Act
from gespann.pool.steps.openings import start_of
from gespann.seams.xenapi.errors import XenApiError


def moved_networks(db: Database, host: str, networks: list[str], network: str) -> tuple[list[Act], list[Act]]:
    """(acts before the change, acts after it). Interfaces that are in use there follow, and keep running; in a pool of
    one host so do those that are not in use: nobody else would connect them. VIF_IN_USE if the network that they would
    go to has no bridge."""
    there, moves, loose = db.get("network", network), [], []
    for old in dict.fromkeys(networks):
        for vif in db.get("network", old)["VIFs"]:
            record = db.get("VIF", vif)
            start = start_of(db, record["VM"]) if record["currently_attached"] else None
            if start is not None and start.host == host:
                if not there["managed"]:
                    raise XenApiError("VIF_IN_USE", [old, vif])
                moves.append(_move(db, host, vif, network))
            elif start is None and len(db.all("host")) == 1 and there["managed"]:
                loose.append(("VIF", vif, {"network": network}))
    ready = [Act("bridge-ready", {"host": host, "bridge": there["bridge"], "mtu": there["MTU"]})] if moves else []
    return [*ready, *moves], [Act("records-write", {"set": loose})] if loose else []


def _move(db: Database, host: str, vif: str, network: str) -> Act:
    record, there, before = db.get("VIF", vif), db.get("network", network), nic_shape(db, vif)
    after = {**before, "bridge": there["bridge"], "mtu": record["MTU"] or there["MTU"], **locking_shape(record, there)}
    vm_uuid = db.get("VM", record["VM"])["uuid"]
    args = {"host": host, "vm_uuid": vm_uuid, "vif": vif, "network": network, "nic": after, "before": before}
    args["network_before"] = record["network"]
    return Act("nic-move", args)
