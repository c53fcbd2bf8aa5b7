"""Plugging and unplugging while a machine runs."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial

import libvirt
from defusedxml.ElementTree import fromstring
from libvirt_qemu import qemuMonitorCommand

from gespann.host.bridges import check_bridge
from gespann.host.libvirt import secrets
from gespann.host.libvirt.connection import ConnectionLost
from gespann.host.libvirt.cpu_tuning import pin_as_the_first
from gespann.host.libvirt.domain_view import find
from gespann.host.libvirt.domain_xml import DomainView, disk_alias, disk_xml, nic_alias, nic_xml, target_name, text
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.mirror_xml import moving_disk
from gespann.host.libvirt.power import check_sources
from gespann.host.nic_filter import NicFilter, tap_name
from gespann.seams.host_agent import Disk, Nic
from gespann.seams.json_lines import SeamError

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
ATTACH_DEADLINE_S = 60.0
VCPU_S = 6.0
#: how often, and how long apart: a guest closes the tray when it looks at its drives while it boots
TRAY_TRIES = 25
TRAY_WAIT_S = 0.2
TRAY_CLOSED = re.compile(r"Tray of .* is not open")  # QEMU, of taking a medium out as of putting one in


async def past_the_tray(change: Callable[[], Awaitable[None]], open_tray: Callable[[], Awaitable[None]]) -> None:
    """libvirt opens the tray and then puts the medium in. A guest that closes it in between makes QEMU refuse, and
    libvirt goes on believing it open: so it is opened past libvirt, and the change tried again."""
    for left in reversed(range(TRAY_TRIES)):
        try:
            return await change()
        except SeamError as error:
            if not left or not TRAY_CLOSED.search(error.message):
                raise
        await open_tray()
        await asyncio.sleep(TRAY_WAIT_S)


class Devices:
    def __init__(self, machines: Machines, nic_filter: NicFilter) -> None:
        self._machines = machines
        self._filter = nic_filter

    async def disk_attach(self, uuid: str, disk: Disk) -> None:
        async with self._machines.locks[uuid]:
            _, view = await self._machines.need(uuid)
            there = view.disks.get(disk.device)
            if there is not None and (disk.device in view.cdroms) != (disk.kind == "cdrom"):
                raise SeamError("BAD_STATE", f"device {disk.device} of {uuid} is of another kind")
            if there is not None and disk.kind == "disk":
                if there == disk.serial:
                    return
                raise SeamError("BAD_STATE", f"disk {disk.device} of {uuid} is another one, {there}")
            await check_sources([disk])
            await self._plug_disk(uuid, disk, change=there is not None)

    async def _plug_disk(self, uuid: str, disk: Disk, *, change: bool) -> None:
        """``change``: the medium of a CD drive that is there."""

        def work(connection: libvirt.virConnect) -> None:
            domain = find(connection, uuid)
            if domain is None:
                raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
            secrets.define(connection, uuid, [disk])
            try:
                if change:
                    domain.updateDeviceFlags(disk_xml(uuid, disk), LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE)
                else:
                    domain.attachDeviceFlags(disk_xml(uuid, disk), LIVE)
            except libvirt.libvirtError:
                secrets.undefine(connection, uuid, [disk.device])
                raise
            if disk.source is None:
                secrets.undefine(connection, uuid, [disk.device])

        async def plug() -> None:
            await self._machines.connection.call(f"attach to {uuid}", work, deadline_s=ATTACH_DEADLINE_S)

        async def open_tray() -> None:
            words = {"execute": "blockdev-open-tray", "arguments": {"id": disk_alias(disk.device), "force": True}}
            command = json.dumps(words)
            await self._machines.act("open a tray of", uuid, lambda domain: qemuMonitorCommand(domain, command, 0))

        try:
            await (past_the_tray(plug, open_tray) if change else plug())
        except ConnectionLost:
            _, view = await self._machines.need(uuid)
            if change or view.disks.get(disk.device) != disk.serial:
                raise

    async def disk_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        async with self._machines.locks[uuid]:
            await self._unplug(uuid, disk_alias(device), f"disk {device}", lambda view: device in view.disks, timeout_s)
            await self._machines.connection.call(
                "undefine secret", lambda connection: secrets.undefine(connection, uuid, [device])
            )

    async def disk_resize(self, uuid: str, device: int, size_bytes: int) -> None:
        _, view = await self._machines.need(uuid)
        if device not in view.disks:
            raise SeamError("NOT_FOUND", f"{uuid} has no disk {device}")

        def resize(domain: libvirt.virDomain) -> None:
            disk = moving_disk(domain.XMLDesc(0), device)
            if disk is not None and disk.is_part:
                raise SeamError("BAD_STATE", f"disk {device} of {uuid} keeps the size that it has until the next start")
            domain.blockResize(target_name(device), size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

        await self._machines.act("resize a disk of", uuid, resize)

    async def nic_attach(self, uuid: str, nic: Nic) -> None:
        async with self._machines.locks[uuid]:
            _, view = await self._machines.need(uuid)
            there = view.nics.get(nic.device)
            if there not in (None, nic.mac):
                raise SeamError("BAD_STATE", f"NIC {nic.device} of {uuid} is another one, {there}")
            await check_bridge(nic.bridge)
            await self._filter.ensure({view.taps.get(nic.device) or tap_name(uuid, nic.device): nic})
            if there is not None:
                await self._machines.act("move a NIC of", uuid, partial(_to_bridge, nic))
                return
            await self._machines.act(
                "attach to", uuid, lambda domain: domain.attachDeviceFlags(nic_xml(uuid, nic), LIVE)
            )

    async def nic_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        async with self._machines.locks[uuid]:
            await self._unplug(uuid, nic_alias(device), f"NIC {device}", lambda view: device in view.nics, timeout_s)

    async def vcpus(self, uuid: str, vcpus: int) -> None:
        """libvirt unplugs as many as the guest lets go of within 5 s each."""
        async with self._machines.locks[uuid]:
            _, view = await self._machines.need(uuid)
            if vcpus > view.vcpus_max:
                raise SeamError("BAD_STATE", f"{uuid} was started for at most {view.vcpus_max} vCPUs")
            if vcpus == view.vcpus:
                return
            deadline_s = ATTACH_DEADLINE_S + VCPU_S * abs(vcpus - view.vcpus)
            try:
                await self._machines.act(
                    "set the vCPUs of", uuid, lambda domain: domain.setVcpusFlags(vcpus, LIVE), deadline_s=deadline_s
                )
            except SeamError as error:
                if vcpus < view.vcpus and error.code != "NOT_FOUND":
                    raise SeamError("REFUSED", f"the guest did not let go of its vCPUs: {error.message}") from error
                raise
            await self._machines.look(uuid)
            if vcpus > view.vcpus:
                await self._machines.act("tune", uuid, partial(pin_as_the_first, range(view.vcpus, vcpus)))

    async def _unplug(
        self, uuid: str, alias: str, what: str, is_there: Callable[[DomainView], bool], timeout_s: float
    ) -> None:
        """Returns when the guest has let go; libvirt tells of it after QEMU has closed what was behind."""
        _, view = await self._machines.need(uuid)
        if not is_there(view):
            return
        removal = self._machines.removal_of(uuid, alias)
        try:
            await self._machines.act("detach from", uuid, lambda domain: domain.detachDeviceAlias(alias, LIVE))
            done, _ = await asyncio.wait({removal}, timeout=timeout_s)
        finally:
            self._machines.forget_removal(uuid, alias)
        seen = await self._machines.look(uuid)
        if seen is None or not is_there(seen[1]):
            return
        why = "refused to" if done else f"did not within {timeout_s:g} s"
        raise SeamError("REFUSED", f"the guest of {uuid} {why} let go of {what}")


def _to_bridge(nic: Nic, domain: libvirt.virDomain) -> None:
    """In a worker. libvirt is given the NIC as it is, but for the bridge: nothing else can change while it is there."""
    for element in fromstring(domain.XMLDesc(0)).findall("devices/interface"):
        alias, source = element.find("alias"), element.find("source")
        if alias is None or source is None or alias.get("name") != nic_alias(nic.device):
            continue
        if source.get("bridge") != nic.bridge:
            source.attrib.clear()
            source.set("bridge", nic.bridge)
            domain.updateDeviceFlags(text(element), LIVE)
