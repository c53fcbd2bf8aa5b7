"""Real machines from LUNs that the engine serves, driven over seam 5."""

import asyncio
import contextlib
import os
import re
import signal
import time
import uuid as uuids
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gespann.host.nic_filter import tap_name
from gespann.seams import engine_socket as engine_seam
from gespann.seams import host_agent as seam
from gespann.seams.host_machine import DomainSysrq
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.json_lines import JsonLinesClient
from tests.product.host.real_host import ROOT_VOLUME, Site, answers, until

pytestmark = [pytest.mark.real, pytest.mark.engine]

MIB = 1024**2
NUDGE_S = 3.0


@dataclass
class Machine:
    """One VM of one test: its volumes, its starts, its console."""

    site: Site
    agent: JsonLinesClient
    engine: JsonLinesClient
    uuid: str
    volume: str
    events: list[seam.Event] = field(default_factory=list)

    async def spec(self, start: str, **more: Any) -> seam.DomainSpec:
        source = await self.site.open(self.engine, self.volume, start)
        return seam.DomainSpec(
            uuid=self.uuid,
            start_id=start,
            name_label="prüf <1>",
            memory_bytes=128 * MIB,
            vcpus=1,
            disks=[seam.Disk(device=0, serial="root-disk", source=source, bootable=True)],
            nics=[seam.Nic(device=0, mac="02:00:00:00:01:01", bridge="xenbr2")],
            **more,
        )

    async def start(self, start: str = "s1", **more: Any) -> seam.Domain:
        return await self.agent.call(seam.DomainCreate(spec=await self.spec(start, **more)))

    async def has_address(self) -> bool:
        said = await self.agent.call(seam.GuestMetrics(uuid=self.uuid))
        return "0/ip" in said.networks

    async def runs(self) -> bool:
        return any(domain.uuid == self.uuid for domain in (await self.agent.call(seam.DomainList())).domains)

    async def has_no_session(self) -> bool:
        return not await self.site.sessions(self.engine, self.volume)

    def qemu(self) -> int | None:
        for pid in self.site.host.pids():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if self.uuid.encode() in command and b"qemu-system" in command.split(b"\0")[0]:
                    return pid
        return None

    async def console(self, command: str, expect: str) -> None:
        """Types a command in the root shell of the serial console, and reads until that says what is expected."""
        directory = os.open(self.site.host.path(f"/run/gespann/vm/{self.uuid}"), os.O_PATH)
        try:  # seen from outside the path is longer than a socket's may be
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/serial.sock")
        finally:
            os.close(directory)
        said, typed = "", False
        try:
            writer.write(b"\n")
            async with asyncio.timeout(120):
                while expect not in said or not typed:
                    try:
                        data = await asyncio.wait_for(reader.read(4096), None if typed else NUDGE_S)
                    except TimeoutError:  # the kernel said something behind the prompt: Enter brings another
                        writer.write(b"\n")
                        continue
                    assert data, f"the console has ended: {said}"
                    said += data.decode(errors="replace").replace("\x1b[6n", "")  # the shell asks where its cursor is
                    if said.endswith("login: "):
                        writer.write(b"root\n")
                        said = ""
                    elif said.endswith("# ") and not typed:
                        writer.write(command.encode() + b"\n")
                        said, typed = "", True
        finally:
            writer.close()


@pytest.fixture
async def machine(site: Site) -> AsyncIterator[Machine]:
    events: list[seam.Event] = []
    agent, engine = site.agent(events), site.engine()
    agent.start()
    made = Machine(site, agent, engine, str(uuids.uuid4()), uuids.uuid4().hex, events)
    await engine.call(engine_seam.VolumeClone(source=ROOT_VOLUME, volume=made.volume))
    yield made
    await until(lambda: answers(agent, seam.DomainDestroy(uuid=made.uuid)))
    site.targets.pop(made.volume, None)
    await site.configure(engine)
    await agent.close()
    await engine.close()


async def test_life_of_a_machine(machine: Machine):
    """Boots from its LUN, gets an address, takes a disk, lets go of it, shuts down: and its session ends."""
    domain = await machine.start()
    assert domain.state == "running"
    [session] = await machine.site.sessions(machine.engine, machine.volume)
    assert session.initiator == machine.site.source(machine.volume, "s1").initiator
    await until(machine.has_address)
    said = await machine.agent.call(seam.GuestMetrics(uuid=machine.uuid))
    assert said.live
    assert said.agent_version.startswith("7.2")
    assert said.os_version["distro"] == "tiny"

    extra = uuids.uuid4().hex
    await machine.engine.call(engine_seam.VolumeCreate(volume=extra, size_bytes=64 * MIB))
    source = await machine.site.open(machine.engine, extra, "s1")
    disk = seam.Disk(device=7, serial="extra-disk", source=source)
    await machine.agent.call(seam.DiskAttach(uuid=machine.uuid, disk=disk))
    await machine.agent.call(seam.DiskAttach(uuid=machine.uuid, disk=disk))
    await machine.console("disk-by-serial extra-disk && echo fou''nd", expect="found")
    assert len(await machine.site.sessions(machine.engine, extra)) == 1
    await machine.engine.call(engine_seam.VolumeResize(volume=extra, size_bytes=96 * MIB))
    await machine.agent.call(seam.DiskResize(uuid=machine.uuid, device=7, size_bytes=96 * MIB))
    size = "until [ $(cat /sys/block/$(basename $(disk-by-serial extra-disk))/size) = 196608 ]; do sleep 1; done"
    await machine.console(f"{size}; echo gro''wn", expect="grown")
    await machine.agent.call(seam.DiskDetach(uuid=machine.uuid, device=7))
    assert await machine.site.sessions(machine.engine, extra) == []
    await machine.console("disk-by-serial extra-disk || echo go''ne", expect="gone")

    await machine.agent.call(seam.BridgeEnsure(bridge="xapi8"))
    for bridge, other in (("xapi8", "xenbr2"), ("xenbr2", "xapi8")):
        nic = seam.Nic(device=0, mac="02:00:00:00:01:01", bridge=bridge)
        for _ in range(2):
            await machine.agent.call(seam.NicAttach(uuid=machine.uuid, nic=nic))
        ports = [machine.site.host.run(["ip", "-o", "link", "show", "master", at]).stdout for at in (bridge, other)]
        assert [text.count(f" {tap_name(machine.uuid, 0)}: ") for text in ports] == [1, 0]

    own = (await machine.agent.call(seam.GuestMetrics(uuid=machine.uuid))).networks["0/ip"]
    other = machine.site.lab.addressing.address("vm", 1)
    for locking, allowed, answer in (
        ("disabled", [], "silence"),
        ("locked", [own], "heard"),
        ("locked", [other], "silence"),
        ("unlocked", [], "heard"),
    ):
        locked = msgspec.structs.replace(nic, locking=locking, ipv4_allowed=allowed)
        await machine.agent.call(seam.NicAttach(uuid=machine.uuid, nic=locked))
        tries = 1 if answer == "silence" else 5
        await machine.console(
            f"ping -c {tries} -W 2 {other} > /dev/null && echo he''ard || echo sil''ence", expect=answer
        )

    await machine.agent.call(seam.DomainShutdown(uuid=machine.uuid, timeout_s=240), timeout_s=250)
    assert machine.qemu() is None
    await until(machine.has_no_session)
    assert not await machine.runs()

    async def told_from_start_to_end() -> bool:
        states = [event.domain.state for event in machine.events if isinstance(event, seam.DomainChanged)]
        return (states[0], states[-1]) == ("running", "stopped")

    await until(told_from_start_to_end)


async def test_a_guest_that_gives_up_stands_still_until_somebody_decides(machine: Machine):
    """Its firmware tells what it was given, its keyboard has SysRq, and its panic is seen."""
    await machine.start(bios_strings={"system-manufacturer": "ACME", "enclosure-asset-tag": "rack 3"})
    await until(machine.has_address)
    await machine.console("cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/chassis_asset_tag", expect="rack 3")
    await machine.console("echo 1 >/proc/sys/kernel/sysrq; echo rea''dy", expect="ready")
    await machine.agent.call(DomainSysrq(uuid=machine.uuid, key="c"))

    async def gave_up() -> bool:
        [domain] = (await machine.agent.call(seam.DomainList())).domains
        return (domain.state, domain.reason) == ("paused", "crashed")

    async def was_told() -> bool:
        told = [event.domain for event in machine.events if isinstance(event, seam.DomainChanged)]
        return ("paused", "crashed") in [(domain.state, domain.reason) for domain in told]

    await until(gave_up)
    await until(was_told)
    await machine.agent.call(seam.DomainReset(uuid=machine.uuid))
    await machine.agent.call(seam.DomainUnpause(uuid=machine.uuid))
    await until(machine.has_address)


async def test_daemons_die_and_machines_do_not(machine: Machine):
    await machine.start()
    pid = machine.qemu()
    for service in ("libvirtd", "agent"):
        old = machine.site.host.service_pid(service)
        os.kill(old, signal.SIGKILL)

        async def came_back(service: str = service, old: int | None = old) -> bool:
            return machine.site.host.service_pid(service) not in (None, old)

        await until(came_back)
        await until(lambda: answers(machine.agent, seam.DomainList()))
        [domain] = [d for d in (await machine.agent.call(seam.DomainList())).domains if d.uuid == machine.uuid]
        assert (domain.start_id, domain.state) == ("s1", "running")
    assert machine.qemu() == pid
    assert await machine.start("s1") == domain
    await until(machine.has_address)


async def test_the_secret_is_nowhere_to_be_seen(machine: Machine):
    await machine.start()
    secret = machine.site.source(machine.volume, "s1").chap_secret.encode()
    for path in (Path(f"/proc/{pid}") for pid in machine.site.host.pids()):
        with contextlib.suppress(OSError):
            assert secret not in (path / "cmdline").read_bytes()
            assert secret not in (path / "environ").read_bytes()
    places = [machine.site.host.path(path) for path in ("/run", "/var", "/etc/libvirt")]
    for place in [*places, machine.site.host.directory / "log"]:
        for folder, _, names in os.walk(place):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    with contextlib.suppress(FileNotFoundError):  # daemons are at work there
                        assert secret not in path.read_bytes(), path


async def test_a_wrong_secret_is_refused_and_leaves_nothing(machine: Machine):
    spec = await machine.spec("s1")
    await machine.spec("s2")  # the record is another start's now
    with pytest.raises(SeamError) as refused:
        await machine.agent.call(seam.DomainCreate(spec=spec))
    assert refused.value.code == "STORAGE"
    assert "secret-of" not in refused.value.message
    assert machine.qemu() is None
    assert not await machine.runs()
    assert not machine.site.host.path(f"/run/gespann/vm/{machine.uuid}").exists()
    assert (await machine.start("s2")).start_id == "s2"


async def test_an_array_that_is_not_there_is_a_clear_error(machine: Machine):
    spec = await machine.spec("s1")
    machine.site.host.cut("stor")
    try:
        with pytest.raises(SeamError, match="STORAGE: portal"):
            await machine.agent.call(seam.DomainCreate(spec=spec))
    finally:
        machine.site.host.heal("stor")
    assert not await machine.runs()


async def test_another_start_of_a_running_machine(machine: Machine):
    await machine.start("s1")
    with pytest.raises(SeamError) as refused:
        await machine.agent.call(seam.DomainCreate(spec=await machine.spec("s2")))
    assert refused.value.code == "EXISTS"
    await machine.agent.call(seam.DomainDestroy(uuid=machine.uuid, start_id="s2"))
    assert await machine.runs()
    await machine.agent.call(seam.DomainDestroy(uuid=machine.uuid, start_id="s1"))
    assert machine.qemu() is None


async def test_destroy_while_the_storage_hangs(machine: Machine):
    await machine.start()
    await until(machine.has_address)
    await machine.console("echo rea''dy", expect="ready")
    machine.site.host.drop("stor")
    try:
        await machine.console("dd if=/dev/zero of=/junk bs=1M count=20 conv=fsync &", expect="#")
        await machine.agent.call(seam.DomainDestroy(uuid=machine.uuid))
        assert machine.qemu() is None
    finally:
        machine.site.host.undrop("stor")


async def test_destroy_while_libvirtd_hangs(machine: Machine):
    await machine.start()
    libvirtd = machine.site.host.service_pid("libvirtd")
    assert libvirtd is not None
    os.kill(libvirtd, signal.SIGSTOP)
    try:
        destroy = seam.DomainDestroy(uuid=machine.uuid, start_id="s1")
        await machine.agent.call(destroy)
        assert machine.qemu() is None
        await until(machine.has_no_session)
    finally:
        os.kill(libvirtd, signal.SIGCONT)
    await until(lambda: answers(machine.agent, seam.DomainList()))
    assert (await machine.start("s2")).start_id == "s2"
    assert machine.qemu() is not None


async def test_a_guest_whose_agent_hangs(machine: Machine):
    """It costs seconds, not for ever; and the power button still works."""
    await machine.start()
    await until(machine.has_address)
    await machine.console("killall -STOP qemu-ga; echo stop''ped", expect="stopped")
    said = await machine.agent.call(seam.GuestMetrics(uuid=machine.uuid))
    assert not said.live
    await machine.agent.call(seam.DomainShutdown(uuid=machine.uuid, timeout_s=240), timeout_s=250)
    assert machine.qemu() is None


async def test_qemu_dies(machine: Machine):
    await machine.start()
    os.kill(machine.qemu(), signal.SIGKILL)

    async def told() -> bool:
        return any(
            isinstance(event, seam.DomainChanged)
            and (event.domain.state, event.domain.reason) == ("stopped", "crashed")
            for event in machine.events
        )

    await until(told)
    assert not await machine.runs()

    async def cleaned_up() -> bool:
        return not machine.site.host.path(f"/run/gespann/vm/{machine.uuid}").exists()

    await until(cleaned_up)


async def test_images_end_with_the_agent(machine: Machine):
    source = await machine.site.open(machine.engine, machine.volume, "image")
    opened = await machine.agent.call(seam.ImageOpen(image_id="one", source=source, read_only=True))
    again = await machine.agent.call(seam.ImageOpen(image_id="one", source=source, read_only=True))
    assert opened == again
    assert len(await machine.site.sessions(machine.engine, machine.volume)) == 1
    directory = machine.site.host.path(opened.socket).parent
    assert [path.name for path in directory.iterdir()] == ["nbd.sock"]
    os.kill(machine.site.host.service_pid("agent"), signal.SIGKILL)
    await until(machine.has_no_session)
    await until(lambda: answers(machine.agent, seam.DomainList()))
    assert not directory.exists()
    await machine.agent.call(seam.ImageOpen(image_id="one", source=source, read_only=True))
    await machine.agent.call(seam.ImageClose(image_id="one"))
    await machine.agent.call(seam.ImageClose(image_id="one"))
    assert await machine.has_no_session()


async def test_trim_gives_space_back(machine: Machine):
    async def allocated() -> int:
        reply = await machine.engine.call(engine_seam.VolumeList(volume=machine.volume))
        return reply.volumes[0].allocated_bytes

    await machine.start()
    await until(machine.has_address)
    before = await allocated()
    await machine.console("dd if=/dev/urandom of=/junk bs=1M count=40; sync; echo writ''ten", expect="written")
    full = await allocated()
    assert full - before > 35 * MIB
    await machine.console("rm /junk; sync; fstrim /; echo trim''med", expect="trimmed")

    async def shrunk() -> bool:
        return full - await allocated() > 35 * MIB

    await until(shrunk)


def _counts(machine: Machine) -> list[tuple[int, int]]:
    """What the guest has counted aloud, and when by its own clock; by the log of its serial console, which outlives its
    starts."""
    said = machine.site.host.path(f"/var/lib/gespann/console/{machine.uuid}.log").read_text(errors="replace")
    return [(int(number), int(at_s)) for number, at_s in re.findall(r"count (\d+) (\d+) ", said)]


def counted(machine: Machine) -> list[int]:
    return [number for number, _ in _counts(machine)]


def console_times(machine: Machine) -> list[int]:
    return [at_s for _, at_s in _counts(machine)]


async def test_a_suspended_guest_goes_on_where_it_stood(machine: Machine):
    """Its memory lies in a volume of the array meanwhile, and nothing of it is on the host. What disturbs the writing
    of it leaves the guest where it was."""
    await machine.start()
    await until(machine.has_address)
    loop = 'n=0; while :; do n=$((n+1)); echo "count $n $(date +%s) " >/dev/ttyS0; sleep 0.2; done'
    await machine.console(f"({loop}) & echo star''ted", expect="started")

    async def has_counted(number: int) -> None:
        async def reached() -> bool:
            return len(counted(machine)) >= number

        await until(reached)

    await has_counted(3)
    await machine.agent.call(seam.DomainPause(uuid=machine.uuid))
    memory = uuids.uuid4().hex
    await machine.engine.call(engine_seam.VolumeCreate(volume=memory, size_bytes=200 * MIB))
    target = await machine.site.open(machine.engine, memory, "save")
    files = machine.site.host.path("/run/gespann/memory")

    old = machine.site.host.service_pid("agent")
    saving = seam.MemorySave(uuid=machine.uuid, start_id="s1", image_id="first", target=target)
    killed = asyncio.create_task(machine.agent.call(saving))

    async def is_open() -> bool:
        return (files / "first/pid").exists()

    await until(is_open)
    os.kill(old, signal.SIGKILL)
    with pytest.raises(SeamLost):
        await killed
    await until(lambda: answers(machine.agent, seam.DomainList()))
    assert list(files.iterdir()) == []
    [domain] = (await machine.agent.call(seam.DomainList())).domains
    assert (domain.uuid, domain.state) == (machine.uuid, "paused")

    await machine.agent.call(msgspec.structs.replace(saving, image_id="second"))
    assert list(files.iterdir()) == []
    assert await machine.site.sessions(machine.engine, memory) == []
    await machine.agent.call(seam.DomainDestroy(uuid=machine.uuid, start_id="s1"))
    before = counted(machine)
    source = await machine.site.open(machine.engine, memory, "load")
    restore = seam.DomainRestore(spec=await machine.spec("s2"), image_id="load", memory=source)
    restored = await machine.agent.call(restore)
    assert (restored.start_id, restored.state) == ("s2", "paused")
    assert await machine.agent.call(restore) == restored
    [session] = await machine.site.sessions(machine.engine, machine.volume)
    assert session.initiator == machine.site.source(machine.volume, "s2").initiator
    await machine.agent.call(seam.DomainUnpause(uuid=machine.uuid))
    await has_counted(len(before) + 3)
    assert counted(machine) == list(range(1, len(counted(machine)) + 1))
    await until(machine.has_address)

    async def knows_the_time() -> bool:
        """It does not know by itself how long it was away."""
        earliest_s, before = int(time.time()), len(counted(machine))
        await has_counted(before + 1)
        return console_times(machine)[before] >= earliest_s

    await until(knows_the_time)

    # a checkpoint: memory and disk of one instant, to which it goes back after it has gone on
    await machine.agent.call(seam.DomainPause(uuid=machine.uuid))
    target = await machine.site.open(machine.engine, memory, "again")
    saving = seam.MemorySave(uuid=machine.uuid, start_id="s2", image_id="third", target=target)
    await machine.agent.call(saving)
    kept = uuids.uuid4().hex
    await machine.engine.call(engine_seam.VolumeClone(source=machine.volume, volume=kept))
    then = counted(machine)
    await machine.agent.call(seam.DomainUnpause(uuid=machine.uuid))
    await has_counted(len(then) + 2)
    await machine.agent.call(seam.DomainDestroy(uuid=machine.uuid, start_id="s2"))
    said = len(counted(machine))
    machine.volume = kept
    source = await machine.site.open(machine.engine, memory, "back")
    restore = seam.DomainRestore(spec=await machine.spec("s3"), image_id="back", memory=source)
    await machine.agent.call(restore)
    await machine.agent.call(seam.DomainUnpause(uuid=machine.uuid))
    await has_counted(said + 2)
    assert counted(machine)[said : said + 2] == [then[-1] + 1, then[-1] + 2]
    await machine.console("sync; dmesg | grep -i 'i/o error' || echo cle''an", expect="clean")
