"""A machine's memory, written into a volume and read back.

Saving is a snapshot of the memory alone, which leaves the machine as it is, paused: what becomes of it is decided by
who asked, once the volume is durable. libvirt's own ``save`` would kill the machine first.
"""

import asyncio
import contextlib
import os
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import libvirt

from gespann.host.libvirt.domain_view import find
from gespann.host.libvirt.domain_xml import target_name
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.power import Power, check_portals
from gespann.host.memory_file import MemoryFiles
from gespann.seams.host_agent import Domain, DomainSpec, FileSource, IscsiSource
from gespann.seams.json_lines import SeamError

PROGRESS_S = 5.0
WRITTEN_ALREADY = "paused due to previous migration"  # QEMU's migrate_prepare


def snapshot_xml(path: Path, devices: list[int]) -> str:
    """Memory only: no disk takes part. Elements as on libvirt's formatsnapshot page."""
    snapshot = ET.Element("domainsnapshot")
    ET.SubElement(snapshot, "memory", snapshot="external", file=str(path))
    disks = ET.SubElement(snapshot, "disks")
    for device in devices:
        ET.SubElement(disks, "disk", name=target_name(device), snapshot="no")
    return ET.tostring(snapshot, encoding="unicode")


@dataclass
class _Work:
    uuid: str
    stopped: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Memory:
    def __init__(self, machines: Machines, power: Power, files: MemoryFiles) -> None:
        self._machines = machines
        self._power = power
        self._files = files
        self._under_way: dict[str, _Work] = {}

    async def save(
        self, uuid: str, start_id: str, image_id: str, target: IscsiSource | FileSource, timeout_s: float
    ) -> None:
        machines = self._machines
        async with self._work(image_id, uuid), machines.locks[uuid]:
            domain, view = await machines.need(uuid)
            if domain.start_id != start_id:
                raise SeamError("NOT_FOUND", f"{uuid} runs as start {domain.start_id}")
            if domain.state != "paused":
                raise SeamError("BAD_STATE", f"{uuid} is {domain.state}, not paused")
            async with self._file(image_id, target, read_only=False) as path:
                await _check_size(path, domain.memory_bytes)
                xml = snapshot_xml(path, sorted(view.disks))
                await machines.act("save the memory of", uuid, partial(_save, xml), deadline_s=timeout_s)

    async def restore(
        self, spec: DomainSpec, image_id: str, memory: IscsiSource | FileSource, timeout_s: float
    ) -> Domain:
        async with self._work(image_id, spec.uuid):
            there = await self._machines.look(spec.uuid)
            if there is not None and there[0].start_id == spec.start_id:
                return there[0]
            async with self._file(image_id, memory, read_only=True) as path:
                return await self._power.create(spec, memory=path, deadline_s=timeout_s)

    async def progress(self, image_id: str) -> float:
        work = self._under_way.get(image_id)
        if work is None:
            return 0.0
        uuid = work.uuid

        def look(connection: libvirt.virConnect) -> dict[str, int]:
            domain = find(connection, uuid)
            return dict(domain.jobStats()) if domain is not None else {}

        stats = await self._machines.connection.call(f"look at the save of {uuid}", look, deadline_s=PROGRESS_S)
        total = stats.get("memory_total", 0)
        return 1.0 - stats.get("memory_remaining", total) / total if total else 0.0

    async def stop(self, image_id: str) -> None:
        work = self._under_way.get(image_id)
        if work is not None:
            work.stopped = True
            await self._files.kill(image_id)
            await work.over.wait()

    @contextlib.asynccontextmanager
    async def _work(self, image_id: str, uuid: str) -> AsyncIterator[None]:
        if image_id in self._under_way:
            raise SeamError("BAD_STATE", f"{image_id} is being worked on")
        self._under_way[image_id] = work = _Work(uuid)
        try:
            yield
        finally:
            del self._under_way[image_id]
            work.over.set()

    @contextlib.asynccontextmanager
    async def _file(self, image_id: str, source: IscsiSource | FileSource, *, read_only: bool) -> AsyncIterator[Path]:
        """A way out by an exception kills the daemon first, so that libvirt lets go of the machine."""
        await check_portals([source])
        path = await self._files.show(image_id, source, read_only)
        try:
            if self._under_way[image_id].stopped:
                raise SeamError("BAD_STATE", f"{image_id} was stopped")
            yield path
        except BaseException:
            await self._files.kill(image_id)
            raise
        await self._files.end(image_id)


def _save(xml: str, domain: libvirt.virDomain) -> None:
    """In a worker. QEMU writes the memory of a machine only once, until that has run again: for a repeat it does so,
    for an instant."""
    try:
        domain.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)
    except libvirt.libvirtError as error:
        if WRITTEN_ALREADY not in str(error):
            raise
        domain.resume()
        domain.suspend()
        domain.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)


async def _check_size(path: Path, memory_bytes: int) -> None:
    """Before minutes of writing: memory that is nowhere zero takes more than its own size."""
    size_bytes = (await asyncio.to_thread(os.stat, path)).st_size
    if size_bytes < memory_bytes:
        raise SeamError("STORAGE", f"a volume of {size_bytes} bytes is too small for {memory_bytes} bytes of memory")
