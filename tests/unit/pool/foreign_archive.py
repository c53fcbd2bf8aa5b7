"""Archives of VMs as other programs make them, put together here from their published layout, with nothing of the
product: tests say what is in them, and what is wrong with them."""

import hashlib
import io
import tarfile
import xmlrpc.client
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024
NULL = "OpaqueRef:NULL"


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass
class ForeignArchive:
    """A VM with disks, as XenServer 6 wrote it: numbers as text, SHA-1 beside each block, fields of its time only."""

    name_label: str = "old web server"
    version: dict[str, Any] = field(
        default_factory=lambda: {
            "hostname": "xs6",
            "date": "2013-05-16",
            "product_version": "6.2.0",
            "product_brand": "XenServer",
            "build_number": "70446c",
            "xapi_major": 1,
            "xapi_minor": 3,
            "export_vsn": 2,
        }
    )
    objects: list[dict[str, Any]] = field(default_factory=list)
    members: list[tuple[str, bytes]] = field(default_factory=list)
    vm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vm = vm_record(self.name_label)
        self.add("VM", "Ref:0", self.vm)
        self.add("SR", "Ref:1", {"uuid": "0a0a", "content_type": "user", "type": "lvm", "name_label": "Local storage"})
        self.add("network", "Ref:2", {"name_label": "Pool-wide network 0", "bridge": "xenbr0", "MTU": "1500"})
        self.add("host", "Ref:3", {"hostname": "xs6", "something": "that is nobody's business"})
        self.add("console", "Ref:4", {"protocol": "rfb"})

    def add(self, class_name: str, id_: str, record: dict[str, Any]) -> None:
        self.objects.append({"class": class_name, "id": id_, "snapshot": record})

    def add_vif(self, id_: str, **fields: Any) -> None:
        vif = {"VM": "Ref:0", "network": "Ref:2", "device": "0", "MAC": "0a:00:27:00:00:01", "MTU": "1500", **fields}
        self.add("VIF", id_, vif)

    def add_disk(self, id_: str, device: str, size_bytes: int, contents: dict[int, bytes]) -> None:
        """``contents``: block number -> its bytes. The first and the last block are always there."""
        vdi = {"SR": "Ref:1", "virtual_size": str(size_bytes), "name_label": f"disk {device}", "type": "system"}
        self.add("VDI", id_, {**vdi, "location": "x", "sm_config": {"vdi_type": "vhd", "vhd-parent": "y"}})
        vbd = {"VM": "Ref:0", "VDI": id_, "userdevice": device, "mode": "RW", "type": "Disk", "bootable": device == "0"}
        self.add("VBD", f"{id_}00", {**vbd, "currently_attached": False, "empty": False, "other_config": {"owner": ""}})
        last = (size_bytes - 1) // MIB
        for number in sorted({0, last, *contents}):
            data = contents.get(number, b"")
            whole = data.ljust(min(MIB, size_bytes - number * MIB), b"\0")
            self.block(id_, number, whole)

    def block(self, id_: str, number: int, data: bytes) -> None:
        name = f"{id_}/{number:08d}"
        self.members += [(name, data), (f"{name}.checksum", sha1(data).encode())]

    def ova_xml(self) -> bytes:
        """A bare value with its integers as text, as that program's marshaller writes it."""
        text = xmlrpc.client.dumps(({"version": self.version, "objects": self.objects},))
        value = text.split("<param>")[1].split("</param>")[0]
        return b"<?xml version='1.0'?>" + value.replace("<string>", "").replace("</string>", "").encode()

    def whole(self) -> bytes:
        return tar([("ova.xml", self.ova_xml()), *self.members])


def tar(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def vm_record(name_label: str) -> dict[str, Any]:
    return {
        "uuid": "11111111-2222-3333-4444-555555555555",
        "name_label": name_label,
        "name_description": "Größe < 5 & klein",
        "power_state": "Running",
        "is_a_template": False,
        "is_control_domain": False,
        "memory_static_max": "536870912",
        "memory_dynamic_max": "536870912",
        "memory_dynamic_min": "268435456",
        "memory_static_min": "134217728",
        "VCPUs_max": "2",
        "VCPUs_at_startup": "1",
        "VCPUs_params": {"weight": "512"},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "dc"},
        "platform": {"pae": "true"},
        "other_config": {"mac_seed": "seed-1", "base_template_name": "Debian", "import_task": "OpaqueRef:7"},
        "blocked_operations": {},
        "allowed_operations": ["start", "an operation of the future"],
        "current_operations": {},
        "resident_on": "Ref:3",
        "affinity": "Ref:3",
        "VBDs": ["Ref:500"],
        "VIFs": [],
        "parent": NULL,
        "version": "3",
        "snapshot_time": xmlrpc.client.DateTime("19700101T00:00:00Z"),
        "ha_restart_priority": "restart",
        "tags": ["production"],
        "a_field_of_the_future": {"x": "y"},
    }
