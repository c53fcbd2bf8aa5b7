"""One suite for every hypervisor behind seam 5: the fake keeps the same promises as libvirt does."""

import asyncio
import uuid as uuids
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from gespann.host.fake import FakeHypervisor, LedgerStorage
from gespann.host.fake.nbd import FakeMedium
from gespann.host.libvirt import qemu_process
from gespann.host.server import AgentServer
from gespann.seams import engine_socket as engine_seam
from gespann.seams import host_agent as seam
from gespann.seams.host_machine import DomainMemory, DomainSysrq, DomainTrigger, DomainTune
from gespann.seams.host_mirror import DiskMirror, DiskMirrorProgress, DiskMirrorStop, DiskPivot, opening_meant
from gespann.seams.json_lines import SeamError
from gespann.system.json_lines import JsonLinesClient
from tests.product.host.real_host import ROOT_VOLUME, Site, answers, guest_image, until

#: as the kernel writes what a thread may run on that is kept to nothing
EVERY_PROCESSOR = [Path("/proc/self/status").read_text().split("Cpus_allowed_list:\t")[1].split("\n")[0]]
MIB = 1024**2
#: the volume of that number can take the memory of the machines of these tests
MEMORY_VOLUME, MEMORY_VOLUME_BYTES = 4, 200 * MIB
TOO_LITTLE = 8


@dataclass
class Host:
    """An agent under test, and an array that opens a volume to one start."""

    agent: JsonLinesClient
    bridge: str
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    events: list[seam.Event] = field(default_factory=list)
    root_bytes: int = 64 * MIB

    async def open(self, device: int, start: str) -> seam.IscsiSource:
        raise AssertionError("each hypervisor has its own")

    async def open_too_little(self, start: str) -> seam.IscsiSource:
        """A thin volume as large as the root disk, that may not hold as much."""
        raise AssertionError("each hypervisor has its own")

    async def disk(self, device: int, start: str = "s1") -> seam.Disk:
        return seam.Disk(device=device, serial=f"serial-{device}", source=await self.open(device, start))

    async def spec(self, start: str = "s1", **changed: object) -> seam.DomainSpec:
        fields: dict[str, object] = {
            "uuid": self.uuid,
            "start_id": start,
            "name_label": "one",
            "memory_bytes": 128 * MIB,
            "vcpus": 1,
            "disks": [await self.disk(0, start)],
            "nics": [seam.Nic(device=0, mac="02:00:00:00:02:01", bridge=self.bridge)],
        }
        return seam.DomainSpec(**{**fields, **changed})

    async def create(self, start: str = "s1", **changed: object) -> seam.Domain:
        return await self.agent.call(seam.DomainCreate(spec=await self.spec(start, **changed)))

    async def seen(self) -> seam.Domain | None:
        domains = (await self.agent.call(seam.DomainList())).domains
        return next((domain for domain in domains if domain.uuid == self.uuid), None)

    async def has_address(self) -> bool:
        return "0/ip" in (await self.agent.call(seam.GuestMetrics(uuid=self.uuid))).networks

    def states(self) -> list[tuple[str, str]]:
        return [
            (event.domain.start_id, event.domain.state)
            for event in self.events
            if isinstance(event, seam.DomainChanged) and event.domain.uuid == self.uuid
        ]

    async def told(self, *states: tuple[str, str]) -> None:
        async def all_told() -> bool:
            return self.states() == list(states)

        try:
            await until(all_told)
        except TimeoutError:
            assert self.states() == list(states)

    def processors(self) -> set[str]:
        """What its vCPUs run on."""
        raise AssertionError("each hypervisor has its own")


@dataclass
class FakeHost(Host):
    storage: LedgerStorage = field(default_factory=LedgerStorage)
    fake: FakeHypervisor = field(default_factory=FakeHypervisor)

    async def open_too_little(self, start: str) -> seam.IscsiSource:
        source = await self.open(TOO_LITTLE, start)
        self.fake.mirrors.full.add(source.target)
        return source

    fake: FakeHypervisor | None = None

    def processors(self) -> set[str]:
        assert self.fake is not None
        cpus = self.fake._running[self.uuid].tuning.cpus
        return set(map(str, cpus)) or set(EVERY_PROCESSOR)

    async def open(self, device: int, start: str) -> seam.IscsiSource:
        target = f"iqn.2026-01.org.example:{device}"
        self.storage.revoke(target)
        if device == MEMORY_VOLUME:
            self.storage.media.setdefault(target, FakeMedium(MEMORY_VOLUME_BYTES))
        self.storage.grant(target, f"iqn.2026-01.org.example:{start}", start, f"secret-{start}-0123")
        return seam.IscsiSource(
            host="198.51.100.1", port=3260, target=target, initiator=f"iqn.2026-01.org.example:{start}",
            chap_user=start, chap_secret=f"secret-{start}-0123",
        )  # fmt: skip


@dataclass
class RealHost(Host):
    site: Site | None = None
    engine: JsonLinesClient | None = None
    volumes: dict[int, str] = field(default_factory=dict)

    def processors(self) -> set[str]:
        found = set()
        for pid in qemu_process.qemu_pids(self.uuid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                if (task / "comm").read_text().startswith("CPU "):
                    found.add((task / "status").read_text().split("Cpus_allowed_list:\t")[1].split("\n")[0])
        return found

    async def open_too_little(self, start: str) -> seam.IscsiSource:
        assert self.site is not None
        assert self.engine is not None
        self.volumes[TOO_LITTLE] = volume = uuids.uuid4().hex
        await self.engine.call(engine_seam.VolumeClone(source=ROOT_VOLUME, volume=volume))
        # Nothing at all: with more, a copy may be over before the engine has looked how much it has taken.
        await self.engine.call(engine_seam.VolumeLimit(volume=volume, max_in_use_bytes=0))
        return await self.site.open(self.engine, volume, start)

    async def open(self, device: int, start: str) -> seam.IscsiSource:
        assert self.site is not None
        assert self.engine is not None
        if device not in self.volumes:
            self.volumes[device] = volume = uuids.uuid4().hex
            if device == 0:
                await self.engine.call(engine_seam.VolumeClone(source=ROOT_VOLUME, volume=volume))
            else:
                size_bytes = MEMORY_VOLUME_BYTES if device == MEMORY_VOLUME else 64 * MIB
                await self.engine.call(engine_seam.VolumeCreate(volume=volume, size_bytes=size_bytes))
        return await self.site.open(self.engine, self.volumes[device], start)


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=[pytest.mark.real, pytest.mark.engine])])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    if request.param == "fake":
        async for made in fake_host(tmp_path):
            yield made
    else:
        async for made in real_host(request.getfixturevalue("site")):
            yield made


async def fake_host(directory: Path) -> AsyncIterator[Host]:
    storage, events = LedgerStorage(), []
    fake = FakeHypervisor(storage=storage)
    server = AgentServer(fake, directory / "agent.sock")
    await server.start()
    agent = JsonLinesClient(
        directory / "agent.sock", hello=seam.Hello(version=1), events=seam.EVENTS, on_event=events.append
    )
    agent.start()
    await agent.call(seam.BridgeEnsure(bridge="xenbr2"))
    yield FakeHost(agent, "xenbr2", events=events, storage=storage, fake=fake)
    await agent.close()
    await server.stop()


async def real_host(site: Site) -> AsyncIterator[Host]:
    events: list[seam.Event] = []
    agent, engine = site.agent(events), site.engine()
    agent.start()
    root_bytes = guest_image().stat().st_size
    made = RealHost(agent, "xenbr2", events=events, root_bytes=root_bytes, site=site, engine=engine)
    yield made
    await until(lambda: answers(agent, seam.DomainDestroy(uuid=made.uuid)))
    for volume in made.volumes.values():
        site.targets.pop(volume, None)
    await site.configure(engine)
    await agent.close()
    await engine.close()


async def test_hello_and_facts(host: Host):
    hello = await host.agent.call(seam.Hello(version=seam.VERSION))
    assert (hello.protocol, hello.version) == (seam.PROTOCOL, seam.VERSION)
    facts = await host.agent.call(seam.Facts())
    assert uuids.UUID(facts.host_uuid)
    assert 0 < facts.memory_free_bytes <= facts.memory_total_bytes
    assert host.bridge in facts.bridges
    assert facts.accelerator in ("kvm", "tcg", "fake")


async def test_create_is_told_and_may_be_repeated(host: Host):
    domain = await host.create()
    assert (domain.state, domain.start_id, domain.disks, domain.nics) == ("running", "s1", [0], [0])
    assert (domain.memory_bytes, domain.vcpus) == (128 * MIB, 1)
    assert await host.create() == domain
    assert await host.seen() == domain
    await host.told(("s1", "running"))


async def test_another_start_is_refused(host: Host):
    spec = await host.spec("s2")
    await host.create("s1")
    with pytest.raises(SeamError) as refused:
        await host.agent.call(seam.DomainCreate(spec=spec))
    assert refused.value.code == "EXISTS"


async def test_destroy_may_be_repeated_and_means_one_start(host: Host):
    await host.create()
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid, start_id="s0"))
    assert await host.seen() is not None
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid, start_id="s1"))
    assert await host.seen() is None
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid, start_id="s1"))
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid))
    await host.told(("s1", "running"), ("s1", "stopped"))
    assert (await host.create("s2")).start_id == "s2"
    await host.told(("s1", "running"), ("s1", "stopped"), ("s2", "running"))


async def test_disk_that_the_array_refuses(host: Host):
    spec = await host.spec("s1")
    await host.open(0, "s2")
    with pytest.raises(SeamError) as refused:
        await host.agent.call(seam.DomainCreate(spec=spec))
    assert refused.value.code == "STORAGE"
    assert await host.seen() is None
    assert (await host.create("s2")).start_id == "s2"


async def test_pause(host: Host):
    assert (await host.create(paused=True)).state == "paused"
    await host.agent.call(seam.DomainPause(uuid=host.uuid))
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(seam.DomainShutdown(uuid=host.uuid))
    await host.agent.call(seam.DomainUnpause(uuid=host.uuid))
    await host.agent.call(seam.DomainUnpause(uuid=host.uuid))
    await host.agent.call(seam.DomainPause(uuid=host.uuid))
    await host.told(("s1", "paused"), ("s1", "running"), ("s1", "paused"))


async def test_vcpus_are_plugged_up_to_what_the_start_allows(host: Host):
    await host.create(vcpus_max=2)
    assert (await host.seen()).vcpus == 1
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(seam.DomainVcpus(uuid=host.uuid, vcpus=3))
    await host.agent.call(seam.DomainVcpus(uuid=host.uuid, vcpus=2))
    await host.agent.call(seam.DomainVcpus(uuid=host.uuid, vcpus=2))
    assert (await host.seen()).vcpus == 2


async def test_it_keeps_to_its_processors(host: Host):
    """Also the vCPUs that come later. Of what the host cannot do it says so."""
    await host.create(vcpus_max=2, tuning=seam.CpuTuning(cpus=[0]))
    assert host.processors() == {"0"}
    for _ in range(2):
        change = DomainTune(uuid=host.uuid, tuning=seam.CpuTuning(cpus=[1]), before=seam.CpuTuning(cpus=[0]))
        await host.agent.call(change)
        assert host.processors() == {"1"}
    await host.agent.call(seam.DomainVcpus(uuid=host.uuid, vcpus=2))
    assert host.processors() == {"1"}
    for cpus, code in (([1, 4095], "REFUSED"), ([4096], "BAD_REQUEST"), ([1, 0], "BAD_REQUEST")):
        with pytest.raises(SeamError, match=code):
            await host.agent.call(
                DomainTune(uuid=host.uuid, tuning=seam.CpuTuning(cpus=cpus), before=seam.CpuTuning(cpus=[1]))
            )
    assert host.processors() == {"1"}
    await host.agent.call(DomainTune(uuid=host.uuid, tuning=seam.CpuTuning(), before=seam.CpuTuning(cpus=[1])))
    assert host.processors() == set(EVERY_PROCESSOR)
    with pytest.raises(SeamError, match="NOT_FOUND"):
        await host.agent.call(
            DomainTune(uuid=str(uuids.uuid4()), tuning=seam.CpuTuning(cpus=[1]), before=seam.CpuTuning())
        )


async def test_a_balloon_takes_memory_and_gives_it_back(host: Host):
    await host.create(memory_bytes=160 * MIB, memory_target_bytes=144 * MIB)

    async def has(memory_bytes: int) -> None:
        async def reached() -> bool:
            seen = await host.seen()
            return seen is not None and seen.memory_bytes == memory_bytes

        await until(reached)

    async def until_told(memory_bytes: int) -> None:
        async def is_among_them() -> bool:
            return any(is_told(event, memory_bytes) for event in host.events)

        await until(is_among_them)

    await until(host.has_address)
    await has(144 * MIB)
    for target in (128 * MIB, 160 * MIB):
        await host.agent.call(DomainMemory(uuid=host.uuid, target_bytes=target))
        await host.agent.call(DomainMemory(uuid=host.uuid, target_bytes=target))
        await has(target)
        await until_told(target)
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(DomainMemory(uuid=host.uuid, target_bytes=161 * MIB))
    with pytest.raises(SeamError, match="BAD_REQUEST"):
        await host.agent.call(DomainMemory(uuid=host.uuid, target_bytes=MIB))


def is_told(event: seam.Event, memory_bytes: int) -> bool:
    return isinstance(event, seam.DomainChanged) and event.domain.memory_bytes == memory_bytes


async def test_memory_goes_into_a_volume_and_comes_back(host: Host):
    domain = await host.create(tuning=seam.CpuTuning(cpus=[1]))
    target = await host.open(4, "memory")
    save = seam.MemorySave(uuid=host.uuid, start_id="s1", image_id="m1", target=target)
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(save)
    await host.agent.call(seam.DomainPause(uuid=host.uuid))
    small = await host.open(5, "small")
    with pytest.raises(SeamError, match="STORAGE"):
        await host.agent.call(seam.MemorySave(uuid=host.uuid, start_id="s1", image_id="m0", target=small))
    with pytest.raises(SeamError, match="NOT_FOUND"):
        await host.agent.call(seam.MemorySave(uuid=host.uuid, start_id="s9", image_id="m1", target=target))
    saving = asyncio.create_task(host.agent.call(save))
    while not saving.done():
        said = await host.agent.call(seam.MemoryProgress(image_id="m1"))
        assert 0.0 <= said.fraction <= 1.0
    await saving
    await host.agent.call(save)
    assert (await host.seen()).state == "paused"
    await host.agent.call(seam.DomainUnpause(uuid=host.uuid))
    assert (await host.seen()).state == "running"
    await host.agent.call(seam.DomainPause(uuid=host.uuid))
    await host.agent.call(save)
    await host.agent.call(seam.MemoryStop(image_id="m1"))
    assert (await host.seen()).state == "paused"
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid, start_id="s1"))

    with pytest.raises(SeamError, match="STORAGE"):
        await host.agent.call(seam.DomainRestore(spec=await host.spec("s2"), image_id="m2", memory=small))
    wrong = await host.spec("s2", disks=[await host.disk(0, "s2"), await host.disk(3, "s2")])
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(seam.DomainRestore(spec=wrong, image_id="m3", memory=target))
    assert await host.seen() is None
    spec = await host.spec("s2", tuning=seam.CpuTuning(cpus=[0]))
    restored = await host.agent.call(seam.DomainRestore(spec=spec, image_id="m3", memory=target))
    assert host.processors() == {"0"}
    assert (restored.start_id, restored.state, restored.disks, restored.nics) == ("s2", "paused", [0], [0])
    assert (restored.memory_bytes, restored.vcpus) == (domain.memory_bytes, domain.vcpus)
    await host.agent.call(seam.DomainUnpause(uuid=host.uuid))
    assert (await host.seen()).state == "running"


async def test_counters_tell_what_host_and_domain_have_used(host: Host):
    await host.create(disks=[await host.disk(0), await host.disk(3)])
    before: list[seam.CountersReply] = []

    async def risen() -> bool:
        now = await host.agent.call(seam.Counters())
        mine = next((domain for domain in now.domains if domain.uuid == host.uuid), None)
        if mine is None or not mine.disks:
            return False
        before.append(now)
        was = next(domain for domain in before[0].domains if domain.uuid == host.uuid)
        return sum(mine.vcpu_seconds) > sum(was.vcpu_seconds) and sum(now.cpu_busy_seconds) > sum(
            before[0].cpu_busy_seconds
        )

    await until(risen)
    now = before[-1]
    mine = next(domain for domain in now.domains if domain.uuid == host.uuid)
    assert mine.start_id == "s1"
    assert mine.memory_bytes == 128 * MIB
    assert [disk.device for disk in mine.disks] == [0, 3]
    assert all(disk.reads_us >= disk.reads for disk in mine.disks)
    assert [nic.device for nic in mine.nics] == [0]
    assert now.taken_s > before[0].taken_s
    assert 0 < now.memory_free_bytes <= now.memory_total_bytes


async def test_attach_and_detach(host: Host):
    await host.create()
    await until(host.has_address)
    disk = await host.disk(9)
    await host.agent.call(seam.DiskAttach(uuid=host.uuid, disk=disk))
    await host.agent.call(seam.DiskAttach(uuid=host.uuid, disk=disk))
    other = seam.Disk(device=9, serial="other", source=disk.source)
    with pytest.raises(SeamError, match="BAD_STATE"):
        await host.agent.call(seam.DiskAttach(uuid=host.uuid, disk=other))
    nic = seam.Nic(device=1, mac="02:00:00:00:02:02", bridge=host.bridge)
    await host.agent.call(seam.NicAttach(uuid=host.uuid, nic=nic))
    await host.agent.call(seam.NicAttach(uuid=host.uuid, nic=nic))
    seen = await host.seen()
    assert seen is not None
    assert (seen.disks, seen.nics) == ([0, 9], [0, 1])
    for _ in range(2):
        await host.agent.call(seam.DiskDetach(uuid=host.uuid, device=9))
        await host.agent.call(seam.NicDetach(uuid=host.uuid, device=1))
    seen = await host.seen()
    assert seen is not None
    assert (seen.disks, seen.nics) == ([0], [0])


async def test_a_disk_goes_to_another_volume_while_its_machine_runs(host: Host):
    disk = await host.disk(9)
    await host.create(disks=[await host.disk(0), disk])
    target, other = await host.open(6, "m1"), await host.open(7, "m2")
    to = opening_meant(target)
    mirror = DiskMirror(uuid=host.uuid, start_id="s1", device=9, source=target, volume_bytes=64 * MIB)
    pivot = DiskPivot(uuid=host.uuid, start_id="s1", device=9, to=to)
    stop = DiskMirrorStop(uuid=host.uuid, device=9, to=to)
    progress = DiskMirrorProgress(uuid=host.uuid, device=9)

    async def refused(request: engine_seam.Request, code: str) -> None:
        with pytest.raises(SeamError) as error:
            await host.agent.call(request)
        assert error.value.code == code

    await host.agent.call(stop)
    await refused(pivot, "BAD_STATE")
    await refused(msgspec.structs.replace(mirror, device=8), "NOT_FOUND")
    await refused(msgspec.structs.replace(mirror, start_id="s0"), "NOT_FOUND")
    await refused(
        msgspec.structs.replace(mirror, source=msgspec.structs.replace(target, chap_secret="x" * 12)), "STORAGE"
    )
    for _ in range(2):
        await host.agent.call(mirror)
    assert (await host.agent.call(progress)).fraction == 1.0
    await refused(msgspec.structs.replace(mirror, source=other), "BAD_STATE")
    for _ in range(2):
        await host.agent.call(stop)
    assert (await host.agent.call(progress)).fraction == 0.0
    await refused(pivot, "BAD_STATE")

    await host.agent.call(mirror)
    await host.agent.call(seam.DomainPause(uuid=host.uuid))
    for _ in range(2):
        await host.agent.call(pivot)
    await host.agent.call(seam.DomainUnpause(uuid=host.uuid))
    await refused(stop, "BAD_STATE")
    await refused(mirror, "BAD_STATE")
    seen = await host.seen()
    assert seen is not None
    assert (seen.state, seen.disks) == ("running", [0, 9])
    a_part = {"offset_bytes": 64 * MIB, "size_bytes": 64 * MIB}  # of a volume that holds several disks
    back = msgspec.structs.replace(await host.open(MEMORY_VOLUME, "m3"), **a_part)
    await host.agent.call(msgspec.structs.replace(mirror, source=back))
    await host.agent.call(msgspec.structs.replace(pivot, to=opening_meant(back)))
    again = await host.open(6, "m4")
    await host.agent.call(msgspec.structs.replace(mirror, source=again))
    await host.agent.call(msgspec.structs.replace(pivot, to=opening_meant(again)))
    longer = await host.open(MEMORY_VOLUME, "m5")  # as of storage that rounds up to larger units
    in_longer = msgspec.structs.replace(mirror, source=longer, volume_bytes=MEMORY_VOLUME_BYTES)
    await refused(msgspec.structs.replace(in_longer, volume_bytes=63 * MIB), "STORAGE")
    await host.agent.call(in_longer)
    await host.agent.call(msgspec.structs.replace(pivot, to=opening_meant(longer)))
    await refused(seam.DiskResize(uuid=host.uuid, device=9, size_bytes=MEMORY_VOLUME_BYTES), "BAD_STATE")
    same_again = await host.open(7, "m6")  # the guest has known one size all along
    await host.agent.call(msgspec.structs.replace(mirror, source=same_again))
    await host.agent.call(msgspec.structs.replace(pivot, to=opening_meant(same_again)))
    await host.agent.call(seam.DiskResize(uuid=host.uuid, device=9, size_bytes=64 * MIB))
    await host.agent.call(seam.DomainDestroy(uuid=host.uuid))
    await refused(pivot, "NOT_FOUND")
    await host.agent.call(stop)


async def test_a_volume_that_takes_too_little_ends_a_copy_and_the_machine_runs_on(host: Host):
    await host.create()
    target = await host.open_too_little("m1")
    mirror = DiskMirror(uuid=host.uuid, start_id="s1", device=0, source=target, volume_bytes=host.root_bytes)
    for _ in range(2):
        with pytest.raises(SeamError) as refused:
            await host.agent.call(mirror)
        assert refused.value.code == "STORAGE"
    await host.agent.call(DiskMirrorStop(uuid=host.uuid, device=0, to=opening_meant(target)))
    seen = await host.seen()
    assert seen is not None
    assert seen.state == "running"


async def test_drive_takes_and_gives_a_medium(host: Host):
    drive = seam.Disk(device=3, serial="drive", source=None, kind="cdrom", read_only=True)
    spec = await host.spec()
    await host.agent.call(seam.DomainCreate(spec=await host.spec(disks=[*spec.disks, drive])))
    medium = await host.open(5, "s1")
    full = seam.Disk(device=3, serial="drive", source=medium, kind="cdrom", read_only=True)
    for disk in (full, drive, full):
        await host.agent.call(seam.DiskAttach(uuid=host.uuid, disk=disk))
    seen = await host.seen()
    assert seen is not None
    assert seen.disks == [0, 3]


async def test_shutdown_and_reset(host: Host):
    await host.create()
    await until(host.has_address)
    await host.agent.call(seam.DomainReset(uuid=host.uuid))
    await until(host.has_address)
    await host.agent.call(seam.GuestFreeze(uuid=host.uuid, hold_s=60.0))
    assert (await host.agent.call(seam.GuestThaw(uuid=host.uuid))).held
    assert not (await host.agent.call(seam.GuestThaw(uuid=host.uuid))).held
    await host.agent.call(seam.DomainShutdown(uuid=host.uuid, timeout_s=240), timeout_s=250)
    assert await host.seen() is None

    async def stopped() -> bool:
        return host.states()[-1:] == [("s1", "stopped")]

    await until(stopped)
    assert seam.GuestChanged(uuid=host.uuid) in host.events


async def test_nothing_runs_here(host: Host):
    for request in (
        seam.DomainShutdown(uuid=host.uuid),
        seam.DomainReset(uuid=host.uuid),
        seam.DomainPause(uuid=host.uuid),
        seam.DomainUnpause(uuid=host.uuid),
        seam.DomainVcpus(uuid=host.uuid, vcpus=1),
        DomainMemory(uuid=host.uuid, target_bytes=64 * MIB),
        DomainTrigger(uuid=host.uuid, trigger="nmi"),
        DomainSysrq(uuid=host.uuid, key="s"),
        seam.DiskDetach(uuid=host.uuid, device=1),
        seam.DiskResize(uuid=host.uuid, device=1, size_bytes=512),
        seam.NicDetach(uuid=host.uuid, device=1),
        seam.GuestMetrics(uuid=host.uuid),
        seam.GuestFreeze(uuid=host.uuid),
    ):
        with pytest.raises(SeamError, match="NOT_FOUND"):
            await host.agent.call(request)


async def test_no_such_bridge_and_too_much_memory(host: Host):
    nics = [seam.Nic(device=0, mac="02:00:00:00:02:01", bridge="nobridge")]
    with pytest.raises(SeamError, match="NOT_FOUND"):
        await host.create(nics=nics)
    with pytest.raises(SeamError, match="NO_MEMORY"):
        await host.create(memory_bytes=2**41)
    await host.agent.call(seam.BridgeEnsure(bridge="xapi9", mtu=1400))
    await host.agent.call(seam.BridgeEnsure(bridge="xapi9", mtu=1500))
    assert "xapi9" in (await host.agent.call(seam.Facts())).bridges


async def test_many_creates_and_destroys_at_once(host: Host):
    """Whatever wins, the answer is true: what was created last runs, or nothing does."""
    spec = await host.spec()

    async def create() -> str:
        try:
            await host.agent.call(seam.DomainCreate(spec=spec))
        except SeamError as error:
            return error.code
        return ""

    destroy = seam.DomainDestroy(uuid=host.uuid)
    answers = await asyncio.gather(create(), create(), create(), host.agent.call(destroy), host.agent.call(destroy))
    assert set(answers[:3]) <= {"", "BAD_STATE", "HYPERVISOR", "STORAGE"}
    await host.agent.call(destroy)
    assert await host.seen() is None
    assert (await host.create("s1")).state == "running"
