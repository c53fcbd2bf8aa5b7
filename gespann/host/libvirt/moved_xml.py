"""The XML of a machine as it is to be on another host: the same to its guest, with that host's openings and paths.

Pure. Made from the XML of the running machine, since libvirt compares the two: what a guest can see must not differ.
"""

import xml.etree.ElementTree as ET

from defusedxml.ElementTree import fromstring

from gespann.host.libvirt.domain_xml import METADATA_URI, NIC_ALIAS, name_tap, secret_uuid
from gespann.seams.host_migration import Landing, MovedDisk


def moved_xml(text: str, new_start_id: str, disks: list[MovedDisk], landing: Landing) -> str:
    root = fromstring(text)
    start = root.find(f"metadata/{{{METADATA_URI}}}start")
    if start is not None:
        start.text = new_start_id
    vm_uuid = root.findtext("uuid", "")
    moved = {disk.device: disk for disk in disks}
    for element in root.findall("devices/disk"):
        address = element.find("address")
        if address is not None and int(address.get("target", "-1")) in moved:
            _move_disk(element, moved[int(address.get("target", "-1"))], vm_uuid)
    for element in root.findall("devices/interface"):
        alias = element.find("alias")
        name = alias.get("name", "") if alias is not None else ""
        if name.startswith(NIC_ALIAS):
            name_tap(element, vm_uuid, int(name.removeprefix(NIC_ALIAS)))
    for kind in ("serial", "console"):
        for element in root.findall(f"devices/{kind}"):
            _set(element, "source", "path", landing.serial_socket)
            _set(element, "log", "file", landing.serial_log)
    for element in root.findall("devices/graphics"):
        if element.get("socket") is not None:
            element.set("socket", landing.vnc_socket)
        _set(element, "listen", "socket", landing.vnc_socket)
    ET.register_namespace("gespann", METADATA_URI)
    return ET.tostring(root, encoding="unicode")


def _move_disk(element: ET.Element, disk: MovedDisk, vm_uuid: str) -> None:
    """Its secret too: the one here may be the second of its two."""
    _set(element, "source/host", "name", disk.host)
    _set(element, "source/host", "port", str(disk.port))
    _set(element, "source/initiator/iqn", "name", disk.initiator)
    for place in ("auth", "source/auth"):
        _set(element, place, "username", disk.chap_user)
        _set(element, f"{place}/secret", "uuid", secret_uuid(vm_uuid, disk.device))


def _set(element: ET.Element, path: str, attribute: str, value: str) -> None:
    found = element.find(path)
    if found is not None and found.get(attribute) is not None:
        found.set(attribute, value)
