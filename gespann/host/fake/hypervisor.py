"""The fake hypervisor. Keeps every promise of seam 5, and breaks them when told to."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from gespann.host.fake.consoles import FakeConsoles
from gespann.host.fake.counters import fake_counters
from gespann.host.fake.facts import fake_facts
from gespann.host.fake.guest import FakeDomain, GuestBehaviour, lock_of, started
from gespann.host.fake.images import FakeImages
from gespann.host.fake.landing import STOOD_STILL_S, Expected, Sending, expect, expected, forget
from gespann.host.fake.memory import load_domains
from gespann.host.fake.moving_disks import MovingDisks
from gespann.host.fake.saved import SavedMemory, read_memory, spoil, write_memory, written_bytes
from gespann.host.fake.storage import AnyStorage, FakeStorage, Source, holder_of
from gespann.host.hypervisor import Told
from gespann.host.images import Images
from gespann.seams.host_agent import (
    CountersReply,
    CpuTuning,
    Disk,
    Domain,
    DomainChanged,
    DomainSpec,
    FactsReply,
    FileSource,
    GuestChanged,
    GuestMetricsReply,
    IscsiSource,
    Nic,
)
from gespann.seams.host_machine import Trigger
from gespann.seams.host_migration import Landing, MigrateSend
from gespann.seams.host_mirror import opening_meant
from gespann.seams.json_lines import SeamError

UNPLUG_VCPU_S = 5.0
Sleep = Callable[[float], Awaitable[None]]


class FakeHypervisor(MovingDisks):
    """``run_dir`` given: domains survive a restart of the agent's process, as real ones do, and have console sockets.
    ``images`` given (real ``qemu-nbd`` works without a hypervisor): image exports go there."""

    name = "fake"
    migration_socket: Path | None = None  # fake machines move only between hypervisors of one process

    def __init__(
        self,
        *,
        storage: FakeStorage | None = None,
        run_dir: Path | None = None,
        images: Images | None = None,
        hostname: str = "fakehost",
        memory_bytes: int = 64 * 1024**3,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        super().__init__(hostname, storage if storage is not None else AnyStorage(), run_dir)
        self.memory_bytes = memory_bytes
        self.images = images if images is not None else FakeImages(self.storage, run_dir)
        self.memory = SavedMemory(self.storage)
        self._sending = Sending()
        self._stopped: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: Told = lambda event: None
        self._sleep = sleep
        self._consoles = FakeConsoles(run_dir)
        self._next_domid = 1
        self._opened_s = time.monotonic()

    # --- what a test says

    def behave(self, uuid: str, behaviour: GuestBehaviour) -> None:
        self._behaviours[uuid] = behaviour

    async def guest_poweroff(self, uuid: str) -> None:
        """Somebody types poweroff in the guest."""
        async with self._locks[uuid]:
            await self._stop(self._find(uuid), "shutdown")

    async def crash(self, uuid: str) -> None:
        """QEMU dies."""
        async with self._locks[uuid]:
            await self._stop(self._find(uuid), "crashed")

    def guest_panic(self, uuid: str) -> None:
        """The guest's kernel gives up, and says so."""
        self._set_state(self._find(uuid), "paused", "crashed")

    def guest_reboot(self, uuid: str) -> None:
        """Somebody types reboot in the guest."""
        running = self._find(uuid)
        self._boot(running)
        self._told(DomainChanged(domain=msgspec.structs.replace(running.domain, reason="rebooted")))

    def io_error(self, uuid: str) -> None:
        """A disk answers with an error: the machine stops where it is."""
        self._set_state(self._find(uuid), "paused", "ioerror")

    def guest_agent(self, uuid: str, *, live: bool) -> None:
        self._find(uuid).agent_up = live
        self._told(GuestChanged(uuid=uuid))

    def sizes_seen(self, uuid: str) -> dict[int, int]:
        """What the guest was told by disk.resize."""
        return dict(self._find(uuid).sizes_bytes)

    # --- Hypervisor

    async def open(self, told: Told) -> None:
        self._told = told
        if self.run_dir is not None:
            for running in load_domains(self.run_dir):
                self._running[running.domain.uuid] = running
                self._next_domid = max(self._next_domid, running.domain.domid + 1)
                await self._consoles.open(running.domain.uuid)
        await self.images.open()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._consoles.close_all()
        await self.images.close()

    async def facts(self) -> FactsReply:
        self._maybe_fail("facts")
        used = sum(running.domain.memory_bytes for running in self._running.values())
        return fake_facts(self, self.memory_bytes, used, sorted(self.bridges))

    async def create(self, spec: DomainSpec) -> Domain:
        async with self._locks[spec.uuid]:
            self._maybe_fail("create")
            if (there := self._of_this_start(spec)) is not None:
                return there
            self._check_place(spec)
            async with self._opened(spec):
                running = await self._start(spec)
            self._boot(running)
            return running.domain

    async def shutdown(self, uuid: str, *, reboot: bool, timeout_s: float) -> None:
        self._maybe_fail("shutdown")
        running = self._find(uuid)
        if running.domain.state == "paused":
            raise SeamError("BAD_STATE", f"{uuid} is paused")
        behaviour = self._behaviour(uuid)
        if not behaviour.obeys_shutdown:
            await self._sleep(timeout_s)
            raise SeamError("REFUSED", f"{uuid} still runs {timeout_s:g} s after it was asked to shut down")
        await self._sleep(behaviour.shutdown_s)
        async with self._locks[uuid]:
            if self._running.get(uuid) is not running:
                return
            if reboot:
                self._set_state(running, "running", "rebooted")
                self._boot(running)
            else:
                await self._stop(running, "shutdown")

    async def destroy(self, uuid: str, start_id: str | None) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("destroy")
            running = self._running.get(uuid)
            if running is not None and start_id in (None, running.domain.start_id):
                await self._stop(running, "destroyed")

    async def reset(self, uuid: str) -> None:
        self._maybe_fail("reset")
        running = self._find(uuid)
        self._set_state(running, running.domain.state, "rebooted")
        self._boot(running)

    async def pause(self, uuid: str) -> None:
        self._maybe_fail("pause")
        running = self._find(uuid)
        if running.domain.state == "running":
            self._set_state(running, "paused", "user")

    async def unpause(self, uuid: str) -> None:
        self._maybe_fail("unpause")
        running = self._find(uuid)
        if running.domain.state == "paused":
            self._set_state(running, "running", "")
            if not running.agent_up:
                self._boot(running)
            if not all(self.storage.admits_writes(holder_of(running.domain, device)) for device in running.serials):
                self.io_error(uuid)

    async def vcpus(self, uuid: str, vcpus: int) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("vcpus")
            running = self._find(uuid)
            if vcpus > running.vcpus_max:
                raise SeamError("BAD_STATE", f"{uuid} was started for at most {running.vcpus_max} vCPUs")
            if vcpus < running.domain.vcpus:
                await self._unplug(uuid, UNPLUG_VCPU_S, "a vCPU")
            running.domain = msgspec.structs.replace(running.domain, vcpus=vcpus)
            self._save()

    async def memory_target(self, uuid: str, target_bytes: int) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("memory_target")
            running = self._find(uuid)
            if target_bytes > running.memory_max_bytes:
                raise SeamError("BAD_STATE", f"{uuid} was started for at most {running.memory_max_bytes} bytes")
            running.memory_target_bytes = target_bytes
            self._balloon(running)

    async def tune(self, uuid: str, tuning: CpuTuning, before: CpuTuning) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("tune")
            self._find(uuid).tune(tuning)
            self._save()

    async def trigger(self, uuid: str, trigger: Trigger) -> None:
        self._maybe_fail("trigger")
        running = self._find(uuid)
        running.pressed.append(trigger)
        if trigger == "reset":
            await self.reset(uuid)
        elif trigger == "power" and self._behaviour(uuid).obeys_shutdown:
            await self.guest_poweroff(uuid)

    async def sysrq(self, uuid: str, key: str) -> None:
        self._maybe_fail("sysrq")
        self._find(uuid).pressed.append(f"sysrq-{key}")

    async def memory_save(self, uuid: str, start_id: str, image_id: str, target: Source, timeout_s: float) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("memory_save")
            running = self._find(uuid)
            if running.domain.start_id != start_id:
                raise SeamError("NOT_FOUND", f"{uuid} runs as start {running.domain.start_id}")
            if running.domain.state != "paused":
                raise SeamError("BAD_STATE", f"{uuid} is {running.domain.state}, not paused")
            async with self.memory.opened(image_id, target, read_only=False) as medium:
                needed = written_bytes(running.domain.memory_bytes)
                if medium.size_bytes < needed:
                    raise SeamError("STORAGE", f"a volume of {medium.size_bytes} bytes is too small for {needed}")
                spoil(medium)
                await self.memory.take(image_id, self._behaviour(uuid).save_s)
                write_memory(medium, running)

    async def memory_progress(self, image_id: str) -> float:
        self._maybe_fail("memory_progress")
        return self.memory.progress(image_id)

    async def memory_stop(self, image_id: str) -> None:
        self._maybe_fail("memory_stop")
        await self.memory.stop(image_id)

    async def restore(self, spec: DomainSpec, image_id: str, memory: Source, timeout_s: float) -> Domain:
        async with self._locks[spec.uuid]:
            self._maybe_fail("restore")
            if (there := self._of_this_start(spec)) is not None:
                return there
            self._check_place(spec)
            async with self.memory.opened(image_id, memory, read_only=True) as medium:
                kept = read_memory(medium, spec)
            async with self._opened(spec):
                running = await self._start(msgspec.structs.replace(spec, paused=True))
            running.go_on_from(kept)
            self._save()
            return running.domain

    async def domains(self) -> list[Domain]:
        self._maybe_fail("domains")
        return [running.domain for running in self._running.values()]

    async def disk_attach(self, uuid: str, disk: Disk) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("disk_attach")
            running = self._find(uuid)
            there = running.serials.get(disk.device)
            if there == disk.serial and disk.kind == "disk":
                return
            if there not in (None, disk.serial) and disk.kind == "disk":
                raise SeamError("BAD_STATE", f"disk {disk.device} of {uuid} is another one, {there}")
            holder = holder_of(running.domain, disk.device)
            if disk.source is not None:
                await self.storage.open(holder, disk.source, disk.read_only)
            else:
                await self.storage.close(holder)
            running.serials[disk.device] = disk.serial
            if isinstance(disk.source, IscsiSource):
                running.lead_to[disk.device] = opening_meant(disk.source)
            self._plugged(running)

    async def disk_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("disk_detach")
            running = self._find(uuid)
            if device not in running.serials:
                return
            await self._unplug(uuid, timeout_s, f"disk {device}")
            await self.storage.close(holder_of(running.domain, device))
            await self.mirrors.end(uuid, device)
            del running.serials[device]
            running.lead_to.pop(device, None)
            self._plugged(running)

    async def disk_resize(self, uuid: str, device: int, size_bytes: int) -> None:
        self._maybe_fail("disk_resize")
        running = self._find(uuid)
        if device not in running.serials:
            raise SeamError("NOT_FOUND", f"{uuid} has no disk {device}")
        if self.mirrors.keeps_its_size(running, device):
            raise SeamError("BAD_STATE", f"disk {device} of {uuid} keeps the size that it has until the next start")
        running.sizes_bytes[device] = size_bytes

    async def nic_attach(self, uuid: str, nic: Nic) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("nic_attach")
            running = self._find(uuid)
            self._check_bridge(nic.bridge)
            there = running.macs.get(nic.device)
            if there not in (None, nic.mac):
                raise SeamError("BAD_STATE", f"NIC {nic.device} of {uuid} is another one, {there}")
            running.macs[nic.device] = nic.mac
            running.bridges[nic.device] = nic.bridge
            running.locks[nic.device] = lock_of(nic)
            self._plugged(running)
            self._told(GuestChanged(uuid=uuid))

    async def nic_detach(self, uuid: str, device: int, timeout_s: float) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("nic_detach")
            running = self._find(uuid)
            if device not in running.macs:
                return
            await self._unplug(uuid, timeout_s, f"NIC {device}")
            del running.macs[device], running.bridges[device], running.locks[device]
            self._plugged(running)
            self._told(GuestChanged(uuid=uuid))

    async def guest_metrics(self, uuid: str) -> GuestMetricsReply:
        self._maybe_fail("guest_metrics")
        return self._find(uuid).metrics()

    async def guest_freeze(self, uuid: str) -> None:
        self._maybe_fail("guest_freeze")
        running = self._find(uuid)
        if not running.agent_up:
            raise SeamError("GUEST_AGENT", "no guest agent is connected")
        running.frozen = True
        self._save()
        if not self._behaviour(uuid).obeys_freeze:
            raise SeamError("TIMEOUT", "the guest's agent did not answer in time")

    async def guest_thaw(self, uuid: str) -> bool:
        self._maybe_fail("guest_thaw")
        running, behaviour = self._find(uuid), self._behaviour(uuid)
        if not running.agent_up:
            raise SeamError("GUEST_AGENT", "the guest's agent is not connected")
        if behaviour.deaf_to_thaws:
            behaviour.deaf_to_thaws -= 1
            raise SeamError("GUEST_AGENT", "the guest's agent did not answer in time")
        was_frozen, running.frozen = running.frozen, False
        self._save()
        return was_frozen

    async def counters(self) -> CountersReply:
        self._maybe_fail("counters")
        used = sum(running.domain.memory_bytes for running in self._running.values())
        running_s = time.monotonic() - self._opened_s
        return fake_counters(running_s, self.memory_bytes, self.memory_bytes - used, list(self._running.values()))

    async def image_open(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> str:
        self._maybe_fail("image_open")
        return await self.images.export(image_id, source, read_only)

    async def image_close(self, image_id: str) -> None:
        self._maybe_fail("image_close")
        await self.images.end(image_id)

    async def bridge_ensure(self, bridge: str, mtu: int) -> None:
        self._maybe_fail("bridge_ensure")
        self.bridges[bridge] = mtu

    async def vlan_ensure(self, device: str, tag: int, bridge: str, mtu: int) -> None:
        self._maybe_fail("vlan_ensure")
        self._card(device)
        self.bridges.setdefault(bridge, mtu)
        self.vlans[device, tag] = bridge

    async def vlan_remove(self, device: str, tag: int) -> None:
        self._maybe_fail("vlan_remove")
        self.vlans.pop((device, tag), None)

    async def migrate_receive(self, spec: DomainSpec, ticket: str) -> Landing:
        async with self._locks[spec.uuid]:
            self._maybe_fail("migrate_receive")
            there = expected(ticket)
            if there is None:
                if spec.uuid in self._running:
                    raise SeamError("EXISTS", f"{spec.uuid} runs here")
                self._check_place(spec)
                async with self._opened(spec):
                    expect(ticket, Expected(self, spec))
            return Landing(serial_socket="", serial_log="", vnc_socket="")

    async def migrate_send(self, request: MigrateSend, relay: Path | None) -> float | None:
        async with self._locks[request.uuid]:
            self._maybe_fail("migrate_send")
            leaving = self._find(request.uuid)
            there = expected(request.ticket)
            if leaving.domain.start_id != request.start_id or there is None:
                raise SeamError("BAD_STATE", f"{request.uuid} is not expected there, or is another start")
            await self._sending.take(request.uuid, self._behaviour(request.uuid).send_s)
            forget(request.ticket)
            arrived = await there.hypervisor._start(msgspec.structs.replace(there.spec, paused=True))
            arrived.go_on_from(leaving)
            await self._stop(leaving, "migrated")
            return STOOD_STILL_S

    async def migrate_progress(self, uuid: str) -> float:
        self._maybe_fail("migrate_progress")
        return self._sending.progress(uuid)

    async def migrate_abort(self, uuid: str) -> None:
        self._maybe_fail("migrate_abort")
        self._sending.abort(uuid)

    async def migrate_end(self, uuid: str, ticket: str) -> None:
        there = expected(ticket)
        if there is not None and there.hypervisor is self:
            forget(ticket)
            for disk in there.spec.disks:
                await self.storage.close(f"{uuid}/{there.spec.start_id}/{disk.device}")

    # --- inside

    def _of_this_start(self, spec: DomainSpec) -> Domain | None:
        """EXISTS if what runs is of another start."""
        there = self._running.get(spec.uuid)
        if there is None:
            return None
        if there.domain.start_id != spec.start_id:
            raise SeamError("EXISTS", f"{spec.uuid} runs as start {there.domain.start_id}")
        return there.domain

    def _check_place(self, spec: DomainSpec) -> None:
        free = self.memory_bytes - sum(running.domain.memory_bytes for running in self._running.values())
        if spec.memory_bytes > free:
            raise SeamError("NO_MEMORY", f"{spec.memory_bytes} bytes asked for, {free} are free")
        for nic in spec.nics:
            self._check_bridge(nic.bridge)

    def _check_bridge(self, bridge: str) -> None:
        if bridge not in self.bridges:
            raise SeamError("NOT_FOUND", f"this host has no bridge {bridge}")

    @asynccontextmanager
    async def _opened(self, spec: DomainSpec) -> AsyncIterator[None]:
        """All disks open, or, if one of them or what follows fails, none."""
        opened: list[str] = []
        try:
            for disk in spec.disks:
                if disk.source is not None:
                    holder = f"{spec.uuid}/{spec.start_id}/{disk.device}"
                    await self.storage.open(holder, disk.source, disk.read_only)
                    opened.append(holder)
            yield
        except BaseException:
            for holder in opened:
                await self.storage.close(holder)
            raise

    async def _start(self, spec: DomainSpec) -> FakeDomain:
        serial_socket, vnc_socket = await self._consoles.open(spec.uuid)
        running = started(spec, self._next_domid, serial_socket, vnc_socket)
        self._next_domid += 1
        self._running[spec.uuid] = running
        self._stopped[spec.uuid].clear()
        self._save()
        self._told(DomainChanged(domain=running.domain))
        return running

    def _boot(self, running: FakeDomain) -> None:
        running.generation += 1
        running.frozen = running.booted = False
        if running.agent_up:
            running.agent_up = running.has_address = False
            self._told(GuestChanged(uuid=running.domain.uuid))
        if running.domain.state == "running":
            self._spawn(self._life(running, running.generation))

    async def _life(self, running: FakeDomain, generation: int) -> None:
        uuid = running.domain.uuid
        behaviour = self._behaviour(uuid)

        def over() -> bool:
            return self._running.get(uuid) is not running or running.generation != generation

        await self._sleep(behaviour.boot_s)
        if over():
            return
        if behaviour.panics_at_boot:
            async with self._locks[uuid]:
                if not over():
                    await self._stop(running, "crashed")
            return
        running.booted = True
        self._balloon(running)
        if not behaviour.has_agent:
            return
        running.agent_up = True
        self._told(GuestChanged(uuid=uuid))
        await self._sleep(behaviour.address_s)
        if not over():
            running.has_address = True
            self._save()
            self._told(GuestChanged(uuid=uuid))

    def _balloon(self, running: FakeDomain) -> None:
        if running.follows_balloon(self._behaviour(running.domain.uuid)):
            self._told(DomainChanged(domain=running.domain))
        self._save()

    async def _unplug(self, uuid: str, timeout_s: float, what: str) -> None:
        if not self._behaviour(uuid).obeys_unplug:
            await self._sleep(timeout_s)
            raise SeamError("REFUSED", f"the guest did not let go of {what} within {timeout_s:g} s")

    async def _stop(self, running: FakeDomain, reason: str) -> None:
        uuid = running.domain.uuid
        self._running.pop(uuid, None)
        for device in running.serials:
            await self.mirrors.end(uuid, device)
            await self.storage.close(holder_of(running.domain, device))
        await self._consoles.close(uuid)
        self._save()
        self._stopped[uuid].set()
        gone = msgspec.structs.replace(
            running.domain, state="stopped", reason=reason, domid=-1, disks=[], nics=[], serial_socket="", vnc_socket=""
        )
        self._told(DomainChanged(domain=gone))

    def _set_state(self, running: FakeDomain, state: Literal["running", "paused", "stopped"], reason: str) -> None:
        running.domain = msgspec.structs.replace(running.domain, state=state, reason=reason)
        self._save()
        self._told(DomainChanged(domain=running.domain))

    def _plugged(self, running: FakeDomain) -> None:
        running.domain = msgspec.structs.replace(
            running.domain, disks=sorted(running.serials), nics=sorted(running.macs)
        )
        self._save()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
