"""Seam 5, served: each request class goes to one method of the hypervisor. Translates, decides nothing."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann import __version__
from gespann.host import spec_check
from gespann.host.addresses import Addresses
from gespann.host.holds import Holds
from gespann.host.hypervisor import Hypervisor
from gespann.host.membership import Membership
from gespann.host.migration import Migrations
from gespann.host.mirrors import Mirrors
from gespann.host.reports import Reports
from gespann.seams import host_agent as seam
from gespann.seams.engine_socket import Empty
from gespann.seams.host_bonds import CardProperty
from gespann.seams.host_machine import DomainMemory, DomainSysrq, DomainTrigger, DomainTune
from gespann.seams.host_membership import HostPower
from gespann.seams.json_lines import SeamError
from gespann.system.json_lines import JsonLinesServer

log = logging.getLogger(__name__)


class AgentServer:
    """``AgentServer(hypervisor, run_dir / "agent.sock")``; ``start`` connects to the hypervisor first, so that whoever
    can connect to the socket gets true answers."""

    def __init__(self, hypervisor: Hypervisor, socket_path: Path, membership: Membership | None = None) -> None:
        """``membership``: none for an agent that can join no pool."""
        self.hypervisor = hypervisor
        self.membership = membership
        self.holds = Holds(hypervisor, socket_path.parent / "held-guests")
        self.migrations = Migrations(hypervisor, socket_path.parent, membership)
        self.mirrors = Mirrors(hypervisor)
        self.reports = Reports(hypervisor)
        self.addresses = Addresses(hypervisor, membership.data_dir if membership is not None else None)
        self._server = JsonLinesServer(socket_path, self._handlers(), failure_code="HYPERVISOR")

    async def start(self) -> None:
        if self.membership is not None:
            self.membership.told = self._server.broadcast
        await self.hypervisor.open(self._server.broadcast)
        self.addresses.open()
        self.holds.open()
        self.migrations.open()
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()
        await self.addresses.close()
        await self.holds.close()
        await self.hypervisor.close()

    def _handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            seam.Hello: self._hello,
            seam.Facts: self._facts,
            seam.DomainCreate: self._domain_create,
            seam.DomainShutdown: self._domain_shutdown,
            seam.DomainDestroy: self._domain_destroy,
            seam.DomainReset: self._domain_reset,
            seam.DomainPause: self._domain_pause,
            seam.DomainUnpause: self._domain_unpause,
            seam.DomainVcpus: self._domain_vcpus,
            DomainMemory: self._domain_memory,
            DomainTune: self._domain_tune,
            DomainTrigger: self._domain_trigger,
            DomainSysrq: self._domain_sysrq,
            seam.MemorySave: self._memory_save,
            seam.MemoryProgress: self._memory_progress,
            seam.MemoryStop: self._memory_stop,
            seam.DomainRestore: self._domain_restore,
            seam.DomainList: self._domain_list,
            seam.DiskAttach: self._disk_attach,
            seam.DiskDetach: self._disk_detach,
            seam.DiskResize: self._disk_resize,
            seam.NicAttach: self._nic_attach,
            seam.NicDetach: self._nic_detach,
            seam.GuestMetrics: self._guest_metrics,
            seam.GuestFreeze: self._guest_freeze,
            seam.GuestThaw: self._guest_thaw,
            seam.Counters: self._counters,
            seam.ImageOpen: self._image_open,
            seam.ImageClose: self._image_close,
            seam.BridgeEnsure: self._bridge_ensure,
            HostPower: self._host_power,
            CardProperty: self._card_property,
            **self.migrations.handlers(),
            **self.mirrors.handlers(),
            **self.reports.handlers(),
            **self.addresses.handlers(),
            **(self.membership.handlers() if self.membership is not None else {}),
        }

    async def _hello(self, request: seam.Hello) -> seam.HelloReply:
        if request.version != seam.VERSION:
            raise SeamError("BAD_VERSION", f"this agent speaks version {seam.VERSION}, not {request.version}")
        return seam.HelloReply(
            protocol=seam.PROTOCOL,
            version=seam.VERSION,
            agent_version=__version__,
            hypervisor=self.hypervisor.name,
        )

    async def _facts(self, request: seam.Facts) -> seam.FactsReply:
        return self.addresses.shown(await self.hypervisor.facts())

    async def _domain_create(self, request: seam.DomainCreate) -> seam.Domain:
        spec = request.spec
        spec_check.check_domain(spec)
        log.info("create %s start %s", spec.uuid, spec.start_id)
        return await self.hypervisor.create(spec)

    async def _domain_shutdown(self, request: seam.DomainShutdown) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_timeout(request.timeout_s)
        log.info("%s %s", "reboot" if request.reboot else "shutdown", request.uuid)
        await self.hypervisor.shutdown(request.uuid, reboot=request.reboot, timeout_s=request.timeout_s)
        return Empty()

    async def _domain_destroy(self, request: seam.DomainDestroy) -> Empty:
        spec_check.check_uuid(request.uuid)
        if request.start_id is not None:
            spec_check.check_start_id(request.start_id)
        log.info("destroy %s start %s", request.uuid, request.start_id or "any")
        await self.hypervisor.destroy(request.uuid, request.start_id)
        return Empty()

    async def _domain_reset(self, request: seam.DomainReset) -> Empty:
        spec_check.check_uuid(request.uuid)
        log.info("reset %s", request.uuid)
        await self.hypervisor.reset(request.uuid)
        return Empty()

    async def _domain_pause(self, request: seam.DomainPause) -> Empty:
        spec_check.check_uuid(request.uuid)
        await self.hypervisor.pause(request.uuid)
        return Empty()

    async def _domain_unpause(self, request: seam.DomainUnpause) -> Empty:
        spec_check.check_uuid(request.uuid)
        await self.hypervisor.unpause(request.uuid)
        return Empty()

    async def _domain_vcpus(self, request: seam.DomainVcpus) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_vcpus(request.vcpus)
        log.info("%s gets %d vCPUs", request.uuid, request.vcpus)
        await self.hypervisor.vcpus(request.uuid, request.vcpus)
        return Empty()

    async def _domain_memory(self, request: DomainMemory) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_memory(request.target_bytes)
        log.info("%s is to have %d bytes of memory", request.uuid, request.target_bytes)
        await self.hypervisor.memory_target(request.uuid, request.target_bytes)
        return Empty()

    async def _domain_trigger(self, request: DomainTrigger) -> Empty:
        spec_check.check_uuid(request.uuid)
        log.info("%s of %s", request.trigger, request.uuid)
        await self.hypervisor.trigger(request.uuid, request.trigger)
        return Empty()

    async def _domain_sysrq(self, request: DomainSysrq) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_key(request.key)
        log.info("SysRq %s of %s", request.key, request.uuid)
        await self.hypervisor.sysrq(request.uuid, request.key)
        return Empty()

    async def _memory_save(self, request: seam.MemorySave) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_start_id(request.start_id)
        spec_check.check_image_id(request.image_id)
        spec_check.check_source(request.target)
        spec_check.check_timeout(request.timeout_s)
        log.info("save the memory of %s start %s as %s", request.uuid, request.start_id, request.image_id)
        await self.hypervisor.memory_save(
            request.uuid, request.start_id, request.image_id, request.target, request.timeout_s
        )
        return Empty()

    async def _domain_tune(self, request: DomainTune) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_tuning(request.tuning)
        spec_check.check_tuning(request.before)
        await self.hypervisor.tune(request.uuid, request.tuning, request.before)
        return Empty()

    async def _memory_progress(self, request: seam.MemoryProgress) -> seam.MemoryProgressReply:
        spec_check.check_image_id(request.image_id)
        return seam.MemoryProgressReply(fraction=await self.hypervisor.memory_progress(request.image_id))

    async def _memory_stop(self, request: seam.MemoryStop) -> Empty:
        spec_check.check_image_id(request.image_id)
        await self.hypervisor.memory_stop(request.image_id)
        return Empty()

    async def _domain_restore(self, request: seam.DomainRestore) -> seam.Domain:
        spec_check.check_domain(request.spec)
        spec_check.check_image_id(request.image_id)
        spec_check.check_source(request.memory)
        spec_check.check_timeout(request.timeout_s)
        log.info("restore %s start %s from %s", request.spec.uuid, request.spec.start_id, request.image_id)
        return await self.hypervisor.restore(request.spec, request.image_id, request.memory, request.timeout_s)

    async def _domain_list(self, request: seam.DomainList) -> seam.DomainListReply:
        return seam.DomainListReply(domains=await self.hypervisor.domains())

    async def _disk_attach(self, request: seam.DiskAttach) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_disk(request.disk)
        log.info("attach disk %d to %s: %r", request.disk.device, request.uuid, request.disk.source)
        await self.hypervisor.disk_attach(request.uuid, request.disk)
        return Empty()

    async def _disk_detach(self, request: seam.DiskDetach) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_device(request.device)
        spec_check.check_timeout(request.timeout_s)
        log.info("detach disk %d from %s", request.device, request.uuid)
        await self.hypervisor.disk_detach(request.uuid, request.device, request.timeout_s)
        return Empty()

    async def _disk_resize(self, request: seam.DiskResize) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_device(request.device)
        spec_check.check_size(request.size_bytes)
        await self.hypervisor.disk_resize(request.uuid, request.device, request.size_bytes)
        return Empty()

    async def _nic_attach(self, request: seam.NicAttach) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_nic(request.nic)
        await self.hypervisor.nic_attach(request.uuid, request.nic)
        return Empty()

    async def _nic_detach(self, request: seam.NicDetach) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_nic_device(request.device)
        spec_check.check_timeout(request.timeout_s)
        await self.hypervisor.nic_detach(request.uuid, request.device, request.timeout_s)
        return Empty()

    async def _guest_metrics(self, request: seam.GuestMetrics) -> seam.GuestMetricsReply:
        spec_check.check_uuid(request.uuid)
        return await self.hypervisor.guest_metrics(request.uuid)

    async def _guest_freeze(self, request: seam.GuestFreeze) -> Empty:
        spec_check.check_uuid(request.uuid)
        spec_check.check_timeout(request.hold_s)
        log.info("freeze the guest of %s", request.uuid)
        await self.holds.freeze(request.uuid, request.hold_s)
        return Empty()

    async def _guest_thaw(self, request: seam.GuestThaw) -> seam.GuestThawReply:
        spec_check.check_uuid(request.uuid)
        log.info("thaw the guest of %s", request.uuid)
        return seam.GuestThawReply(held=await self.holds.thaw(request.uuid))

    async def _counters(self, request: seam.Counters) -> seam.CountersReply:
        return await self.hypervisor.counters()

    async def _image_open(self, request: seam.ImageOpen) -> seam.ImageExportSocketReply:
        spec_check.check_image_id(request.image_id)
        spec_check.check_source(request.source)
        log.info("open image %s: %r", request.image_id, request.source)
        socket = await self.hypervisor.image_open(request.image_id, request.source, request.read_only)
        return seam.ImageExportSocketReply(socket=socket)

    async def _image_close(self, request: seam.ImageClose) -> Empty:
        spec_check.check_image_id(request.image_id)
        log.info("close image %s", request.image_id)
        await self.hypervisor.image_close(request.image_id)
        return Empty()

    async def _bridge_ensure(self, request: seam.BridgeEnsure) -> Empty:
        spec_check.check_bridge(request.bridge, request.mtu)
        await self.hypervisor.bridge_ensure(request.bridge, request.mtu)
        return Empty()

    async def _host_power(self, request: HostPower) -> Empty:
        log.warning("this host is told to %s", "reboot" if request.reboot else "shut down")
        await self.hypervisor.power(reboot=request.reboot)
        return Empty()

    async def _card_property(self, request: CardProperty) -> Empty:
        spec_check.check_card(request.device)
        await self.hypervisor.card_gro_set(request.device, on=request.gro)
        return Empty()
