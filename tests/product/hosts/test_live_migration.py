"""A running guest moves between two hosts with its disks on the array, while it writes; and parts of the product die
meanwhile. The witness: numbered records, each told on the serial line only after it is durable."""

import contextlib
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.demo.guest import NUDGE_S, SHELL, GuestConsole
from gespann.demo.show import Show
from gespann.demo.site import AGENT_DATA, GUEST_IMAGE, POOL_RUN, XE, Site
from gespann.demo.user import CheckFailed, User
from gespann.system import processes
from tests.own_nets import OWN, net_of

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(1200)]
WAIT_S = 300.0
LIVE = "params=host-metrics-live"
PAGE_BYTES = 15 * 1024**2  # of the array


class QuietConsole(GuestConsole):
    """Somebody is logged in already, and the writer's words hide the prompt: it is ended first, typed until it is."""

    def _log_in(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            self._write(b"\rkillall seqwriter\r")
            try:
                return self._expect(SHELL, NUDGE_S)
            except CheckFailed:
                assert time.monotonic() < deadline, "no prompt"


class Two:
    """A lab with two hosts, and one guest that writes to its second disk."""

    def __init__(self, directory: Path) -> None:
        self.site = Site(directory, f"tg{OWN}", net_of(4))
        self.vm = self.data = self.serial = ""
        self.hosts: dict[str, str] = {}

    def begin(self) -> None:
        self.site.up_nodes(hosts=2)
        self.site.start_group()
        self.site.start_pool()
        for name in ("host1", "host2"):
            self.hosts[name] = self.xe(f"host-list hostname={name} --minimal")
        self._make_guest()

    def make_sr(self, name: str) -> str:
        access = self.site.access
        config = f"device-config:target={access.storage_address} device-config:username=grpadmin"
        config += f" device-config-filename:password={access.group_password_file} device-config:storagepool=default"
        sr = self.xe(f"sr-create name-label={name} type=equal shared=true sm-config:allocation=thin {config}")
        assert self.xe(f"pbd-list sr-uuid={sr} params=currently-attached --minimal") == "true,true"
        return sr

    def _make_guest(self) -> None:
        sr = self.make_sr("array")
        self.vm = self.xe("vm-create name-label=web1")
        sizes = " ".join(f"{name}=128MiB" for name in ("static-min", "dynamic-min", "dynamic-max", "static-max"))
        self.xe(f"vm-memory-limits-set uuid={self.vm} {sizes}")
        self.xe(f"vm-param-set uuid={self.vm} HVM-boot-params:order=c")
        root = self.xe(f"vdi-create sr-uuid={sr} name-label=root virtual-size={GUEST_IMAGE.stat().st_size}")
        self.xe(f"vdi-import uuid={root} filename={GUEST_IMAGE} format=raw")
        self.data = self.xe(f"vdi-create sr-uuid={sr} name-label=data virtual-size=60MiB")
        self.serial = self.data.replace("-", "")[:20]
        for device, vdi in enumerate((root, self.data)):
            boot = f"device={device} bootable={str(device == 0).lower()}"
            self.xe(f"vbd-create vm-uuid={self.vm} vdi-uuid={vdi} {boot} type=Disk mode=RW")
        network = self.xe("network-list bridge=xenbr2 --minimal")
        self.xe(f"vif-create vm-uuid={self.vm} network-uuid={network} device=0 mac=random")
        self.xe(f"vm-start uuid={self.vm} on={self.hosts['host1']}")
        until(lambda: "0/ip" in self.get("networks"), "the guest has an address")
        guest = self.guest().__enter__()
        guest.run(f"(seqwriter raw {self.disk} 3 >/dev/ttyS0 2>&1 &)")
        guest.close()  # without logging out, which would take the line away from the writer
        until(lambda: len(self.records()) > 20, "the guest writes")

    @property
    def disk(self) -> str:
        """In the guest; it goes on seeing the serial that the disk had at its start."""
        return f"$(disk-by-serial {self.serial})"

    def guest(self) -> GuestConsole:
        return GuestConsole(Show(0), self.site.access, "web1")

    def try_xe(self, line: str) -> processes.Result:
        socket = self.site.lab.directory / "host1" / POOL_RUN[1:] / "xapi"
        env = {**os.environ, "GESPANN_XAPI_SOCKET": str(socket)}
        return processes.run([XE, *shlex.split(line)], env=env, timeout_s=WAIT_S, check=False)

    def xe(self, line: str) -> str:
        done = self.try_xe(line)
        assert done.exit_code == 0, f"{line}\n{done}\n{self.site.log_tails(40)}"
        return done.stdout.strip()

    def get(self, field: str) -> str:
        return self.xe(f"vm-param-get uuid={self.vm} param-name={field}")

    def held_bytes(self, sr: str, vdi: str) -> int:
        """What the array has set aside for it."""
        self.xe(f"sr-scan uuid={sr}")
        return int(self.xe(f"vdi-param-get uuid={vdi} param-name=physical-utilisation"))

    def where(self) -> str:
        """The host that the pool says it runs on."""
        resident = self.get("resident-on")
        return next(name for name, uuid in self.hosts.items() if uuid == resident)

    def qemus(self) -> list[str]:
        """The hosts on which a QEMU of this machine is."""
        return [name for name in self.hosts for pid in self.site.lab.node(name).pids() if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return b"qemu-system" in words[0] and self.vm.encode() in words
        return False

    def log(self, host: str) -> Path:
        return self.site.lab.node(host).path(AGENT_DATA) / "console" / f"{self.vm}.log"

    def records(self) -> list[int]:
        """All numbers that the guest has told, on either host."""
        texts = [path.read_text(errors="replace") for name in self.hosts if (path := self.log(name)).exists()]
        return sorted(int(number) for text in texts for number in re.findall(r"SEQ (\d+) \d+", text))

    def writes_on(self) -> None:
        """More records come."""
        seen = self.records()[-1]
        until(lambda: self.records()[-1] > seen + 20, "the guest writes on")

    def other(self) -> str:
        return "host2" if self.where() == "host1" else "host1"

    def openings(self) -> str:
        return self.xe(f"vbd-list vm-uuid={self.vm} currently-attached=true params=device --minimal")

    def whole(self) -> None:
        """It runs on exactly one host, writes on there, and nothing is under way."""
        until(lambda: self.try_xe("host-list --minimal").exit_code == 0, "the pool answers")
        until(lambda: self.xe(f"host-list {LIVE} --minimal") == "true,true", "both agents are back")
        until(lambda: not self.get("current-operations"), "the migration has ended, or is undone")
        until(lambda: self.get("power-state") == "running", "it runs")
        until(lambda: self.qemus() == [self.where()], "one QEMU, where the pool says")
        self.writes_on()


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


class Pauses:
    """Looks at the guest's words on both hosts, and knows the longest time without a new one."""

    def __init__(self, two: Two) -> None:
        self._paths = [two.log(name) for name in two.hosts]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.longest_s = 0.0

    def __enter__(self) -> "Pauses":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        seen, since_s = -1, time.monotonic()
        while not self._ended.wait(0.002):
            size = sum(path.stat().st_size for path in self._paths if path.exists())
            now_s = time.monotonic()
            if size != seen:
                self.longest_s = max(self.longest_s, now_s - since_s) if seen >= 0 else 0.0
                seen, since_s = size, now_s


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("mig") / "l")
    with pytest.MonkeyPatch.context() as patch:
        # What consoles remember of the hosts' certificates ends with these hosts: another lab may have their addresses.
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        try:
            two.begin()
            yield two
        finally:
            two.site.down()


def test_a_guest_moves_there_and_back_and_writes_on(two: Two) -> None:
    two.writes_on()
    for _ in range(2):
        target = two.other()
        with Pauses(two) as pauses:
            two.xe(f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} live=true")
            assert two.where() == target
            two.whole()
        print(f"longest time without a durable record: {pauses.longest_s * 1000:.0f} ms")
        assert pauses.longest_s > 0
    records = two.records()
    assert sorted(set(records)) == list(range(1, records[-1] + 1))


def test_to_where_it_is_already_nothing_happens(two: Two) -> None:
    before = two.get("resident-on")
    two.xe(f"vm-migrate uuid={two.vm} host-uuid={before} live=true")
    assert two.get("resident-on") == before


@pytest.mark.parametrize("victim", ["coordinator", "source", "destination"])
def test_a_part_dies_in_the_middle_and_the_guest_runs_in_one_place(two: Two, victim: str) -> None:
    source, target = two.where(), two.other()
    node, service = {
        "coordinator": ("host1", "coordinator"),
        "source": (source, "agent"),
        "destination": (target, "agent"),
    }[victim]
    log = two.site.lab.directory / source / "log/agent.log"
    sent = log.read_text().count(f"send {two.vm}")
    line = f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} live=true"
    asking = threading.Thread(target=lambda: two.try_xe(line))
    asking.start()
    until(lambda: log.read_text().count(f"send {two.vm}") > sent, "memory is on its way")
    pid = two.site.lab.node(node).service_pid(service)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    asking.join()
    two.whole()


def test_cancelled_on_its_way_it_writes_on_where_it_was(two: Two) -> None:
    source, target = two.where(), two.other()
    log = two.site.lab.directory / source / "log/agent.log"
    sent = log.read_text().count(f"send {two.vm}")
    ended: list[processes.Result] = []
    line = f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} live=true"
    asking = threading.Thread(target=lambda: ended.append(two.try_xe(line)))
    asking.start()
    until(lambda: log.read_text().count(f"send {two.vm}") > sent, "memory is on its way")
    task = two.xe("task-list name-label=Async.VM.pool_migrate status=pending params=uuid --minimal")
    two.try_xe(f"task-cancel uuid={task}")  # there is none any more if it has arrived
    asking.join()
    (done,) = ended
    if done.exit_code == 0:  # it had arrived when the word came
        assert two.where() == target
    else:
        assert "cancelled" in done.stdout + done.stderr
        assert two.where() == source
    two.whole()


def is_on_array(two: Two, sr: str, vdi: str) -> bool:
    name = f"XenStorage{sr.replace('-', '')}{vdi.replace('-', '')[:20]}"
    try:
        User(Show(0), two.site.access).group(f"volume select {name} show", quiet=True)
    except CheckFailed as refused:
        if "does not exist" in str(refused):
            return False
        raise
    return True


def test_its_disk_moves_to_another_sr_and_back_with_the_machine_and_it_writes_on(two: Two) -> None:
    """The last test of this guest looks at what the disk then holds."""
    here, other = two.xe(f"vdi-param-get uuid={two.data} param-name=sr-uuid"), two.make_sr("other")
    assert is_on_array(two, here, two.data)
    held = two.held_bytes(here, two.data)
    with Pauses(two) as pauses:
        moved = two.xe(f"vdi-pool-migrate uuid={two.data} sr-uuid={other}")
        two.whole()
    print(f"longest time without a durable record: {pauses.longest_s * 1000:.0f} ms")
    assert two.xe(f"vdi-param-get uuid={moved} param-name=sr-uuid") == other
    assert not is_on_array(two, here, two.data)
    assert is_on_array(two, other, moved)
    print(f"{held} bytes held there, {two.held_bytes(other, moved)} here")
    assert two.held_bytes(other, moved) <= held + PAGE_BYTES, "what was thin stays thin"

    log = two.site.lab.directory / two.where() / "log/agent.log"
    begun = log.read_text().count("mirror disk 1")
    asking = threading.Thread(target=lambda: two.try_xe(f"vdi-pool-migrate uuid={moved} sr-uuid={here}"))
    asking.start()
    until(lambda: log.read_text().count("mirror disk 1") > begun, "the disk is being copied")
    pid = two.site.lab.node("host1").service_pid("coordinator")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    asking.join()
    two.whole()
    (data,) = two.xe(f"vbd-list vm-uuid={two.vm} userdevice=1 params=vdi-uuid --minimal").split(",")

    target, back = two.other(), two.make_sr("third")
    two.xe(f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} vdi:{data}={back}")
    assert two.where() == target
    two.whole()
    (two.data,) = two.xe(f"vdi-list sr-uuid={back} --minimal").split(",")
    records = two.records()
    assert sorted(set(records)) == list(range(1, records[-1] + 1))


def test_at_the_end_it_moves_once_more_and_the_disk_holds_every_record_that_was_told(two: Two) -> None:
    target = two.other()
    until(lambda: two.records()[-1] > 100, "a hundred records")
    two.xe(f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} live=true")
    assert two.where() == target
    with QuietConsole(Show(0), two.site.access, "web1") as guest:
        guest.run("while killall -0 seqwriter 2>/dev/null; do usleep 10000; done")
        said = guest.run(f"seqwriter rawcheck {two.disk}")
    (message, *_) = two.xe(f"message-list name=VM_MIGRATED obj-uuid={two.vm} params=body --minimal").split(",")
    assert re.search(r"it stood still for \d+ ms", message)
    records = two.records()
    last = int(re.search(r"LAST (\d+)", said)[1])
    assert last >= records[-1] > 100
    two.xe(f"vm-shutdown uuid={two.vm} --force")
    assert two.qemus() == []


def test_the_source_loses_its_power_on_the_way_and_an_administrator_gives_it_up(two: Two) -> None:
    """Nobody but the dead host could say whether the machine runs there: the array shuts out what may be left of it."""
    source, target = "host2", "host1"
    two.xe(f"vm-start uuid={two.vm} on={two.hosts[source]}")
    log = two.site.lab.directory / source / "log/agent.log"
    sent = log.read_text().count(f"send {two.vm}")
    line = f"vm-migrate uuid={two.vm} host-uuid={two.hosts[target]} live=true"
    asking = threading.Thread(target=lambda: two.try_xe(line))
    asking.start()
    until(lambda: log.read_text().count(f"send {two.vm}") > sent, "memory is on its way")
    two.site.lab.node(source).crash()
    asking.join()
    until(lambda: two.xe(f"host-list uuid={two.hosts[source]} {LIVE} --minimal") == "false", "its silence is noticed")
    assert two.try_xe(f"vm-start uuid={two.vm}").exit_code != 0
    refused = two.try_xe(f"host-declare-dead uuid={two.hosts[target]}")
    assert refused.exit_code != 0
    assert "live" in refused.stderr + refused.stdout
    two.xe(f"host-declare-dead uuid={two.hosts[source]}")
    assert two.get("power-state") == "halted"
    assert two.xe(f"vbd-list vm-uuid={two.vm} currently-attached=true --minimal") == ""
    two.xe(f"vm-start uuid={two.vm}")
    until(lambda: two.qemus() == [target], "it runs on the host that is left")
    two.xe(f"vm-shutdown uuid={two.vm} --force")
