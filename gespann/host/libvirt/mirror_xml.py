"""What a machine's XML says of a disk that moves to another volume, and what libvirt is told to copy it to. Pure."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from defusedxml.ElementTree import fromstring
from msgspec import structs

from gespann.host.libvirt.domain_xml import METADATA_URI, iscsi_source_element, secret_uuid, text
from gespann.seams.host_agent import IscsiSource
from gespann.seams.host_mirror import MirrorTarget
from gespann.seams.json_lines import SeamError


@dataclass(frozen=True)
class MovingDisk:
    """``leads_to``: none for what is no iSCSI disk. ``mirror``: where it is being copied to, ``in_step`` when that
    holds all that the disk does. ``is_part``: it is a part of what it leads to, whose size nobody can change."""

    start_id: str
    leads_to: MirrorTarget | None
    secret: str  # the uuid of the libvirt secret that it was opened with
    mirror: MirrorTarget | None = None
    in_step: bool = False
    is_part: bool = False


def moving_disk(domain: str, device: int) -> MovingDisk | None:
    """None: the machine has no such disk."""
    root = fromstring(domain)
    for element in root.findall("devices/disk[@device='disk']"):
        address = element.find("address")
        if address is None or int(address.get("target", "-1")) != device:
            continue
        mirror = element.find("mirror")
        secret = element.find("source/auth/secret")
        if secret is None:
            secret = element.find("auth/secret")
        return MovingDisk(
            start_id=root.findtext(f"metadata/{{{METADATA_URI}}}start", ""),
            leads_to=_led_to(element.find("source")),
            secret=secret.get("uuid", "") if secret is not None else "",
            mirror=_led_to(mirror.find("source")) if mirror is not None else None,
            in_step=mirror is not None and mirror.get("ready") == "yes",
            is_part=element.find("source/slices/slice") is not None,
        )
    return None


def _led_to(source: ET.Element | None) -> MirrorTarget | None:
    if source is None or source.get("protocol") != "iscsi":
        return None
    target, _, lun = source.get("name", "").rpartition("/")
    initiator, part = source.find("initiator/iqn"), source.find("slices/slice")
    return MirrorTarget(
        target=target,
        lun=int(lun or 0),
        offset_bytes=int(part.get("offset", "0")) if part is not None else 0,
        initiator=initiator.get("name", "") if initiator is not None else "",
    )


def other_slot(vm_uuid: str, device: int, secret: str) -> int:
    """Which of a disk's two secrets is free while the other one is in use."""
    return 1 if secret == secret_uuid(vm_uuid, device) else 0


def fitting_source(source: IscsiSource, volume_bytes: int, disk_bytes: int) -> IscsiSource:
    """QEMU copies only to what is as long as the disk is, and another SR may round sizes up to other units: of a longer
    volume a part is used. SeamError STORAGE: it is too short."""
    held_bytes = source.size_bytes or volume_bytes
    if held_bytes < disk_bytes:
        raise SeamError("STORAGE", f"{source.target} has {held_bytes} bytes, the disk {disk_bytes}")
    return source if held_bytes == disk_bytes else structs.replace(source, size_bytes=disk_bytes)


def copy_xml(vm_uuid: str, device: int, source: IscsiSource, slot: int) -> str:
    """Of the disk that the copy goes to, as ``virDomainBlockCopy`` takes it."""
    element = ET.Element("disk", type="network")
    ET.SubElement(element, "driver", name="qemu", type="raw", cache="none", discard="unmap")
    element.append(iscsi_source_element(vm_uuid, device, source, slot))
    return text(element)
