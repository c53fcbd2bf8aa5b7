"""Disks that move to other volumes while their machine runs: libvirt's block copy, which is QEMU's mirror job.

    nothing ──copy──► copying ──► in step ──pivot──► the disk is the copy
       ▲                 │ abort, failure │
       └─────────────────┴────────────────┘

Which of these it is, the machine's XML says; nothing is kept here, so an agent that starts again knows as much. A job
that fails is taken away by libvirt, and the disk is then as it was before.
"""

import asyncio
import contextlib

import libvirt

from gespann.host.libvirt import secrets
from gespann.host.libvirt.domain_view import find
from gespann.host.libvirt.domain_xml import target_name
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.mirror_xml import MovingDisk, copy_xml, fitting_source, moving_disk, other_slot
from gespann.host.libvirt.power import check_portals
from gespann.seams.host_agent import IscsiSource
from gespann.seams.host_mirror import MirrorTarget, opening_meant
from gespann.seams.json_lines import SeamError

LOOK_AGAIN_S = 0.2
START_DEADLINE_S = 60.0
END_DEADLINE_S = 60.0
#: into what is there already: the storage has made it, and nothing else may be made
COPY_FLAGS = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB


class Mirrors:
    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def mirror(self, uuid: str, start_id: str, device: int, source: IscsiSource, volume_bytes: int) -> None:
        to = opening_meant(source)
        async with self._machines.locks[uuid]:
            disk = await self._need(uuid, start_id, device)
            if disk.leads_to == to:
                raise SeamError("BAD_STATE", f"disk {device} of {uuid} is that volume already")
            if disk.mirror is None:
                await check_portals([source])
                fitting = fitting_source(source, volume_bytes, await self._length_bytes(uuid, device))
                await self._begin(uuid, device, fitting, other_slot(uuid, device, disk.secret))
            elif disk.mirror != to:
                raise SeamError("BAD_STATE", f"disk {device} of {uuid} is being copied to {disk.mirror.target}")
        while True:
            disk = await self._need(uuid, start_id, device)
            if disk.mirror != to:
                await self._forget_secret(uuid, device, other_slot(uuid, device, disk.secret))
                raise SeamError(
                    "STORAGE", f"{to.target} does not take all of disk {device}: full, or not there any more"
                )
            if disk.in_step:
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _length_bytes(self, uuid: str, device: int) -> int:
        """Of the disk, as its guest sees it."""

        def work(connection: libvirt.virConnect) -> int:
            domain = find(connection, uuid)
            if domain is None:
                raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
            return int(domain.blockInfo(target_name(device))[0])

        return await self._machines.connection.call(f"ask for the size of a disk of {uuid}", work)

    async def _begin(self, uuid: str, device: int, source: IscsiSource, slot: int) -> None:
        def work(connection: libvirt.virConnect) -> None:
            domain = find(connection, uuid)
            if domain is None:
                raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
            secrets.define_slot(connection, uuid, device, source, slot)
            try:
                domain.blockCopy(target_name(device), copy_xml(uuid, device, source, slot), {}, COPY_FLAGS)
            except libvirt.libvirtError:
                secrets.undefine_slot(connection, uuid, device, slot)
                raise

        await self._machines.connection.call(f"mirror a disk of {uuid}", work, deadline_s=START_DEADLINE_S)

    async def progress(self, uuid: str, device: int) -> float:
        def work(connection: libvirt.virConnect) -> float:
            domain = find(connection, uuid)
            job = domain.blockJobInfo(target_name(device)) if domain is not None else None
            return job["cur"] / job["end"] if job and job["end"] > 0 else 0.0

        return await self._machines.connection.call(f"mirror of {uuid}", work, asks=True)

    async def stop(self, uuid: str, device: int, to: MirrorTarget) -> None:
        async with self._machines.locks[uuid]:
            disk = await self._look(uuid, device)
            if disk is None:
                return
            if disk.leads_to == to:
                raise SeamError("BAD_STATE", f"disk {device} of {uuid} is {to.target} by now")
            if disk.mirror == to:
                await self._end_job(uuid, device, 0)
                disk = await self._look(uuid, device)
                if disk is not None and disk.mirror == to:
                    raise SeamError("HYPERVISOR", f"the copy of disk {device} of {uuid} does not end")
            if disk is not None and disk.mirror is None:
                await self._forget_secret(uuid, device, other_slot(uuid, device, disk.secret))

    async def pivot(self, uuid: str, start_id: str, device: int, to: MirrorTarget) -> None:
        async with self._machines.locks[uuid]:
            disk = await self._need(uuid, start_id, device)
            why = "it is not in step with that volume"
            if disk.leads_to != to and disk.mirror == to and disk.in_step:
                try:
                    await self._end_job(uuid, device, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                except SeamError as error:
                    if error.code == "TIMEOUT":
                        raise  # it may still happen
                    why = error.message
                disk = await self._need(uuid, start_id, device)
            if disk.leads_to != to:
                raise SeamError("BAD_STATE", f"disk {device} of {uuid} is not exchanged: {why}")
            await self._forget_secret(uuid, device, other_slot(uuid, device, disk.secret))

    async def _end_job(self, uuid: str, device: int, flags: int) -> None:
        """libvirt answers when the job has ended and what it had open is closed."""
        name = target_name(device)
        what = "pivot a disk of" if flags else "end the mirror of"
        await self._machines.act(what, uuid, lambda domain: _end(domain, name, flags), deadline_s=END_DEADLINE_S)

    async def _forget_secret(self, uuid: str, device: int, slot: int) -> None:
        await self._machines.connection.call(
            "undefine secret", lambda connection: secrets.undefine_slot(connection, uuid, device, slot)
        )

    async def _need(self, uuid: str, start_id: str, device: int) -> MovingDisk:
        disk = await self._look(uuid, device)
        if disk is None or disk.start_id != start_id:
            raise SeamError("NOT_FOUND", f"no disk {device} of {uuid} start {start_id} is here")
        return disk

    async def _look(self, uuid: str, device: int) -> MovingDisk | None:
        def work(connection: libvirt.virConnect) -> MovingDisk | None:
            domain = find(connection, uuid)
            try:
                return moving_disk(domain.XMLDesc(0), device) if domain is not None else None
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        return await self._machines.connection.call(f"look at a disk of {uuid}", work, asks=True)


def _end(domain: libvirt.virDomain, name: str, flags: int) -> None:
    """In a worker. A job that has just ended by itself is not there to be aborted."""
    with contextlib.suppress(libvirt.libvirtError) if not flags else contextlib.nullcontext():
        domain.blockJobAbort(name, flags)
