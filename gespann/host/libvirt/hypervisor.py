"""The hypervisor as seam 5 wants it: each request to the part that does it."""

import contextlib
import socket
from functools import partial
from pathlib import Path

from defusedxml.ElementTree import fromstring

from gespann import __version__
from gespann.host import facts, offload
from gespann.host.accelerator import find_accelerator
from gespann.host.bios import own_bios_strings
from gespann.host.bonds import CardPlace, bond_places, bond_remove, bond_set
from gespann.host.bridges import bridge_ensure
from gespann.host.counters import host_counters
from gespann.host.hypervisor import Told
from gespann.host.images import Images
from gespann.host.kernel_addresses import KernelAddresses, set_hostname
from gespann.host.kernel_log import kernel_log
from gespann.host.libvirt.cpu_tuning import tune
from gespann.host.libvirt.devices import Devices
from gespann.host.libvirt.domain_counters import domain_counters
from gespann.host.libvirt.guest_clock import GuestClocks
from gespann.host.libvirt.keys import TRIGGERS, press_sysrq
from gespann.host.libvirt.machines import Machines
from gespann.host.libvirt.memory import Memory
from gespann.host.libvirt.migration import Migration, socket_of
from gespann.host.libvirt.mirror import Mirrors
from gespann.host.libvirt.power import Power
from gespann.host.memory_file import MemoryFiles
from gespann.host.nic_filter import NicFilter
from gespann.host.vlans import vlan_ensure, vlan_remove
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_agent import (
    CountersReply,
    CpuTuning,
    Disk,
    Domain,
    DomainSpec,
    FactsReply,
    FileSource,
    GuestMetricsReply,
    IscsiSource,
    Nic,
)
from gespann.seams.host_bonds import BondShape
from gespann.seams.host_machine import Trigger
from gespann.seams.host_migration import Landing, MigrateSend
from gespann.seams.host_mirror import MirrorTarget
from gespann.seams.json_lines import SeamError
from gespann.system import processes

FIRST_CONNECTION_S = 15.0
PAUSE_DEADLINE_S = 20.0  # QEMU first waits for the disks to answer


class LibvirtHypervisor:
    """``run_dir``/vm/UUID holds a machine's sockets, ``data_dir``/console its serial log."""

    name = "libvirt"

    def __init__(self, uri: str, run_dir: Path, data_dir: Path, images: Images) -> None:
        self._run_dir = run_dir
        self._data_dir = data_dir
        self._images = images
        self._machines = Machines(uri, run_dir, data_dir)
        self._filter = NicFilter(run_dir)
        self._power = Power(self._machines, self._filter)
        self._devices = Devices(self._machines, self._filter)
        self._clocks = GuestClocks(self._machines)
        self._files = MemoryFiles(run_dir / "memory")
        self._memory = Memory(self._machines, self._power, self._files)
        self._migration = Migration(self._machines, self._power)
        self._mirrors = Mirrors(self._machines)
        self._addresses = KernelAddresses(run_dir / "leases")
        self.migration_socket: Path | None = socket_of(uri)
        self._qemu_version = "unknown"
        self._capabilities = ""

    async def open(self, told: Told) -> None:
        with contextlib.suppress(SeamError):  # said again by whoever asks for facts
            self._qemu_version = await facts.qemu_version()
        self._power.accelerator = await find_accelerator(self._data_dir / "accelerator.json", self._qemu_version)
        await self._filter.open()
        await self._images.open()
        await self._files.open()
        await self._machines.open(told, FIRST_CONNECTION_S)

    async def close(self) -> None:
        await self._filter.close()
        await self._images.close()
        await self._files.close()
        await self._clocks.close()
        await self._machines.close()

    async def facts(self) -> FactsReply:
        await self._read_capabilities()
        memory, processor = facts.meminfo(), facts.cpu()
        interfaces, vlans, bridges = await facts.interfaces()
        number = await self._machines.connection.call(
            "version", lambda connection: connection.getLibVersion(), asks=True
        )
        return FactsReply(
            hostname=socket.gethostname(),
            host_uuid=fromstring(self._capabilities).findtext("host/uuid", ""),
            cpu_count=facts.cpu_count(),
            cpu_model=processor.get("model name", ""),
            cpu_vendor=processor.get("vendor_id", ""),
            cpu_mhz=int(float(processor.get("cpu MHz", "0"))),
            cpu_flags=processor.get("flags", ""),
            memory_total_bytes=memory["MemTotal"],
            memory_free_bytes=facts.free_bytes(memory, self._machines.used_memory_bytes()),
            accelerator=self._power.accelerator,
            software_version={
                "gespann": __version__,
                "libvirt": f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}",
                "linux": facts.linux_version(),
                "qemu": await facts.qemu_version(),
            },
            interfaces=interfaces,
            vlans=vlans,
            bridges=bridges,
            bios_strings=own_bios_strings(),
            boot_id=facts.boot_id(),
        )

    async def _read_capabilities(self) -> None:
        """Once: the first time libvirtd tries every QEMU it finds."""
        if self._capabilities:
            return
        self._capabilities = await self._machines.connection.call(
            "capabilities", lambda connection: connection.getCapabilities(), deadline_s=60.0, asks=True
        )
        self._power.qemu_uid = qemu_uid(self._capabilities)

    async def create(self, spec: DomainSpec) -> Domain:
        await self._read_capabilities()
        return await self._power.create(spec)

    async def shutdown(self, uuid: str, *, reboot: bool, timeout_s: float) -> None:
        await self._power.shutdown(uuid, reboot=reboot, timeout_s=timeout_s)

    async def destroy(self, uuid: str, start_id: str | None) -> None:
        await self._power.destroy(uuid, start_id)

    async def reset(self, uuid: str) -> None:
        await self._machines.act("reset", uuid, lambda domain: domain.reset(0))

    async def pause(self, uuid: str) -> None:
        domain, _ = await self._machines.need(uuid)
        if domain.state == "running":
            await self._machines.act("pause", uuid, lambda found: found.suspend(), deadline_s=PAUSE_DEADLINE_S)
            await self._machines.look(uuid)

    async def unpause(self, uuid: str) -> None:
        domain, _ = await self._machines.need(uuid)
        if domain.state == "paused":
            await self._machines.act("unpause", uuid, lambda found: found.resume())
            self._clocks.goes_on(uuid)
            await self._machines.look(uuid)

    async def vcpus(self, uuid: str, vcpus: int) -> None:
        await self._devices.vcpus(uuid, vcpus)

    async def memory_target(self, uuid: str, target_bytes: int) -> None:
        await self._power.memory_target(uuid, target_bytes)

    async def tune(self, uuid: str, tuning: CpuTuning, before: CpuTuning) -> None:
        await self._machines.act("tune", uuid, lambda domain: tune(domain, tuning, before))

    async def trigger(self, uuid: str, trigger: Trigger) -> None:
        await self._machines.act(trigger, uuid, TRIGGERS[trigger])

    async def sysrq(self, uuid: str, key: str) -> None:
        await self._machines.act("SysRq of", uuid, partial(press_sysrq, key))

    async def memory_save(
        self, uuid: str, start_id: str, image_id: str, target: IscsiSource | FileSource, timeout_s: float
    ) -> None:
        await self._memory.save(uuid, start_id, image_id, target, timeout_s)

    async def memory_progress(self, image_id: str) -> float:
        return await self._memory.progress(image_id)

    async def memory_stop(self, image_id: str) -> None:
        await self._memory.stop(image_id)

    async def restore(
        self, spec: DomainSpec, image_id: str, memory: IscsiSource | FileSource, timeout_s: float
    ) -> Domain:
        await self._read_capabilities()
        domain = await self._memory.restore(spec, image_id, memory, timeout_s)
        self._clocks.was_away(spec.uuid)
        return domain

    async def domains(self) -> list[Domain]:
        return await self._machines.all()

    async def disk_attach(self, uuid: str, disk: Disk) -> None:
        await self._devices.disk_attach(uuid, disk)

    async def disk_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        await self._devices.disk_detach(uuid, device, timeout_s)

    async def disk_resize(self, uuid: str, device: int, size_bytes: int) -> None:
        await self._devices.disk_resize(uuid, device, size_bytes)

    async def nic_attach(self, uuid: str, nic: Nic) -> None:
        await self._devices.nic_attach(uuid, nic)

    async def nic_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        await self._devices.nic_detach(uuid, device, timeout_s)

    async def guest_metrics(self, uuid: str) -> GuestMetricsReply:
        return await self._machines.guest_metrics(uuid)

    async def guest_freeze(self, uuid: str) -> None:
        await self._machines.guest_freeze(uuid)

    async def guest_thaw(self, uuid: str) -> bool:
        return await self._machines.guest_thaw(uuid)

    async def counters(self) -> CountersReply:
        domains = await self._machines.connection.call("counters", domain_counters, asks=True)
        return host_counters(domains, facts.meminfo())

    async def image_open(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> str:
        return await self._images.export(image_id, source, read_only)

    async def image_close(self, image_id: str) -> None:
        await self._images.end(image_id)

    async def bridge_ensure(self, bridge: str, mtu: int) -> None:
        await bridge_ensure(bridge, mtu)

    async def vlan_ensure(self, device: str, tag: int, bridge: str, mtu: int) -> None:
        await vlan_ensure(device, tag, bridge, mtu)

    async def vlan_remove(self, device: str, tag: int) -> None:
        await vlan_remove(device, tag)

    async def bond_places(self, device: str, members: list[str]) -> dict[str, CardPlace]:
        return await bond_places(device, members)

    async def bond_set(self, shape: BondShape) -> None:
        await bond_set(shape)

    async def bond_remove(self, device: str, places: dict[str, CardPlace]) -> None:
        await bond_remove(device, places)

    async def card_gro_set(self, device: str, *, on: bool) -> None:
        offload.gro_set(device, on=on)

    async def addresses_show(self, device: str) -> InterfaceAddresses:
        return await self._addresses.show(device)

    async def addresses_lease(self, device: str) -> InterfaceAddresses:
        return await self._addresses.lease(device)

    async def addresses_set(self, device: str, wanted: InterfaceAddresses) -> None:
        await self._addresses.set(device, wanted)

    async def hostname_set(self, hostname: str) -> None:
        await set_hostname(hostname)

    async def power(self, *, reboot: bool) -> None:
        try:
            await processes.run_async(["systemctl", "--no-block", "reboot" if reboot else "poweroff"])
        except processes.CommandFailed as error:
            raise SeamError("HYPERVISOR", str(error)) from error

    async def kernel_log(self, *, clear: bool) -> str:
        return await kernel_log(clear=clear)

    async def migrate_receive(self, spec: DomainSpec, ticket: str) -> Landing:
        await self._read_capabilities()
        return await self._migration.receive(spec, ticket)

    async def migrate_send(self, request: MigrateSend, relay: Path | None) -> float | None:
        if relay is None:
            raise SeamError("BAD_STATE", "there is no way to the other host")
        return await self._migration.send(request, relay)

    async def migrate_progress(self, uuid: str) -> float:
        return await self._migration.progress(uuid)

    async def migrate_abort(self, uuid: str) -> None:
        await self._migration.abort(uuid)

    async def migrate_end(self, uuid: str, ticket: str) -> None:
        await self._migration.end(ticket)

    async def disk_mirror(self, uuid: str, start_id: str, device: int, source: IscsiSource, volume_bytes: int) -> None:
        await self._mirrors.mirror(uuid, start_id, device, source, volume_bytes)

    async def disk_mirror_progress(self, uuid: str, device: int) -> float:
        return await self._mirrors.progress(uuid, device)

    async def disk_mirror_stop(self, uuid: str, device: int, to: MirrorTarget) -> None:
        await self._mirrors.stop(uuid, device, to)

    async def disk_pivot(self, uuid: str, start_id: str, device: int, to: MirrorTarget) -> None:
        await self._mirrors.pivot(uuid, start_id, device, to)


def qemu_uid(capabilities: str) -> int | None:
    """The user that QEMU runs as, from the label that libvirt's DAC driver puts on it ("+64055:+64055"). None: root."""
    for model in fromstring(capabilities).findall("host/secmodel"):
        if model.findtext("model") == "dac":
            for label in model.findall("baselabel"):
                uid = int((label.text or "").strip("+").partition(":")[0] or 0)
                return uid or None
    return None
