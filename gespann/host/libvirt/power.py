"""Starting, stopping and killing machines."""

import asyncio
import contextlib
import os
import shutil
import stat
import threading
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import ParseError

import libvirt

from gespann.host.bridges import check_bridge
from gespann.host.facts import free_bytes, meminfo
from gespann.host.libvirt import qemu_process, secrets
from gespann.host.libvirt.connection import ConnectionLost
from gespann.host.libvirt.cpu_tuning import tune_at_start
from gespann.host.libvirt.domain_view import find, paths_of
from gespann.host.libvirt.domain_xml import Accelerator, Paths, domain_xml, parse_domain
from gespann.host.libvirt.guest import set_agent_timeout
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.saved_xml import restored_xml
from gespann.host.nic_filter import NicFilter, tap_name
from gespann.seams.host_agent import Disk, Domain, DomainSpec, FileSource, IscsiSource
from gespann.seams.json_lines import SeamError
from gespann.system.files import private_directory

CREATE_DEADLINE_S = 120.0
PORTAL_DEADLINE_S = 5.0
DESTROY_LOOK_S = 3.0
DESTROY_PATIENCE_S = 1.5  # libvirt itself waits 10 s between SIGTERM and SIGKILL
DESTROY_DEADLINE_S = 30.0
SETTLE_S = 2.0  # for libvirtd to notice; not waited for longer when it hangs
PRESS_AGAIN_S = 10.0  # a guest that has only begun to boot does not see the power button
SOCKET_PATH_BYTES = 107
SERIAL_LOG_LIMIT_BYTES = 4 * 1024**2  # looked at when a machine starts; while it runs, virtlogd rotates


async def check_sources(disks: list[Disk]) -> None:
    """STORAGE when a portal does not answer or a file is not there: asked before QEMU is, which would hold libvirt's
    lock on the machine for as long as TCP tries."""
    await check_portals([disk.source for disk in disks if disk.source is not None])
    for disk in disks:
        if isinstance(disk.source, FileSource) and not await asyncio.to_thread(os.path.isfile, disk.source.path):
            raise SeamError("STORAGE", f"{disk.source.path} is not there")


async def check_portals(sources: list[IscsiSource | FileSource]) -> None:
    portals = {(source.host, source.port) for source in sources if isinstance(source, IscsiSource)}
    await asyncio.gather(*(_check_portal(host, port) for host, port in portals))


async def _check_portal(host: str, port: int) -> None:
    try:
        async with asyncio.timeout(PORTAL_DEADLINE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or f"no answer within {PORTAL_DEADLINE_S:g} s"
        raise SeamError("STORAGE", f"portal {host}:{port}: {why}") from None
    writer.close()


async def _has_qemu(uuid: str) -> bool:
    return bool(await asyncio.to_thread(qemu_process.qemu_pids, uuid))


class Power:
    """``qemu_uid``: the user QEMU runs as, None for root."""

    def __init__(self, machines: Machines, nic_filter: NicFilter) -> None:
        self._machines = machines
        self._filter = nic_filter
        self.accelerator: Accelerator = "tcg"
        self.qemu_uid: int | None = None

    # --- create

    async def create(
        self, spec: DomainSpec, memory: Path | None = None, deadline_s: float = CREATE_DEADLINE_S
    ) -> Domain:
        """``memory``: a file with what it had in memory; it is paused then."""
        machines, uuid = self._machines, spec.uuid
        doomed = machines.doomed[uuid]
        async with machines.locks[uuid]:
            there = await machines.look(uuid)
            if there is not None:
                if there[0].start_id != spec.start_id:
                    raise SeamError("EXISTS", f"{uuid} runs as start {there[0].start_id}")
                return there[0]
            if machines.known(uuid) is not None:
                machines.stopped(uuid, "unknown")  # its event is still on the way
            await self.check(spec)
            if machines.doomed[uuid] != doomed:
                raise SeamError("BAD_STATE", f"{uuid} was destroyed while it started")
            machines.starting[uuid] = spec.start_id
            try:
                domain = await self._start(spec, memory, deadline_s)
            except BaseException:
                await self._undo(uuid)
                raise
            finally:
                machines.starting.pop(uuid, None)
            if machines.doomed[uuid] != doomed:
                await self._undo(uuid)
                raise SeamError("BAD_STATE", f"{uuid} was destroyed while it started")
            return domain

    async def check(self, spec: DomainSpec) -> None:
        free = free_bytes(await asyncio.to_thread(meminfo), self._machines.used_memory_bytes())
        if spec.memory_bytes > free:
            raise SeamError("NO_MEMORY", f"{spec.memory_bytes} bytes asked for, {free} are free")
        for bridge in {nic.bridge for nic in spec.nics}:
            await check_bridge(bridge)
        await check_sources(spec.disks)

    async def lock_nics(self, spec: DomainSpec) -> None:
        """Before their taps are there."""
        await self._filter.ensure({tap_name(spec.uuid, nic.device): nic for nic in spec.nics})

    async def _start(self, spec: DomainSpec, memory: Path | None, deadline_s: float) -> Domain:
        paths = await asyncio.to_thread(self.make_directories, spec.uuid)
        await self.lock_nics(spec)

        def work(connection: libvirt.virConnect) -> None:
            secrets.define(connection, spec.uuid, spec.disks)
            if memory is None:
                flags = libvirt.VIR_DOMAIN_START_PAUSED if spec.paused else 0
                domain = connection.createXML(domain_xml(spec, self.accelerator, paths), flags)
            else:
                domain = _restore(connection, spec, str(memory), paths)
            tune_at_start(domain, spec.tuning)
            with contextlib.suppress(libvirt.libvirtError):
                set_agent_timeout(domain)

        try:
            await self._machines.connection.call(f"create {spec.uuid}", work, deadline_s=deadline_s)
        except ConnectionLost:
            # libvirtd went in the middle: what runs when it is back is what counts.
            seen = await self._machines.look(spec.uuid)
            if seen is None or seen[0].start_id != spec.start_id:
                raise
        seen = await self._machines.look(spec.uuid)
        if seen is None:
            raise SeamError("HYPERVISOR", f"{spec.uuid} ended as soon as it had started")
        return seen[0]

    def make_directories(self, uuid: str) -> Paths:
        paths = paths_of(self._machines.run_dir, self._machines.data_dir, uuid)
        if len(os.fsencode(paths.serial_socket)) > SOCKET_PATH_BYTES:
            raise SeamError(
                "HYPERVISOR", f"{paths.serial_socket}: a socket's path has at most {SOCKET_PATH_BYTES} bytes"
            )
        for directory in (paths.serial_socket.parent, paths.serial_log.parent):
            private_directory(directory)
            if self.qemu_uid is not None:
                os.chown(directory, self.qemu_uid, -1)
        if paths.serial_log.exists() and paths.serial_log.stat().st_size > SERIAL_LOG_LIMIT_BYTES:
            paths.serial_log.replace(paths.serial_log.with_suffix(".log.1"))
        if self.qemu_uid is not None:  # it has to get through to what is its own
            for way in (self._machines.run_dir, paths.serial_socket.parent.parent, self._machines.data_dir):
                os.chmod(way, stat.S_IMODE(os.stat(way).st_mode) | stat.S_IXOTH)
        return paths

    async def _undo(self, uuid: str) -> None:
        """Nothing of a start that failed is left. Its own failures do not hide the first one."""
        with contextlib.suppress(SeamError):
            await self._kill(uuid)
        with contextlib.suppress(SeamError):
            await self._machines.connection.call("undefine secrets", lambda at: secrets.undefine_all(at, uuid))
        self._machines.stopped(uuid, "failed")
        shutil.rmtree(self._directory(uuid), ignore_errors=True)

    def _directory(self, uuid: str) -> Path:
        return paths_of(self._machines.run_dir, self._machines.data_dir, uuid).serial_socket.parent

    # --- destroy

    async def destroy(self, uuid: str, start_id: str | None) -> None:
        """Takes no lock: it must work while anything else about this machine hangs."""
        machines = self._machines
        if start_id is not None:
            running = await self._running_start(uuid)
            meant = running or machines.starting.get(uuid)
            if meant not in (None, start_id) or (meant is None and not await _has_qemu(uuid)):
                return
        machines.doomed[uuid] += 1
        await self._kill(uuid)
        with contextlib.suppress(SeamError):
            if uuid not in machines.starting:
                await machines.connection.call(
                    "undefine secrets", lambda at: secrets.undefine_all(at, uuid), deadline_s=SETTLE_S
                )
        if uuid not in machines.starting:
            machines.stopped(uuid, "destroyed")
            shutil.rmtree(self._directory(uuid), ignore_errors=True)

    async def _running_start(self, uuid: str) -> str | None:
        """Which start runs: by libvirt, or by memory if that does not answer."""

        def work(connection: libvirt.virConnect) -> str | None:
            domain = find(connection, uuid)
            try:
                return parse_domain(domain.XMLDesc(0)).start_id if domain is not None else None
            except (libvirt.libvirtError, ParseError):
                return None

        try:
            return await self._machines.connection.call(
                f"look at {uuid}", work, deadline_s=DESTROY_LOOK_S, destroyer=True
            )
        except SeamError:
            known = self._machines.known(uuid)
            if known is None and await _has_qemu(uuid):
                raise
            return known.start_id if known is not None else None

    async def _kill(self, uuid: str) -> None:
        """Returns when QEMU is gone, whatever libvirtd does; HYPERVISOR if it is not."""
        given_up = threading.Event()

        def work(connection: libvirt.virConnect) -> None:
            domain = find(connection, uuid)
            if domain is not None and not given_up.is_set():  # late, it would be the next start that it kills
                with contextlib.suppress(libvirt.libvirtError):  # ended by itself meanwhile; QEMU is looked for below
                    domain.destroy()

        asked = asyncio.create_task(
            self._machines.connection.call(f"destroy {uuid}", work, deadline_s=DESTROY_DEADLINE_S, destroyer=True)
        )
        try:
            await asyncio.wait({asked}, timeout=DESTROY_PATIENCE_S)
            if not await qemu_process.gone(uuid, 0.1):
                await asyncio.to_thread(qemu_process.kill, uuid)
            if not await qemu_process.gone(uuid, DESTROY_DEADLINE_S):
                raise SeamError("HYPERVISOR", f"QEMU of {uuid} does not die")
            await asyncio.wait({asked}, timeout=SETTLE_S)
        finally:
            given_up.set()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    # --- memory

    async def memory_target(self, uuid: str, target_bytes: int) -> None:
        """Its balloon is told; what the guest makes of it libvirt tells as an event."""
        async with self._machines.locks[uuid]:
            _, view = await self._machines.need(uuid)
            if target_bytes > view.memory_max_bytes:
                raise SeamError("BAD_STATE", f"{uuid} was started for at most {view.memory_max_bytes} bytes of memory")
            live = libvirt.VIR_DOMAIN_AFFECT_LIVE
            await self._machines.act(
                "set the memory of", uuid, lambda domain: domain.setMemoryFlags(target_bytes // 1024, live)
            )

    # --- shutdown

    async def shutdown(self, uuid: str, *, reboot: bool, timeout_s: float) -> None:
        domain, _ = await self._machines.need(uuid)
        if domain.state != "running":
            raise SeamError("BAD_STATE", f"{uuid} is {domain.state}")
        if reboot:
            await self._ask_guest(uuid, reboot=True)
            return
        stopped = self._machines.stop_of(uuid)
        try:
            async with asyncio.timeout(timeout_s):
                await self._ask_until(uuid, stopped)
        except TimeoutError:
            if await self._machines.look(uuid) is not None:
                raise SeamError("REFUSED", f"{uuid} still runs {timeout_s:g} s after it was asked to stop") from None
        finally:
            self._machines.forget_stop(uuid, stopped)
        await qemu_process.gone(uuid, DESTROY_DEADLINE_S)
        shutil.rmtree(self._directory(uuid), ignore_errors=True)

    async def _ask_until(self, uuid: str, stopped: asyncio.Future[None]) -> None:
        while True:
            with contextlib.suppress(ConnectionLost):
                try:
                    await self._ask_guest(uuid, reboot=False)
                except SeamError as error:
                    if error.code == "NOT_FOUND":
                        return
            done, _ = await asyncio.wait({stopped}, timeout=PRESS_AGAIN_S)
            if done:
                return
            with contextlib.suppress(SeamError):
                if await self._machines.look(uuid) is None:
                    return

    async def _ask_guest(self, uuid: str, *, reboot: bool) -> None:
        """By its agent; if that is not there or does not answer, by the power button."""
        _, view = await self._machines.need(uuid)
        for way in (_AGENT, _BUTTON) if view.agent_connected else (_BUTTON,):
            try:
                await self._machines.act("reboot" if reboot else "shut down", uuid, partial(_press, way, reboot))
                return
            except SeamError as error:
                if error.code == "NOT_FOUND" or way is _BUTTON:
                    raise


def _restore(connection: libvirt.virConnect, spec: DomainSpec, memory: str, paths: Paths) -> libvirt.virDomain:
    """In a worker."""
    kept = connection.saveImageGetXMLDesc(memory, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    connection.restoreFlags(memory, restored_xml(kept, spec, paths), libvirt.VIR_DOMAIN_SAVE_PAUSED)
    return connection.lookupByUUIDString(spec.uuid)


_AGENT = (libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
_BUTTON = (libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN, libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)


def _press(way: tuple[int, int], reboot: bool, domain: libvirt.virDomain) -> None:
    """In a worker."""
    if reboot:
        domain.reboot(way[1])
    else:
        domain.shutdownFlags(way[0])
