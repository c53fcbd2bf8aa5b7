"""Refuses what cannot be meant, before anything is changed. Pure: a value in, BAD_REQUEST out.

The patterns are narrow on purpose: what passes here goes into XML, into QEMU option lists (where a comma would start
another option) and into file names.
"""

import ipaddress
import re
from collections.abc import Iterable

from gespann.host.bios import BIOS_STRINGS
from gespann.seams.host_addresses import KEEP_WITHIN_HIGHEST_S, KEEP_WITHIN_LOWEST_S, AddressesChange, Addressing
from gespann.seams.host_agent import (
    CAP_MOST_PERCENT,
    CPUS_MOST,
    WEIGHT_MOST,
    CpuTuning,
    Disk,
    DomainSpec,
    FileSource,
    IscsiSource,
    Nic,
)
from gespann.seams.host_bonds import KEY_HIGHEST, MEMBERS_HIGHEST, MEMBERS_LOWEST, BondChange
from gespann.seams.host_network import VLAN_HIGHEST, VLAN_LOWEST, vlan_interface
from gespann.seams.json_lines import SeamError
from gespann.seams.uuids import UUID

MEMORY_MIN_BYTES = 16 * 1024 * 1024
MEMORY_MAX_BYTES = 4 * 1024**4
VCPUS_MAX = 255  # of QEMU's i440FX machine
SERIAL_MAX_BYTES = 20
INTERFACE_NAME_BYTES = 15  # of the kernel
HOSTNAME_MAX_BYTES = 64  # of Linux: HOST_NAME_MAX
DEVICE_MAX = 255  # virtio-scsi targets
NIC_DEVICE_MAX = 15  # slots of the one PCI bus
ALLOWED_MAX = 1024  # addresses that a locked NIC may use
SIZE_MAX_BYTES = 2**63 - 512

_UUID = re.compile(UUID)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SERIAL = re.compile(r"[A-Za-z0-9_.-]{1,20}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_LABELS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_CHANGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:-]{0,127}")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ISCSI_NAME = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:-]{1,219}")  # RFC 7143 section 4.2.7: 223 bytes at most
_CHAP_USER = re.compile(r"[A-Za-z0-9._:@-]{1,223}")
_CHAP_SECRET = re.compile(r"[!-~]{1,255}")
_KEY = re.compile(r"[A-Za-z0-9]")
_BIOS_TEXT = re.compile(r"[ -~]{0,512}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,4095}")


def refuse(message: str) -> SeamError:
    return SeamError("BAD_REQUEST", message)


def _need(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value):
        raise refuse(f"{value[:64]!r} cannot be {what}")


def check_uuid(value: str) -> None:
    _need(_UUID, value, "a VM's uuid")


def check_start_id(value: str) -> None:
    _need(_ID, value, "a start_id")


def check_image_id(value: str) -> None:
    _need(_IMAGE_ID, value, "an image_id")


def check_bridge(bridge: str, mtu: int) -> None:
    _need(_BRIDGE, bridge, "the name of a bridge")
    if not 68 <= mtu <= 65535:
        raise refuse(f"an MTU of {mtu} is outside 68 to 65535")


def check_vlan(device: str, tag: int) -> None:
    _need(_BRIDGE, device, "the name of an interface")
    if not VLAN_LOWEST <= tag <= VLAN_HIGHEST:
        raise refuse(f"a VLAN of {tag} is outside {VLAN_LOWEST} to {VLAN_HIGHEST}")
    if len(vlan_interface(device, tag)) > INTERFACE_NAME_BYTES:
        raise refuse(f"{device} has too long a name for VLANs")


def check_card(device: str) -> None:
    _need(_BRIDGE, device, "the name of an interface")


def check_bond(request: BondChange) -> None:
    _check_change(request.change_id, request.keep_within_s)
    check_card(request.device)
    if request.manages:
        check_card(request.manages)
    for vlan in request.vlans:
        check_vlan(vlan.device, vlan.tag)
        check_vlan(request.device, vlan.tag)
        check_bridge(vlan.bridge, vlan.mtu)
    if (shape := request.shape) is None:
        return
    check_bridge(shape.bridge, shape.mtu)
    _need(_MAC, shape.mac, "a MAC address")
    for card in shape.members:
        check_card(card)
    if shape.device != request.device or shape.device in shape.members or len({*shape.members}) != len(shape.members):
        raise refuse("a bond has one name, and members of other names")
    if not MEMBERS_LOWEST <= len(shape.members) <= MEMBERS_HIGHEST:
        raise refuse(f"a bond has {MEMBERS_LOWEST} to {MEMBERS_HIGHEST} members")
    if not 0 <= shape.key <= KEY_HIGHEST:
        raise refuse(f"an aggregation key of {shape.key} is outside 0 to {KEY_HIGHEST}")


def check_hostname(hostname: str) -> None:
    """RFC 1123 section 2.1, in the 64 bytes of Linux."""
    _need(_LABELS, hostname, "the name of a host")
    if len(hostname) > HOSTNAME_MAX_BYTES:
        raise refuse(f"a host's name has at most {HOSTNAME_MAX_BYTES} characters")


def check_addresses(request: AddressesChange) -> None:
    _check_change(request.change_id, request.keep_within_s)
    check_card(request.device)
    if (vlan := request.vlan) is not None:
        check_vlan(vlan.device, vlan.tag)
        check_bridge(vlan.bridge, vlan.mtu)
        if vlan_interface(vlan.device, vlan.tag) != request.device:
            raise refuse(f"{request.device} is not the interface of that VLAN")
    _check_addressing(request.wanted.ipv4, 4)
    _check_addressing(request.wanted.ipv6, 6)
    for server in request.wanted.dns or []:
        _check_address(server, "the address of a name server")


def _check_change(change_id: str, keep_within_s: float) -> None:
    _need(_CHANGE_ID, change_id, "the name of a change")
    if not KEEP_WITHIN_LOWEST_S <= keep_within_s <= KEEP_WITHIN_HIGHEST_S:
        raise refuse(f"a change is to be kept within {KEEP_WITHIN_LOWEST_S:g} to {KEEP_WITHIN_HIGHEST_S:g} s")


def _check_addressing(wanted: Addressing | None, version: int) -> None:
    if wanted is None:
        return
    if bool(wanted.addresses) != (wanted.mode == "static") or (wanted.gateway and wanted.mode != "static"):
        raise refuse("who asks for static addresses says which; who asks for others does not")
    if wanted.mode == "dhcp" and version != 4:
        raise refuse("this agent asks for leases of IPv4 addresses only")
    for text in wanted.addresses:
        if "/" not in text or _check_address(text, "an address with its prefix").version != version:
            raise refuse(f"{text[:64]!r} is no IPv{version} address with a prefix")
    if wanted.gateway and _check_address(wanted.gateway, "the address of a gateway").version != version:
        raise refuse(f"{wanted.gateway[:64]!r} is no IPv{version} address")


def _check_address(text: str, what: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise refuse(f"{text[:64]!r} cannot be {what}") from None
    if isinstance(found, ipaddress.IPv6Interface) and found.ip.scope_id:
        raise refuse(f"{text[:64]!r} cannot be {what}")
    return found


def check_size(size_bytes: int) -> None:
    if not 512 <= size_bytes <= SIZE_MAX_BYTES or size_bytes % 512:
        raise refuse(f"a disk of {size_bytes} bytes: 512 to 2^63-512 in whole blocks of 512")


def check_timeout(timeout_s: float) -> None:
    if not 0 < timeout_s <= 86400:
        raise refuse(f"a time-out of {timeout_s} s is outside 0 to 86400")


def check_memory(memory_bytes: int) -> None:
    if not MEMORY_MIN_BYTES <= memory_bytes <= MEMORY_MAX_BYTES:
        raise refuse(f"memory of {memory_bytes} bytes is outside 16 MiB to 4 TiB")
    if memory_bytes % 1024:
        raise refuse(f"memory of {memory_bytes} bytes is not a whole number of KiB")


def check_key(key: str) -> None:
    _need(_KEY, key, "a key: a letter or a digit")


def check_bios_strings(strings: dict[str, str]) -> None:
    for name, text in strings.items():
        if name not in BIOS_STRINGS:
            raise refuse(f"{name[:64]!r} is no string of a BIOS")
        _need(_BIOS_TEXT, text, f"{name}: printable ASCII, at most 512")


def check_tuning(tuning: CpuTuning) -> None:
    if not (0 <= tuning.weight <= WEIGHT_MOST and 0 <= tuning.cap_percent <= CAP_MOST_PERCENT):
        raise refuse(f"weight {tuning.weight} or cap {tuning.cap_percent} is none")
    if tuning.cpus != sorted(set(tuning.cpus)) or not all(0 <= cpu < CPUS_MOST for cpu in tuning.cpus):
        raise refuse("the numbers of processors are in order, each once")


def check_vcpus(vcpus: int) -> None:
    if not 1 <= vcpus <= VCPUS_MAX:
        raise refuse(f"{vcpus} vCPUs is outside 1 to {VCPUS_MAX}")


def check_device(device: int) -> None:
    if not 0 <= device <= DEVICE_MAX:
        raise refuse(f"disk device {device} is outside 0 to {DEVICE_MAX}")


def check_nic_device(device: int) -> None:
    if not 0 <= device <= NIC_DEVICE_MAX:
        raise refuse(f"NIC device {device} is outside 0 to {NIC_DEVICE_MAX}")


def check_source(source: IscsiSource | FileSource) -> None:
    if isinstance(source, FileSource):
        _need(_PATH, source.path, "the path of a disk file")
        return
    _check_portal(source.host, source.port)
    _need(_ISCSI_NAME, source.target, "an iSCSI target")
    _need(_ISCSI_NAME, source.initiator, "an iSCSI initiator")
    if not 0 <= source.lun <= 255:
        raise refuse(f"LUN {source.lun} is outside 0 to 255")
    if source.offset_bytes < 0 or source.size_bytes < 0 or (source.offset_bytes and not source.size_bytes):
        raise refuse("a part of a LUN has an offset and a size")
    if source.offset_bytes % 512 or source.size_bytes % 512:
        raise refuse("a part of a LUN begins and ends between two sectors")
    if bool(source.chap_user) != bool(source.chap_secret):
        raise refuse("a CHAP user and its secret come together")
    if source.chap_user:
        _need(_CHAP_USER, source.chap_user, "a CHAP user")
        if not _CHAP_SECRET.fullmatch(source.chap_secret):
            raise refuse("the CHAP secret has a byte that is not printable ASCII, or is too long")


def _check_portal(host: str, port: int) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        _need(_HOST_NAME, host, "the address of a portal")
    if not 1 <= port <= 65535:
        raise refuse(f"port {port} is outside 1 to 65535")


def check_disk(disk: Disk) -> None:
    check_device(disk.device)
    _need(_SERIAL, disk.serial, f"a disk's serial (at most {SERIAL_MAX_BYTES} letters, digits, '_', '-', '.')")
    if disk.source is None:
        if disk.kind != "cdrom":
            raise refuse(f"disk {disk.device} has no source; only a CD drive can be empty")
        return
    check_source(disk.source)


def check_nic(nic: Nic) -> None:
    check_nic_device(nic.device)
    _need(_MAC, nic.mac, "a MAC address (lower case, six pairs)")
    if int(nic.mac[:2], 16) & 1:
        raise refuse(f"{nic.mac} is a multicast address")
    check_bridge(nic.bridge, nic.mtu)
    for version, allowed in ((4, nic.ipv4_allowed), (6, nic.ipv6_allowed)):
        if len(allowed) > ALLOWED_MAX:
            raise refuse(f"more than {ALLOWED_MAX} addresses for one NIC")
        for text in allowed:
            if "/" in text or _check_address(text, "an address of a guest").version != version:
                raise refuse(f"{text[:64]!r} is no IPv{version} address")


def _unique(values: Iterable[object], what: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise refuse(f"{what} {value} is given twice")
        seen.add(value)


def check_domain(spec: DomainSpec) -> None:
    check_uuid(spec.uuid)
    check_start_id(spec.start_id)
    if len(spec.name_label) > 4096:
        raise refuse("a name_label of more than 4096 characters")
    check_memory(spec.memory_bytes)
    if spec.memory_target_bytes:
        check_memory(spec.memory_target_bytes)
        if spec.memory_target_bytes > spec.memory_bytes:
            raise refuse(f"{spec.memory_target_bytes} bytes for a guest of at most {spec.memory_bytes}")
    check_bios_strings(spec.bios_strings)
    check_tuning(spec.tuning)
    check_vcpus(spec.vcpus)
    if spec.vcpus_max and not spec.vcpus <= spec.vcpus_max <= VCPUS_MAX:
        raise refuse(f"at most {spec.vcpus_max} vCPUs is outside {spec.vcpus} to {VCPUS_MAX}")
    if set(spec.boot_order) - set("cdn") or len(set(spec.boot_order)) != len(spec.boot_order):
        raise refuse(f"boot order {spec.boot_order[:16]!r}: each of c, d, n at most once")
    for disk in spec.disks:
        check_disk(disk)
    for nic in spec.nics:
        check_nic(nic)
    _unique((disk.device for disk in spec.disks), "disk device")
    _unique((disk.serial for disk in spec.disks), "disk serial")
    _unique((nic.device for nic in spec.nics), "NIC device")
    _unique((nic.mac for nic in spec.nics), "MAC address")
