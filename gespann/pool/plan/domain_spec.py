"""The domain that a VM's records describe, as JSON for the journal: a disk names its opening instead of a source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gespann.pool.plan.bios_strings import SETTABLE
from gespann.pool.plan.cpu_tuning import tuning_of
from gespann.pool.plan.device_numbers import disk_number
from gespann.pool.plan.shapes import Act
from gespann.pool.plan.storage_view import Records, peek
from gespann.seams.xenapi.errors import XenApiError

KIB = 1024
NAME_SHOWN_CHARS = 255
SERIAL_DIGITS = 20  # QEMU shows no more of a disk's serial
DEFAULT_BOOT_ORDER = "cd"


@dataclass(frozen=True)
class Names:
    """Chosen for one start (or one plug) of a VM. ``start_id`` is new each time."""

    vm_uuid: str
    start_id: str
    iscsi_prefix: str

    @property
    def initiator(self) -> str:
        return f"{self.iscsi_prefix}:{self.vm_uuid[:8]}-{self.start_id}"

    def opening_id(self, device: int) -> str:
        """Also the CHAP user of the opening, so that the storage itself can tell the openings in force."""
        return f"{self.vm_uuid[:8]}-{self.start_id}-{device}"


def serial_of(uuid: str) -> str:
    return uuid.replace("-", "")[:SERIAL_DIGITS]


def disk_shape(records: Records, vbd: str, opening_id: str) -> dict[str, Any]:
    """``opening_id`` "": an empty drive."""
    record = records.get("VBD", vbd)
    is_cd = record["type"] == "CD"
    vdi = peek(records, "VDI", record["VDI"]) if opening_id else None
    return {
        "device": disk_number(record["userdevice"]),
        "serial": serial_of(record["uuid"] if is_cd or vdi is None else vdi["uuid"]),
        "kind": "cdrom" if is_cd else "disk",
        "read_only": is_cd or record["mode"] == "RO",
        "bootable": record["bootable"],
        "opening_id": opening_id,
    }


def open_act(records: Records, names: Names, vm: str, vbd: str, vdi: str | None = None) -> tuple[Act, str]:
    """The step that opens the VBD's VDI (or another: ``vdi``) to this VM, and the opening's id."""
    record = records.get("VBD", vbd)
    vdi = vdi or record["VDI"]
    opening_id = names.opening_id(disk_number(record["userdevice"]))
    vdi_record = records.get("VDI", vdi)
    read_only = record["mode"] == "RO" or record["type"] == "CD"
    args = {
        "sr": vdi_record["SR"],
        "vdi": vdi,
        "vdi_uuid": vdi_record["uuid"],
        "opening_id": opening_id,
        "initiator": names.initiator,
        "mode": "RO" if read_only else "RW",
        "vm": vm,
        "vbd": vbd,
    }
    return Act("volume-open", args), opening_id


def nic_shape(records: Records, vif: str) -> dict[str, Any]:
    record = records.get("VIF", vif)
    network = records.get("network", record["network"])
    if not network["managed"]:  # an interface that is in no bridge: nothing can be plugged into it
        raise XenApiError("VM_REQUIRES_NETWORK", [record["VM"], record["network"]])
    return {
        "device": int(record["device"]),
        "mac": record["MAC"].lower(),
        "bridge": network["bridge"],
        "mtu": record["MTU"] or network["MTU"],
        **locking_shape(record, network),
    }


def locking_shape(vif: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """What the interface may say and hear. Addresses are only told of one that is locked to them."""
    mode = vif["locking_mode"]
    mode = network["default_locking_mode"] if mode == "network_default" else mode
    locked = mode == "locked"
    return {
        "locking": mode,
        "ipv4_allowed": list(vif["ipv4_allowed"]) if locked else [],
        "ipv6_allowed": list(vif["ipv6_allowed"]) if locked else [],
    }


def domain_shape(
    vm: Mapping[str, Any], names: Names, disks: list[dict[str, Any]], nics: list[dict[str, Any]], *, paused: bool
) -> dict[str, Any]:
    order = "".join(dict.fromkeys(letter for letter in vm["HVM_boot_params"].get("order", "") if letter in "cdn"))
    most, target = vm["memory_static_max"] // KIB * KIB, vm["memory_dynamic_max"] // KIB * KIB
    return {
        "uuid": vm["uuid"],
        "start_id": names.start_id,
        "name_label": vm["name_label"][:NAME_SHOWN_CHARS],
        "memory_bytes": most,
        "memory_target_bytes": target if target < most else 0,
        "bios_strings": {name: text for name, text in vm["bios_strings"].items() if name in SETTABLE},
        "tuning": tuning_of(vm["VCPUs_params"]),
        "vcpus": vm["VCPUs_at_startup"],
        "vcpus_max": vm["VCPUs_max"],
        "disks": disks,
        "nics": nics,
        "boot_order": order or DEFAULT_BOOT_ORDER,
        "paused": paused,
    }
