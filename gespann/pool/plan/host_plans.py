"""Plans for hosts that come and go.

stranger ──pool.join──► member ──pool.eject──► stranger
                          └─────host.destroy──► (a host that is gone for good)
"""

from collections.abc import Mapping
from typing import Any

from gespann.pool.model.database import Database, Transaction, new_ref
from gespann.pool.plan.repository_plans import secrets_of_sr
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import is_live, peek
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def coordinator_of(db: Database) -> str:
    return str(next(iter(db.all("pool").values()))["master"])


def _shared_srs(db: Database) -> dict[str, Mapping[str, Any]]:
    """SRs that every host gets a connection to -> one of the connections there are."""
    found = {}
    for sr, record in db.all("SR").items():
        if record["shared"] and record["PBDs"]:
            found[sr] = db.get("PBD", record["PBDs"][0])
    return found


@operation("pool.add_host")
def plan_add_host(db: Database, pool_uuid: str, door: Mapping[str, Any], fields: Mapping[str, Any]) -> Plan:
    """``door``: HostDoor as JSON. ``fields``: of the host's record, with its uuid. The result is the host."""
    for record in db.all("host").values():
        if record["uuid"] == fields["uuid"]:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["The host is a member of this pool already"])
    host, metrics = new_ref(), new_ref()
    shared = _shared_srs(db)
    pbds = {sr: new_ref() for sr in shared}

    def prepare(tx: Transaction) -> None:
        tx.create("host_metrics", {}, metrics)
        tx.create("host", {**fields, "metrics": metrics, "enabled": False}, host)
        for sr, pbd in pbds.items():
            tx.create("PBD", {"SR": sr, "host": host, "device_config": dict(shared[sr]["device_config"])}, pbd)

    made = [("PBD", pbd) for pbd in pbds.values()] + [("host", host), ("host_metrics", metrics)]
    plugged = [sr for sr, pbd in shared.items() if pbd["currently_attached"]]
    acts = (
        Act("records-own", {"destroy": made}),
        Act("host-link", {"host": host, "door": dict(door)}),
        Act("host-greet", {"host": host, "host_uuid": fields["uuid"]}),
        *(Act("repository-attach", {"sr": sr, "pbd": pbds[sr]}) for sr in plugged),
        Act("host-adopt", {"host": host, "pool_uuid": pool_uuid}),
    )
    locks = (Lock("host", host), *(Lock("SR", sr, shared=True) for sr in plugged))
    return Plan("pool.add_host", acts, locks, prepare=prepare, result=host)


def _assert_may_go(db: Database, host: str) -> None:
    record = db.get("host", host)
    if host == coordinator_of(db):
        raise XenApiError("HOST_CANNOT_DESTROY_SELF", [host])
    resident = [vm for vm in record["resident_VMs"] if not db.get("VM", vm)["is_control_domain"]]
    scheduled = [vm for vm, of in db.all("VM").items() if of["scheduled_to_be_resident_on"] == host]
    if resident or scheduled:
        raise XenApiError("HOST_HAS_RESIDENT_VMS", [host])


def _records_of(db: Database, host: str) -> list[tuple[str, str]]:
    """All that goes with a host: its connections, the SRs that nobody else has, its interfaces."""
    record = db.get("host", host)
    gone: list[tuple[str, str]] = []
    for pbd in record["PBDs"]:
        sr = db.get("PBD", pbd)["SR"]
        if all(db.get("PBD", other)["host"] == host for other in db.get("SR", sr)["PBDs"]):
            vdis = db.get("SR", sr)["VDIs"]
            gone += [("VBD", vbd) for vdi in vdis for vbd in db.get("VDI", vdi)["VBDs"]]
            gone += [*(("VDI", vdi) for vdi in vdis), *secrets_of_sr(db, sr, pbd), ("PBD", pbd), ("SR", sr)]
        else:
            gone.append(("PBD", pbd))
    for pif in record["PIFs"]:
        shown = db.get("PIF", pif)
        gone += [("VLAN", shown["VLAN_master_of"])] if peek(db, "VLAN", shown["VLAN_master_of"]) else []
        gone += [("PIF_metrics", shown["metrics"]), ("PIF", pif)]
    gone += [("host_cpu", cpu) for cpu in record["host_CPUs"]]
    return [*gone, ("host_metrics", record["metrics"]), ("host", host)]


def _unset(db: Database, host: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [("VM", vm, {"affinity": NULL_REF}) for vm, record in db.all("VM").items() if record["affinity"] == host]


@operation("pool.eject")
def plan_eject(db: Database, host: str, pool_uuid: str) -> Plan:
    """The host must be there to be told: it begins a pool of its own. For one that is gone: ``plan_destroy``."""
    _assert_may_go(db, host)
    acts = (
        Act("host-release", {"host": host, "pool_uuid": pool_uuid}),
        Act("host-forget", {"host": host, "set": _unset(db, host), "destroy": _records_of(db, host)}),
    )
    return Plan("pool.eject", acts, (Lock("host", host),))


@operation("host.destroy")
def plan_destroy(db: Database, host: str) -> Plan:
    """HOST_IS_LIVE for one that answers."""
    _assert_may_go(db, host)
    if is_live(db, host):
        raise XenApiError("HOST_IS_LIVE", [host])
    act = Act("host-forget", {"host": host, "set": _unset(db, host), "destroy": _records_of(db, host)})
    return Plan("host.destroy", (act,), (Lock("host", host),))
