"""Machines that come and go while they run: tickets, and the way between the two libvirts.

    source's libvirtd ─► RUN/peer/TICKET.sock ─► mutual TLS ─► destination's door ─► its libvirtd

So memory crosses the network encrypted, between two certificates that the coordinator has told each side, and libvirt
itself needs no certificates and no open port.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.host import spec_check
from gespann.host.door import Door, Ticket
from gespann.host.hypervisor import Hypervisor
from gespann.host.membership import Membership
from gespann.seams.engine_socket import Empty
from gespann.seams.host_membership import Open
from gespann.seams.host_migration import (
    Landing,
    MigrateEnd,
    MigrateProgress,
    MigrateProgressReply,
    MigrateReceive,
    MigrateSend,
    Sent,
)
from gespann.seams.json_lines import SeamError
from gespann.system.files import private_directory
from gespann.system.mutual_tls import checked_certificate, connect_pinned
from gespann.system.streams import Streams, UnixRelay

log = logging.getLogger(__name__)

CONNECT_WITHIN_S = 10.0
ABORT_AGAIN_S = 0.5
PEERS = "peer"  # below RUN


class Migrations:
    """``door`` and ``membership``: none for an agent that other hosts cannot reach."""

    def __init__(self, hypervisor: Hypervisor, run_dir: Path, membership: Membership | None) -> None:
        self._hypervisor = hypervisor
        self._run_dir = run_dir
        self._membership = membership
        self.door: Door | None = None
        self._sending: dict[str, asyncio.Task[float | None]] = {}  # by ticket

    def open(self) -> None:
        """Of an agent that died while a machine was on its way, the ways to other hosts lead nowhere any more."""
        for left in (self._run_dir / PEERS).glob("*.sock"):
            left.unlink(missing_ok=True)

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            MigrateReceive: self._receive,
            MigrateSend: self._send,
            MigrateProgress: self._progress,
            MigrateEnd: self._end,
        }

    async def _receive(self, request: MigrateReceive) -> Landing:
        spec_check.check_domain(request.spec)
        spec_check.check_image_id(request.ticket)
        certificate = _checked(request.certificate)
        log.info("receive %s start %s", request.spec.uuid, request.spec.start_id)
        socket = self._hypervisor.migration_socket
        if socket is not None:
            if self.door is None:
                raise SeamError("BAD_STATE", "this agent has no door for other hosts")
            await self.door.admit(request.ticket, Ticket(certificate, socket))
        try:
            return await self._hypervisor.migrate_receive(request.spec, request.ticket)
        except BaseException:
            if self.door is not None:
                await self.door.dismiss(request.ticket)
            raise

    async def _send(self, request: MigrateSend) -> Sent:
        spec_check.check_uuid(request.uuid)
        spec_check.check_start_id(request.new_start_id)
        spec_check.check_image_id(request.ticket)
        certificate = _checked(request.certificate)
        job = self._sending.get(request.ticket)
        if job is None:
            log.info("send %s to %s", request.uuid, request.address)
            job = self._sending[request.ticket] = asyncio.create_task(self._carry(request, certificate))
            job.add_done_callback(lambda _: self._sending.pop(request.ticket, None))
        return Sent(stood_still_s=await asyncio.shield(job))

    async def _progress(self, request: MigrateProgress) -> MigrateProgressReply:
        spec_check.check_uuid(request.uuid)
        return MigrateProgressReply(fraction=await self._hypervisor.migrate_progress(request.uuid))

    async def _carry(self, request: MigrateSend, certificate: str) -> float | None:
        if self._hypervisor.migration_socket is None:
            return await self._hypervisor.migrate_send(request, None)
        membership = self._membership
        if membership is None:
            raise SeamError("BAD_STATE", "this agent has no certificate to show")

        async def open_far() -> Streams:
            reader, writer = await connect_pinned(
                request.address, request.port, membership.identity, certificate, CONNECT_WITHIN_S
            )
            writer.write(msgspec.json.encode(Open(what="libvirt", ticket=request.ticket)) + b"\n")
            if await reader.readline() != b'{"ok":true}\n':
                writer.transport.abort()
                raise ConnectionRefusedError("the destination does not expect this machine")
            return reader, writer

        relay = UnixRelay(private_directory(self._run_dir / PEERS) / f"{request.ticket}.sock", open_far)
        await relay.start()
        try:
            return await self._hypervisor.migrate_send(request, relay.path)
        finally:
            await relay.stop()

    async def _end(self, request: MigrateEnd) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_image_id(request.ticket)
        if self.door is not None:
            await self.door.dismiss(request.ticket)
        job = self._sending.get(request.ticket)
        while job is not None and not job.done():
            await self._hypervisor.migrate_abort(request.uuid)  # in vain if it has not quite begun, or is about to end
            await asyncio.wait({job}, timeout=ABORT_AGAIN_S)
        if job is not None and not job.cancelled():
            job.exception()  # who asked for it may have gone away; nobody else need hear of it
        await self._hypervisor.migrate_end(request.uuid, request.ticket)
        return Empty()


def _checked(pem: str) -> str:
    try:
        return checked_certificate(pem)
    except ValueError:
        raise SeamError("BAD_REQUEST", "the other host's certificate cannot be read") from None
