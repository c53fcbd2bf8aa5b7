"""A domain as libvirt's XML, both ways. Pure. Elements are those of libvirt's formatdomain page.

Rules found by measuring, each with what happens otherwise:
* every disk has its own SCSI target with an explicit address; else libvirt may put it on an LSI controller that guests
  have no driver for;
* `<cpu mode='maximum'>` for emulation; `<model>max` is refused;
* `discard='unmap'`, so that a guest's trim reaches the array; `cache='none'`, which live migration needs.
"""

import re
import uuid as uuids
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from defusedxml.ElementTree import fromstring

from gespann.host.bios import BIOS_STRINGS
from gespann.host.nic_filter import tap_name
from gespann.seams.host_agent import Disk, DomainSpec, IscsiSource, Nic

METADATA_URI = "urn:gespann:domain:1"
NIC_ALIAS = "ua-nic-"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
TB_CACHE_SMALL_MIB, TB_CACHE_MIB = 32, 256  # of translated code; QEMU's own default is 1 GiB
SMALL_GUEST_BYTES = 512 * 1024**2

_SECRETS = uuids.UUID("5a5f1f0e-8f7b-4b06-9a3e-4ad7d8f1f5c0")
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class Paths:
    """Where one domain's sockets and its serial log are."""

    serial_socket: Path
    vnc_socket: Path
    serial_log: Path


@dataclass(frozen=True)
class DomainView:
    """What a domain's XML says of it."""

    uuid: str
    start_id: str
    memory_bytes: int  # that the guest has now
    memory_max_bytes: int
    vcpus: int
    vcpus_max: int
    disks: dict[int, str]  # device -> serial
    cdroms: frozenset[int]
    nics: dict[int, str]  # device -> MAC
    taps: dict[int, str]  # device -> the host's end
    agent_connected: bool


#: a disk has two: while it moves to another volume, both are in use
SECRET_SLOTS = (0, 1)


def secret_uuid(vm_uuid: str, device: int, slot: int = 0) -> str:
    return str(uuids.uuid5(_SECRETS, f"{vm_uuid}/{device}" + (f"/{slot}" if slot else "")))


def secret_usage(vm_uuid: str, device: int, slot: int = 0) -> str:
    return f"gespann/{vm_uuid}/{device}" + (f"/{slot}" if slot else "")


def secret_xml(vm_uuid: str, device: int, slot: int = 0) -> str:
    """Private: libvirt gives the value to nobody. Ephemeral: it is never written to a disk."""
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    ET.SubElement(secret, "uuid").text = secret_uuid(vm_uuid, device, slot)
    usage = ET.SubElement(secret, "usage", type="iscsi")
    ET.SubElement(usage, "target").text = secret_usage(vm_uuid, device, slot)
    return text(secret)


def disk_alias(device: int) -> str:
    return f"ua-disk-{device}"


def nic_alias(device: int) -> str:
    return f"{NIC_ALIAS}{device}"


def name_tap(element: ET.Element, vm_uuid: str, device: int) -> None:
    """Of an interface's element, wherever it came from."""
    for old in element.findall("target"):
        element.remove(old)
    ET.SubElement(element, "target", dev=tap_name(vm_uuid, device))


def target_name(device: int) -> str:
    """sda for 0, sdz for 25, sdaa for 26: libvirt's name for it, not the guest's."""
    letters = ""
    number = device + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"sd{letters}"


def disk_element(vm_uuid: str, disk: Disk, boot_order: int = 0) -> ET.Element:
    kind = "network" if isinstance(disk.source, IscsiSource) else "file"
    element = ET.Element("disk", type=kind, device=disk.kind)
    file_format = "raw" if disk.source is None or isinstance(disk.source, IscsiSource) else disk.source.format
    ET.SubElement(
        element, "driver", name="qemu", type=file_format, cache="none", discard="unmap",
        error_policy="stop", rerror_policy="stop",
    )  # fmt: skip
    if isinstance(disk.source, IscsiSource):
        element.append(iscsi_source_element(vm_uuid, disk.device, disk.source))
    elif disk.source is not None:
        ET.SubElement(element, "source", file=disk.source.path)
    ET.SubElement(element, "target", dev=target_name(disk.device), bus="scsi")
    if disk.read_only or disk.kind == "cdrom":
        ET.SubElement(element, "readonly")
    ET.SubElement(element, "serial").text = disk.serial
    if boot_order:
        ET.SubElement(element, "boot", order=str(boot_order))
    ET.SubElement(element, "alias", name=disk_alias(disk.device))
    ET.SubElement(element, "address", type="drive", controller="0", bus="0", target=str(disk.device), unit="0")
    return element


def iscsi_source_element(vm_uuid: str, device: int, source: IscsiSource, slot: int = 0) -> ET.Element:
    element = ET.Element("source", protocol="iscsi", name=f"{source.target}/{source.lun}")
    ET.SubElement(element, "host", name=source.host, port=str(source.port))
    if source.chap_user:
        auth = ET.SubElement(element, "auth", username=source.chap_user)
        ET.SubElement(auth, "secret", type="iscsi", uuid=secret_uuid(vm_uuid, device, slot))
    initiator = ET.SubElement(element, "initiator")
    ET.SubElement(initiator, "iqn", name=source.initiator)
    if source.size_bytes:
        part = ET.SubElement(ET.SubElement(element, "slices"), "slice", type="storage")
        part.set("offset", str(source.offset_bytes))
        part.set("size", str(source.size_bytes))
    return element


def nic_element(vm_uuid: str, nic: Nic, boot_order: int = 0) -> ET.Element:
    element = ET.Element("interface", type="bridge")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", bridge=nic.bridge)
    ET.SubElement(element, "target", dev=tap_name(vm_uuid, nic.device))
    ET.SubElement(element, "model", type="virtio")
    ET.SubElement(element, "mtu", size=str(nic.mtu))
    if boot_order:
        ET.SubElement(element, "boot", order=str(boot_order))
    else:
        ET.SubElement(element, "rom", enabled="no")  # iPXE costs memory and boot time
    ET.SubElement(element, "alias", name=nic_alias(nic.device))
    return element


def disk_xml(vm_uuid: str, disk: Disk) -> str:
    return text(disk_element(vm_uuid, disk))


def nic_xml(vm_uuid: str, nic: Nic) -> str:
    return text(nic_element(vm_uuid, nic))


def boot_orders(spec: DomainSpec) -> tuple[dict[int, int], dict[int, int]]:
    """(disk device -> order, NIC device -> order) from the letters of ``boot_order``."""
    disks: dict[int, int] = {}
    nics: dict[int, int] = {}
    number = 0
    hard = [disk for disk in spec.disks if disk.kind == "disk"]
    bootable = [disk.device for disk in hard if disk.bootable] or sorted(disk.device for disk in hard)[:1]
    drives = [disk.device for disk in spec.disks if disk.kind == "cdrom"]
    for letter in spec.boot_order:
        place = nics if letter == "n" else disks
        devices = {"c": bootable, "d": drives, "n": [nic.device for nic in spec.nics]}[letter]
        for device in sorted(devices):
            number += 1
            place[device] = number
    return disks, nics


def domain_xml(spec: DomainSpec, accelerator: Accelerator, paths: Paths) -> str:
    domain = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    ET.SubElement(domain, "name").text = spec.uuid  # libvirt's names are unique, name_labels are not
    ET.SubElement(domain, "uuid").text = spec.uuid
    label = " ".join(_NOT_XML.sub("", spec.name_label).split())  # a title is one line
    if label:
        ET.SubElement(domain, "title").text = label
    metadata = ET.SubElement(domain, "metadata")
    ET.SubElement(metadata, f"{{{METADATA_URI}}}start").text = spec.start_id
    ET.SubElement(domain, "memory", unit="KiB").text = str(spec.memory_bytes // 1024)
    if spec.memory_target_bytes:
        ET.SubElement(domain, "currentMemory", unit="KiB").text = str(spec.memory_target_bytes // 1024)
    vcpu = ET.SubElement(domain, "vcpu", current=str(spec.vcpus))
    vcpu.text = str(max(spec.vcpus, spec.vcpus_max))
    os_element = ET.SubElement(domain, "os")
    ET.SubElement(os_element, "type", arch="x86_64", machine="pc").text = "hvm"
    if spec.bios_strings:
        ET.SubElement(os_element, "smbios", mode="sysinfo")
        domain.append(_sysinfo(spec.bios_strings))
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if accelerator == "kvm":
        ET.SubElement(domain, "cpu", mode="host-model", check="partial")
    else:
        ET.SubElement(domain, "cpu", mode="maximum")
        cache_mib = TB_CACHE_SMALL_MIB if spec.memory_bytes <= SMALL_GUEST_BYTES else TB_CACHE_MIB
        ET.SubElement(ET.SubElement(features, "tcg"), "tb-cache", unit="MiB").text = str(cache_mib)
    ET.SubElement(domain, "clock", offset="utc")
    # what its owner wants done is decided by the coordinator: a guest that gives up stays as it is until then
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "preserve")):
        ET.SubElement(domain, f"on_{event}").text = action
    domain.append(_devices(spec, paths))
    return text(domain)


def _sysinfo(strings: dict[str, str]) -> ET.Element:
    sysinfo = ET.Element("sysinfo", type="smbios")
    for name, (block_name, entry, _) in BIOS_STRINGS.items():
        if strings.get(name):
            block = sysinfo.find(block_name)
            if block is None:
                block = ET.SubElement(sysinfo, block_name)
            ET.SubElement(block, "entry", name=entry).text = strings[name]
    return sysinfo


def _devices(spec: DomainSpec, paths: Paths) -> ET.Element:
    devices = ET.Element("devices")
    ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    ET.SubElement(devices, "controller", type="usb", index="0", model="none")  # USB polls, which costs CPU
    disk_orders, nic_orders = boot_orders(spec)
    for disk in sorted(spec.disks, key=lambda disk: disk.device):
        devices.append(disk_element(spec.uuid, disk, disk_orders.get(disk.device, 0)))
    for nic in sorted(spec.nics, key=lambda nic: nic.device):
        devices.append(nic_element(spec.uuid, nic, nic_orders.get(nic.device, 0)))
    serial = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(serial, "source", mode="bind", path=str(paths.serial_socket))
    ET.SubElement(serial, "log", file=str(paths.serial_log), append="on")
    ET.SubElement(serial, "target", port="0")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    graphics = ET.SubElement(devices, "graphics", type="vnc", socket=str(paths.vnc_socket))
    ET.SubElement(graphics, "listen", type="socket", socket=str(paths.vnc_socket))
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type="vga")
    ET.SubElement(devices, "memballoon", model="virtio")
    rng = ET.SubElement(devices, "rng", model="virtio")
    ET.SubElement(rng, "backend", model="random").text = "/dev/urandom"
    ET.SubElement(devices, "panic", model="isa")  # by which a guest tells that it has given up
    return devices


def text(element: ET.Element) -> str:
    ET.register_namespace("gespann", METADATA_URI)
    return ET.tostring(element, encoding="unicode")


def _nics(root: ET.Element) -> tuple[dict[int, str], dict[int, str]]:
    nics: dict[int, str] = {}
    taps: dict[int, str] = {}
    for element in root.findall("devices/interface"):
        alias, mac, target = element.find("alias"), element.find("mac"), element.find("target")
        name = alias.get("name", "") if alias is not None else ""
        if name.startswith(NIC_ALIAS) and mac is not None:
            device = int(name.removeprefix(NIC_ALIAS))
            nics[device] = mac.get("address", "")
            taps[device] = target.get("dev", "") if target is not None else ""
    return nics, taps


def parse_domain(text: str) -> DomainView:
    """A domain that is not ours (no start in its metadata) has an empty start_id."""
    root = fromstring(text)
    disks: dict[int, str] = {}
    cdroms: set[int] = set()
    for element in root.findall("devices/disk"):
        address = element.find("address")
        if address is None or address.get("target") is None:
            continue
        device = int(address.get("target", "0"))
        disks[device] = element.findtext("serial", "")
        if element.get("device") == "cdrom":
            cdroms.add(device)
    nics, taps = _nics(root)
    vcpu = root.find("vcpu")
    highest = root.findtext("vcpu", "0")
    agent = root.find(f"devices/channel/target[@name='{AGENT_CHANNEL}']")
    return DomainView(
        uuid=root.findtext("uuid", ""),
        start_id=root.findtext(f"metadata/{{{METADATA_URI}}}start", ""),
        memory_bytes=int(root.findtext("currentMemory", root.findtext("memory", "0"))) * 1024,
        memory_max_bytes=int(root.findtext("memory", "0")) * 1024,
        vcpus=int(vcpu.get("current", highest)) if vcpu is not None else 0,
        vcpus_max=int(highest),
        disks=disks,
        cdroms=frozenset(cdroms),
        nics=nics,
        taps=taps,
        agent_connected=agent is not None and agent.get("state") == "connected",
    )
