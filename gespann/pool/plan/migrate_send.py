"""What VM.migrate_send is asked for, held to what this pool does: a VM goes to another host of the pool, its disks to
other SRs of the pool, or both."""

from collections.abc import Mapping
from dataclasses import dataclass

from gespann.pool.model.database import Database
from gespann.pool.plan.legal_moves import HALTED, PAUSED, RUNNING, assert_vm
from gespann.pool.plan.move_plans import VM_DOING
from gespann.pool.plan.placement import obstacle
from gespann.pool.plan.storage_view import attached_hosts, disks_of, is_live, peek
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

#: of what ``host.migrate_receive`` answers
HOST_KEY = "host"


@dataclass(frozen=True)
class Wanted:
    """``host``: where it is to run, "" if that is where it does or if it does not run. ``disks``: VDI -> SR, of those
    that are to go elsewhere."""

    host: str
    disks: dict[str, str]


def wanted_of(
    db: Database,
    vm: str,
    dest: Mapping[str, str],
    live: bool,
    vdi_map: Mapping[str, str],
    vif_map: Mapping[str, str],
    options: Mapping[str, str],
) -> Wanted:
    """Refuses what could not be begun now."""
    assert_vm(db, vm, VM_DOING)
    host = _host(db, dest)
    record = db.get("VM", vm)
    if record["power_state"] != HALTED and not live:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "halted", record["power_state"].lower()])
    if options.get("copy", "false") == "true":
        raise XenApiError(
            "OPERATION_NOT_ALLOWED", ["A VM is not copied by migration within one pool: VM.copy does that"]
        )
    for vif, network in vif_map.items():
        if db.get("VIF", vif)["network"] != network:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["Interfaces stay on their networks: VIF.move does that"])
    disks = _disks(db, vm, vdi_map)
    for sr in set(disks.values()):
        if host not in attached_hosts(db, sr):
            raise XenApiError("HOST_CANNOT_SEE_SR", [host, sr])
    moves = record["power_state"] in (RUNNING, PAUSED) and host != record["resident_on"]
    if moves:
        assert_vm(db, vm, "pool_migrate")
        why = obstacle(db, vm, host, leaving=frozenset(disks))
        if why is not None:
            raise why
    return Wanted(host if moves else "", disks)


def _host(db: Database, dest: Mapping[str, str]) -> str:
    """A host of this pool that answers."""
    host = dest.get(HOST_KEY, "")
    if peek(db, "host", host) is None:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["VMs migrate to hosts of their own pool only"])
    if not is_live(db, host):
        raise XenApiError("HOST_OFFLINE", [host])
    return host


def _disks(db: Database, vm: str, vdi_map: Mapping[str, str]) -> dict[str, str]:
    """Clients name the disks of the VM's snapshots too; those stay where they are, as ``VDI.pool_migrate`` leaves
    them."""
    own = {vbd["VDI"] for _, vbd in disks_of(db, vm) if vbd["type"] == "Disk"} - {NULL_REF}
    snapshots = {vbd["VDI"] for one in db.get("VM", vm)["snapshots"] for _, vbd in disks_of(db, one)}
    disks: dict[str, str] = {}
    for vdi, sr in vdi_map.items():
        db.get("SR", sr)
        if vdi in own and db.get("VDI", vdi)["SR"] != sr:
            disks[vdi] = sr
        elif vdi not in own | snapshots:
            raise XenApiError("INVALID_VALUE", ["vdi_map", vdi])
    return disks
