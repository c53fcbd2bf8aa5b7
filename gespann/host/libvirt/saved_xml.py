"""The XML that libvirt keeps beside a machine's memory, made fit for another start. Pure.

What the guest sees must stay as it was (libvirt checks that, and addresses that libvirt once chose are only there), so
the kept XML is changed in place: the start, where disks and NICs lead to, the paths of the sockets.
"""

import xml.etree.ElementTree as ET

from defusedxml.ElementTree import fromstring

from gespann.host.libvirt.domain_xml import METADATA_URI, Paths, disk_element, name_tap, nic_alias, parse_domain, text
from gespann.host.libvirt.saved_check import hold_to_ours
from gespann.seams.host_agent import DomainSpec
from gespann.seams.json_lines import SeamError


def restored_xml(kept: str, spec: DomainSpec, paths: Paths) -> str:
    """BAD_STATE if the memory is another machine's, or its devices are not those of ``spec``. The guest goes on seeing
    the serials that its disks had: a disk may be a copy of the one that it knows."""
    view = parse_domain(kept)
    drives = frozenset(disk.device for disk in spec.disks if disk.kind == "cdrom")
    wanted = (spec.uuid, {disk.device for disk in spec.disks}, drives, {nic.device: nic.mac for nic in spec.nics})
    if (view.uuid, set(view.disks), view.cdroms, view.nics) != wanted:
        raise SeamError("BAD_STATE", f"the memory is of {view.uuid} with disks {view.disks} and NICs {view.nics}")
    root = fromstring(kept)
    hold_to_ours(root)
    start = root.find(f"metadata/{{{METADATA_URI}}}start")
    if start is None:
        raise SeamError("BAD_STATE", "the memory names no start")
    start.text = spec.start_id
    _lead_disks(root, spec)
    _lead_nics(root, spec)
    _lead_sockets(root, paths)
    return text(root)


def _lead_disks(root: ET.Element, spec: DomainSpec) -> None:
    disks = {disk.device: disk for disk in spec.disks}
    for element in root.findall("devices/disk"):
        address = element.find("address")
        disk = disks.get(int(address.get("target", "-1"))) if address is not None else None
        if disk is None:
            raise SeamError("BAD_STATE", "the memory is of a machine with another disk")
        new = disk_element(spec.uuid, disk)
        driver, wanted = element.find("driver"), new.find("driver")
        if driver is None or wanted is None:
            raise SeamError("BAD_STATE", "the memory is of a machine with a disk without driver")
        driver.set("type", wanted.get("type", ""))  # what a disk is read as, its content must not say
        element.set("type", new.get("type", ""))
        for name in ("auth", "source", "backingStore", "mirror"):
            for old in element.findall(name):
                element.remove(old)
        source = new.find("source")
        if source is not None:
            element.insert(1, source)


def _lead_nics(root: ET.Element, spec: DomainSpec) -> None:
    """Their taps too: what may pass is told by these names."""
    nics = {nic_alias(nic.device): nic for nic in spec.nics}
    for element in root.findall("devices/interface"):
        alias, source = element.find("alias"), element.find("source")
        nic = nics.get(alias.get("name", "")) if alias is not None else None
        if nic is None or source is None:
            raise SeamError("BAD_STATE", "the memory is of a machine with another NIC")
        source.attrib.clear()
        source.set("bridge", nic.bridge)
        name_tap(element, spec.uuid, nic.device)


def _lead_sockets(root: ET.Element, paths: Paths) -> None:
    for name in ("serial", "console"):
        for element in root.findall(f"devices/{name}[@type='unix']"):
            source, log_file = element.find("source"), element.find("log")
            if source is not None:
                source.set("path", str(paths.serial_socket))
            if log_file is not None:
                log_file.set("file", str(paths.serial_log))
    for graphics in root.findall("devices/graphics[@type='vnc']"):
        for element in (graphics, *graphics.findall("listen")):
            element.set("socket", str(paths.vnc_socket))
