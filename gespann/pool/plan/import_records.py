"""What the records of a stranger's archive become: only fields that a user could have set, each of them checked."""

import re
from functools import cache
from typing import Any
from uuid import uuid4

from gespann.pool.images.ova import Object
from gespann.pool.plan.device_numbers import disk_number, nic_number
from gespann.pool.plan.disk_plans import assert_size
from gespann.pool.plan.frame_sizes import assert_mtu
from gespann.pool.plan.locking_plans import FIELDS, checked_addresses
from gespann.pool.plan.mac_addresses import checked_mac, random_mac
from gespann.pool.plan.vm_limits import MEMORY_FIELDS, assert_memory, assert_vcpus
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError

RecordToWrite = tuple[str, str, dict[str, Any]]
#: what belongs to the pool that a VM comes from, or follows from what happens to it here
_NOT_TAKEN = frozenset(
    {
        *("power_state", "memory_target", "last_booted_record", "last_boot_CPU_flags", "ha_always_run"),
        *("ha_restart_priority", "is_snapshot_from_vmpp", "is_vmss_snapshot", "generation_id", "version"),
    }
)
#: of a snapshot, which is told apart by them
_OF_SNAPSHOT = ("is_a_snapshot", "snapshot_time", "snapshot_info", "transportable_snapshot_id")
_VBD_FIELDS = ("bootable", "mode", "type", "unpluggable", "other_config", "qos_algorithm_type", "qos_algorithm_params")
_VIF_FIELDS = (
    *("MTU", "other_config", "qos_algorithm_type", "qos_algorithm_params", "locking_mode", "ipv4_allowed"),
    "ipv6_allowed",
)
_VDI_FIELDS = ("name_label", "name_description", "virtual_size", "type", "other_config", "xenstore_data", "tags")
_NETWORK_FIELDS = ("name_label", "name_description", "MTU", "tags")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MAC_SEED = "mac_seed"


@cache
def _vm_fields_taken() -> tuple[str, ...]:
    fields = datamodel.classes()["VM"].fields.values()
    given = (f for f in fields if f.qualifier in ("RW", "RO/constructor") and f.type.kind != "ref")
    return (*(f.name for f in given if f.name not in _NOT_TAKEN), "bios_strings")


def assert_uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise XenApiError("INVALID_VALUE", ["uuid", text[:100]])
    return text


def vm_fields(vm: Object, *, restore: bool) -> dict[str, Any]:
    fields = vm.fields(_vm_fields_taken())
    if not vm.has("parent"):  # of a time before memory could change while a machine runs
        fields["memory_dynamic_min"] = fields["memory_dynamic_max"] = vm.get("memory_static_max")
    assert_memory(*(fields.get(name, 0) for name in MEMORY_FIELDS))
    assert_vcpus(fields.get("VCPUs_at_startup", 0), fields.get("VCPUs_max", 0))
    if fields.get("domain_type", "unspecified") == "unspecified":
        fields["domain_type"] = "hvm"
    other_config = {key: value for key, value in fields.get("other_config", {}).items() if key != "import_task"}
    if not restore or MAC_SEED not in other_config:
        other_config[MAC_SEED] = str(uuid4())
    fields |= {"other_config": other_config, "domid": -1, "version": vm.get("version") + 1 if restore else 0}
    if vm.get("is_a_snapshot"):
        fields |= {name: vm.get(name) for name in _OF_SNAPSHOT}
    return fields


def vdi_fields(vdi: Object) -> dict[str, Any]:
    """Of a new VDI. How space is set aside is kept, if this storage knows it."""
    fields = {name: vdi.get(name) for name in _VDI_FIELDS}
    assert_size(fields["virtual_size"])
    if fields["virtual_size"] <= 0:
        raise XenApiError("INVALID_VALUE", ["virtual_size", str(fields["virtual_size"])])
    allocation = vdi.get("sm_config").get("allocation", "")
    sm_config = {"allocation": allocation} if allocation in ("thin", "thick") else {}
    return {**fields, "sharable": vdi.get("sharable"), "read_only": False, "sm_config": sm_config}


def vbd_fields(vbd: Object, taken: set[str]) -> dict[str, Any]:
    """``taken``: the devices of the VM so far."""
    fields = vbd.fields(_VBD_FIELDS)
    device = str(disk_number(vbd.get("userdevice")))
    if device in taken:
        raise XenApiError("DEVICE_ALREADY_EXISTS", [device])
    taken.add(device)
    if fields.get("type") == "CD":
        fields["mode"] = "RO"
    return {**fields, "userdevice": device}


def vif_fields(vif: Object, taken: set[str], *, restore: bool) -> dict[str, Any]:
    """A MAC address comes along only when the VM itself comes back; otherwise there might be two of it."""
    device = str(nic_number(vif.get("device")))
    if device in taken:
        raise XenApiError("DEVICE_ALREADY_EXISTS", [device])
    taken.add(device)
    kept = restore and bool(vif.get("MAC"))
    mac = checked_mac(vif.get("MAC")) if kept else random_mac()
    fields = vif.fields(_VIF_FIELDS)
    if fields.get("MTU"):
        assert_mtu(fields["MTU"])
    for version, name in FIELDS.items():
        fields[name] = checked_addresses(version, fields.get(name, []))
    return {**fields, "device": device, "MAC": mac, "MAC_autogenerated": not kept}


def network_fields(network: Object, bridge: str) -> dict[str, Any]:
    fields = network.fields(_NETWORK_FIELDS)
    if "MTU" in fields:
        assert_mtu(fields["MTU"])
    return {**fields, "bridge": bridge}
