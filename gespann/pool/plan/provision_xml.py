"""The disks that a template wants, as XML in ``other_config:disks``:

<provision><disk device="0" size="8589934592" sr="" bootable="true" type="system"/></provision>
"""

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from gespann.pool.plan.device_numbers import disk_number
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError


@dataclass(frozen=True)
class WantedDisk:
    device: int
    size_bytes: int
    sr_uuid: str  # "": the pool's default SR
    bootable: bool
    vdi_type: str

    def vdi_fields(self, vm_name: str) -> dict[str, Any]:
        return {
            "name_label": f"{vm_name} {self.device}",
            "name_description": "Created by template provisioner",
            "virtual_size": self.size_bytes,
            "type": self.vdi_type,
            "sharable": False,
            "read_only": False,
            "other_config": {},
            "sm_config": {},
        }

    def vbd_fields(self) -> dict[str, Any]:
        return {
            "userdevice": str(self.device),
            "bootable": self.bootable,
            "mode": "RW",
            "type": "Disk",
            "empty": False,
            "unpluggable": True,
        }


def parse_disks(text: str) -> list[WantedDisk]:
    """INVALID_VALUE [other_config:disks, ...] for what does not describe disks. "" wants none."""
    if not text.strip():
        return []
    try:
        root = fromstring(text)
        disks = [_disk(dict(node.attrib)) for node in root.iter("disk")]
    except (ParseError, DefusedXmlException, KeyError, ValueError) as error:
        raise XenApiError("INVALID_VALUE", ["other_config:disks", f"{text[:200]} ({error})"]) from error
    if len({disk.device for disk in disks}) != len(disks):
        raise XenApiError("INVALID_VALUE", ["other_config:disks", "two disks on one device"])
    return disks


def _disk(attributes: dict[str, str]) -> WantedDisk:
    vdi_type = attributes.get("type", "user")
    if vdi_type not in datamodel.enums()["vdi_type"]:
        raise ValueError(f"no VDI type {vdi_type}")
    return WantedDisk(
        device=disk_number(attributes["device"]),
        size_bytes=int(attributes["size"]),
        sr_uuid=attributes.get("sr", ""),
        bootable=attributes.get("bootable", "false").lower() == "true",
        vdi_type=vdi_type,
    )
