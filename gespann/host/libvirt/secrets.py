"""CHAP secrets as libvirt secrets: they reach QEMU encrypted, and no command line, log or file. One per disk, two while
it moves to another volume, under uuids that follow from VM and device, so that a repeat replaces it and a stop finds
it. All calls run in a worker."""

import contextlib
from collections.abc import Callable, Iterable

import libvirt

from gespann.host.libvirt.domain_xml import SECRET_SLOTS, secret_usage, secret_uuid, secret_xml
from gespann.seams.host_agent import Disk, IscsiSource


def define(connection: libvirt.virConnect, vm_uuid: str, disks: Iterable[Disk]) -> None:
    for disk in disks:
        if isinstance(disk.source, IscsiSource):
            define_slot(connection, vm_uuid, disk.device, disk.source, 0)


def define_slot(connection: libvirt.virConnect, vm_uuid: str, device: int, source: IscsiSource, slot: int) -> None:
    if source.chap_user:
        secret = connection.secretDefineXML(secret_xml(vm_uuid, device, slot))
        secret.setValue(source.chap_secret.encode())


def undefine(connection: libvirt.virConnect, vm_uuid: str, devices: Iterable[int]) -> None:
    for device in devices:
        for slot in SECRET_SLOTS:
            undefine_slot(connection, vm_uuid, device, slot)


def undefine_slot(connection: libvirt.virConnect, vm_uuid: str, device: int, slot: int) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # gone already
        connection.secretLookupByUUIDString(secret_uuid(vm_uuid, device, slot)).undefine()


def undefine_all(connection: libvirt.virConnect, vm_uuid: str) -> None:
    _undefine_where(connection, lambda owner: owner == vm_uuid)


def undefine_strays(connection: libvirt.virConnect, running: set[str]) -> None:
    """Those of machines that do not run: the agent was down when they stopped."""
    _undefine_where(connection, lambda owner: owner not in running)


def _undefine_where(connection: libvirt.virConnect, goes: Callable[[str], bool]) -> None:
    prefix = secret_usage("", 0).partition("/")[0] + "/"
    for secret in connection.listAllSecrets():
        usage = secret.usageID()
        if usage.startswith(prefix) and goes(usage.split("/")[1]):
            with contextlib.suppress(libvirt.libvirtError):
                secret.undefine()
