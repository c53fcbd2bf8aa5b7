"""What the records of a VM say when its domain has come up, changed or gone: used by steps and by the reconciler."""

from datetime import datetime

from gespann.pool.model.database import Transaction, new_ref
from gespann.seams.host_agent import Domain, GuestMetricsReply
from gespann.seams.xenapi.datamodel import NULL_REF

POWER_STATES = {"running": "Running", "paused": "Paused", "stopped": "Halted"}


def wire_time(moment: datetime) -> str:
    """As the XenAPI writes times."""
    return moment.strftime("%Y%m%dT%H:%M:%SZ")


def show_running(
    tx: Transaction, vm: str, host: str, domain: Domain, now: datetime, tls_port: int, *, booted: bool = True
) -> None:
    """``tls_port``: where the host's consoles are reached, by ``CONNECT``. ``booted`` false: it goes on from before."""
    record = tx.get("VM", vm)
    metrics = record["metrics"] if tx.exists("VM_metrics", record["metrics"]) else new_ref()
    fields = {
        "memory_actual": domain.memory_bytes,
        "VCPUs_number": domain.vcpus,
        "VCPUs_params": record["VCPUs_params"],
        "start_time": wire_time(now),
        "last_updated": wire_time(now),
        "hvm": True,
        "current_domain_type": "hvm",
    }
    if tx.exists("VM_metrics", metrics):
        if not booted:
            del fields["start_time"]
        tx.set("VM_metrics", metrics, **fields)
    else:
        tx.create("VM_metrics", fields, metrics)
    tx.set(
        "VM",
        vm,
        power_state=POWER_STATES[domain.state],
        resident_on=host,
        scheduled_to_be_resident_on=NULL_REF,
        domid=domain.domid,
        metrics=metrics,
    )
    _show_consoles(tx, vm, host, domain, tls_port)


def show_moved(tx: Transaction, vm: str, host: str, domain: Domain, tls_port: int) -> None:
    """It runs on elsewhere: the same start to its guest, with the same devices."""
    tx.set(
        "VM",
        vm,
        power_state=POWER_STATES[domain.state],
        resident_on=host,
        scheduled_to_be_resident_on=NULL_REF,
        domid=domain.domid,
    )
    for console in list(tx.get("VM", vm)["consoles"]):
        tx.destroy("console", console)
    _show_consoles(tx, vm, host, domain, tls_port)


def _show_consoles(tx: Transaction, vm: str, host: str, domain: Domain, tls_port: int) -> None:
    """At the coordinator's address, wherever the machine runs: a member's door knows no sessions."""
    pools = tx.where("pool")
    coordinator = pools[0][1]["master"] if pools else NULL_REF
    there = {tx.get("console", ref)["protocol"] for ref in tx.get("VM", vm)["consoles"] if tx.exists("console", ref)}
    address = tx.get("host", coordinator if tx.exists("host", coordinator) else host)["address"]
    server = (f"[{address}]" if ":" in address else address) + ("" if tls_port == 443 else f":{tls_port}")
    for protocol, socket in (("vt100", domain.serial_socket), ("rfb", domain.vnc_socket)):
        if socket and protocol not in there:
            ref = tx.create("console", {"protocol": protocol, "VM": vm})
            uuid = tx.get("console", ref)["uuid"]
            tx.set("console", ref, location=f"https://{server}/console?uuid={uuid}")


def show_stopped(tx: Transaction, vm: str) -> None:
    if not tx.exists("VM", vm):
        return
    record = tx.get("VM", vm)
    _show_off_host(tx, vm, "Halted", NULL_REF)
    for vbd in record["VBDs"]:
        tx.set("VBD", vbd, currently_attached=False, device="")
    for vif in record["VIFs"]:
        tx.set("VIF", vif, currently_attached=False)


def show_suspended(tx: Transaction, vm: str, image: str) -> None:
    """Its disks and NICs stay plugged, so that nobody else writes to them: the guest believes that it has them."""
    _show_off_host(tx, vm, "Suspended", image)


def _show_off_host(tx: Transaction, vm: str, power_state: str, image: str) -> None:
    record = tx.get("VM", vm)
    tx.set(
        "VM",
        vm,
        power_state=power_state,
        resident_on=NULL_REF,
        scheduled_to_be_resident_on=NULL_REF,
        domid=-1,
        guest_metrics=NULL_REF,
        suspend_VDI=image,
    )
    tx.destroy("VM_guest_metrics", record["guest_metrics"])
    for console in list(record["consoles"]):
        tx.destroy("console", console)


def show_guest(tx: Transaction, vm: str, said: GuestMetricsReply, now: datetime) -> None:
    """What the guest's agent says; a guest without one keeps what it had, marked as not live."""
    record = tx.get("VM", vm)
    there = tx.exists("VM_guest_metrics", record["guest_metrics"])
    if not said.live and not there:
        return
    fields = {"live": said.live, "last_updated": wire_time(now)}
    if said.live:
        fields |= {
            "os_version": said.os_version,
            "networks": said.networks,
            "PV_drivers_version": {"major": "0", "minor": "0", "micro": "0", "agent": said.agent_version},
            "PV_drivers_up_to_date": True,
            "PV_drivers_detected": True,
            "can_use_hotplug_vbd": "yes",
            "can_use_hotplug_vif": "yes",
        }
    if there:
        tx.set("VM_guest_metrics", record["guest_metrics"], **fields)
    else:
        tx.set("VM", vm, guest_metrics=tx.create("VM_guest_metrics", fields))
