"""What libvirt knows of a machine, as seam 5 tells it."""

from pathlib import Path

import libvirt

from gespann.host.libvirt.domain_xml import DomainView, Paths, parse_domain
from gespann.seams.host_agent import Domain, PowerState

_STATES: dict[int, PowerState] = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",  # on its way down; QEMU is still there
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "stopped",
    libvirt.VIR_DOMAIN_CRASHED: "paused",  # QEMU is there: a guest has said that it has given up
}
_PAUSED_REASONS = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
}
STOPPED_REASONS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "crashed",  # QEMU died
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated",
}


def paths_of(run_dir: Path, data_dir: Path, uuid: str) -> Paths:
    directory = run_dir / "vm" / uuid
    return Paths(directory / "serial.sock", directory / "vnc.sock", data_dir / "console" / f"{uuid}.log")


def find(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    """The machine if it runs. In a worker."""
    try:
        domain = connection.lookupByUUIDString(uuid)
        return domain if domain.isActive() else None
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _paused_reason(state: int, reason: int) -> str:
    return "crashed" if state == libvirt.VIR_DOMAIN_CRASHED else _PAUSED_REASONS.get(reason, "")


def describe(domain: libvirt.virDomain, run_dir: Path, data_dir: Path) -> tuple[Domain, DomainView] | None:
    """None: it has stopped meanwhile, or is not one of ours. In a worker."""
    try:
        view = parse_domain(domain.XMLDesc(0))
        state, reason = domain.state()
        domid = domain.ID()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    if not view.start_id or _STATES.get(state, "stopped") == "stopped":
        return None
    paths = paths_of(run_dir, data_dir, view.uuid)
    power = _STATES[state]
    return Domain(
        uuid=view.uuid,
        start_id=view.start_id,
        state=power,
        reason=_paused_reason(state, reason) if power == "paused" else "",
        domid=domid,
        memory_bytes=view.memory_bytes,
        vcpus=view.vcpus,
        disks=sorted(view.disks),
        nics=sorted(view.nics),
        serial_socket=str(paths.serial_socket),
        vnc_socket=str(paths.vnc_socket),
    ), view
