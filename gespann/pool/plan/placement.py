"""Chooses the host for a VM, or says why there is none."""

from gespann.pool.model.database import Database
from gespann.pool.plan.reachable_networks import unreachable
from gespann.pool.plan.storage_view import attached_hosts, disks_of, is_live, peek
from gespann.pool.plan.vm_limits import reserved_bytes
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def free_memory_bytes(db: Database, host: str) -> int:
    """What VMs may still be given: the host's memory less its own need and less what its VMs, also those about to
    start, have been promised."""
    record = db.get("host", host)
    metrics = peek(db, "host_metrics", record["metrics"])
    if metrics is None:
        return 0
    promised = sum(
        reserved_bytes(vm, peek(db, "VM_metrics", vm["metrics"]) if vm["resident_on"] == host else None)
        for vm in db.all("VM").values()
        if host in (vm["resident_on"], vm["scheduled_to_be_resident_on"]) and not vm["is_control_domain"]
    )
    return int(metrics["memory_total"]) - int(record["memory_overhead"]) - promised


def obstacle(db: Database, vm: str, host: str, leaving: frozenset[str] = frozenset()) -> XenApiError | None:
    """Why this VM cannot start on this host now. ``leaving``: VDIs that will be elsewhere by then."""
    record, wanted = db.get("host", host), db.get("VM", vm)
    if not record["enabled"]:
        return XenApiError("HOST_DISABLED", [host])
    if not is_live(db, host):
        return XenApiError("HOST_OFFLINE", [host])
    for ref in [*(vbd["VDI"] for _, vbd in disks_of(db, vm)), wanted["suspend_VDI"]]:
        vdi = peek(db, "VDI", ref)
        if vdi is not None and ref not in leaving and host not in attached_hosts(db, vdi["SR"]):
            return XenApiError("VM_REQUIRES_SR", [vm, vdi["SR"]])
    if network := unreachable(db, host, (db.get("VIF", vif)["network"] for vif in wanted["VIFs"])):
        return XenApiError("HOST_CANNOT_ATTACH_NETWORK", [host, network])
    free = free_memory_bytes(db, host)
    needed = reserved_bytes(wanted, None)
    if needed > free:
        return XenApiError("HOST_NOT_ENOUGH_FREE_MEMORY", [str(needed), str(max(free, 0))])
    return None


def possible_hosts(db: Database, vm: str) -> list[str]:
    return [host for host in db.all("host") if obstacle(db, vm, host) is None]


def choose_host(db: Database, vm: str, wanted: str = NULL_REF) -> str:
    """``wanted`` if it is given; else the VM's affinity if it can, else the host with most free memory."""
    if wanted != NULL_REF:
        db.get("host", wanted)
        why = obstacle(db, vm, wanted)
        if why is not None:
            raise why
        return wanted
    hosts = possible_hosts(db, vm)
    affinity = db.get("VM", vm)["affinity"]
    if affinity in hosts:
        return str(affinity)
    if hosts:
        return max(hosts, key=lambda host: (free_memory_bytes(db, host), host))
    reasons = [why for host in db.all("host") if (why := obstacle(db, vm, host)) is not None]
    if len(reasons) == 1:
        raise reasons[0]
    raise XenApiError("NO_HOSTS_AVAILABLE", [])


def assert_usable(db: Database, vdi: str, *, writes: bool, but: str = "") -> None:
    """A VDI that another VM has open for writing, or that this one would write under another's eyes, is in use. The VBD
    ``but`` does not count."""
    record = db.get("VDI", vdi)
    if writes and record["read_only"]:
        raise XenApiError("VDI_READONLY", [vdi])
    if record["missing"]:
        raise XenApiError("VDI_NOT_AVAILABLE", [vdi])
    if record["sharable"]:
        return
    for ref in record["VBDs"]:
        other = db.get("VBD", ref)
        if ref != but and other["currently_attached"] and (writes or (other["mode"] == "RW" and other["type"] != "CD")):
            raise XenApiError("VDI_IN_USE", [vdi, "attach"])
