"""Live migration as libvirt does it: peer to peer, tunnelled through the connection of the two libvirtds."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import libvirt

from gespann.host.libvirt import secrets
from gespann.host.libvirt.domain_view import find
from gespann.host.libvirt.domain_xml import parse_domain
from gespann.host.libvirt.guest import set_agent_timeout
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.moved_xml import moved_xml
from gespann.host.libvirt.power import Power
from gespann.seams.host_agent import DomainSpec
from gespann.seams.host_migration import Landing, MigrateSend
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

DEFAULT_SOCKET = Path("/run/libvirt/libvirt-sock")
SEND_DEADLINE_S = 4 * 3600.0  # a large guest on a slow network
#: PAUSED: it arrives standing still, so that there is no moment at which it could run twice, whatever answer gets lost
FLAGS = (
    libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_TUNNELLED
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
LIVE = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_AUTO_CONVERGE


def socket_of(uri: str) -> Path:
    """Libvirtd's own socket, from the URI by which the agent reaches it."""
    named = parse_qs(urlsplit(uri).query).get("socket")
    return Path(named[0]) if named else DEFAULT_SOCKET


class Migration:
    def __init__(self, machines: Machines, power: Power) -> None:
        self._machines = machines
        self._power = power
        self._expected: dict[str, str] = {}  # ticket -> uuid

    async def receive(self, spec: DomainSpec, ticket: str) -> Landing:
        machines = self._machines
        async with machines.locks[spec.uuid]:
            there = await machines.look(spec.uuid)
            if there is not None:
                raise SeamError("EXISTS", f"{spec.uuid} runs here as start {there[0].start_id}")
            await self._power.check(spec)
            await self._power.lock_nics(spec)
            paths = await asyncio.to_thread(self._power.make_directories, spec.uuid)
            machines.starting[spec.uuid] = spec.start_id
            self._expected[ticket] = spec.uuid
            try:
                await machines.connection.call(
                    f"define secrets of {spec.uuid}", lambda at: secrets.define(at, spec.uuid, spec.disks)
                )
            except BaseException:
                machines.starting.pop(spec.uuid, None)
                self._expected.pop(ticket, None)
                raise
        return Landing(
            serial_socket=str(paths.serial_socket), serial_log=str(paths.serial_log), vnc_socket=str(paths.vnc_socket)
        )

    async def send(self, request: MigrateSend, relay: Path) -> float | None:
        uri = f"qemu+unix:///system?socket={relay}"

        def work(connection: libvirt.virConnect) -> None:
            domain = find(connection, request.uuid)
            if domain is None or parse_domain(domain.XMLDesc(0)).start_id != request.start_id:
                raise SeamError("NOT_FOUND", f"no domain {request.uuid} start {request.start_id} runs here")
            live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
            there = moved_xml(live, request.new_start_id, request.disks, request.landing)
            domain.migrateToURI3(uri, {libvirt.VIR_MIGRATE_PARAM_DEST_XML: there}, FLAGS | self._live())

        stopped_s = self._machines.stopped_to_migrate_s
        stopped_s.pop(request.uuid, None)
        await self._machines.connection.call(f"migrate {request.uuid}", work, deadline_s=SEND_DEADLINE_S)
        since_s = stopped_s.pop(request.uuid, None)
        return None if since_s is None else time.monotonic() - since_s

    async def progress(self, uuid: str) -> float:
        def work(connection: libvirt.virConnect) -> float:
            domain = find(connection, uuid)
            job = domain.jobStats() if domain is not None else {}
            whole = int(job.get("memory_total", 0))
            return 1.0 - int(job.get("memory_remaining", whole)) / whole if whole else 0.0

        return await self._machines.connection.call(f"migration of {uuid}", work, asks=True)

    def _live(self) -> int:
        """An emulated machine stands still while its memory goes over: emulation (seen with QEMU 7.2) loses track of
        what a machine writes meanwhile, and its kernel has been seen to die of that on the other side."""
        return LIVE if self._power.accelerator == "kvm" else 0

    async def abort(self, uuid: str) -> None:
        def work(connection: libvirt.virConnect) -> None:
            domain = find(connection, uuid)
            if domain is not None:
                with contextlib.suppress(libvirt.libvirtError):  # nothing is under way (any more)
                    domain.abortJob()

        await self._machines.connection.call(f"abort the migration of {uuid}", work, destroyer=True)

    async def end(self, ticket: str) -> None:
        """On the destination: from here on the machine is one like others, if it has arrived."""
        uuid = self._expected.pop(ticket, None)
        if uuid is None:
            return
        machines = self._machines
        machines.starting.pop(uuid, None)
        if await machines.look(uuid) is None:
            await machines.connection.call("undefine secrets", lambda at: secrets.undefine_all(at, uuid))
            return
        with contextlib.suppress(SeamError):
            await machines.act("limit the agent of", uuid, set_agent_timeout)
