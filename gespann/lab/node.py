"""One node of a lab: a machine that can be switched on, unplugged, entered and cut off."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import libvirt

from gespann.lab.network import NETWORKS, LabError, Switch, octet_of
from gespann.lab.node_files import LIBVIRTD, empty_run, write_disk
from gespann.lab.node_init import Config, Service
from gespann.system import processes

BOOT_TIMEOUT_S = 180.0
GONE_TIMEOUT_S = 120.0
POLL_S = 0.01
PROJECT = Path(__file__).resolve().parents[2]


def wait_until(true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """LabError if it has not become true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout_s:g} s")
        time.sleep(POLL_S)


def started_at(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: tells it from a later one of its pid. None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def process_of(wrapper_pid: int) -> int | None:
    """The command inside the node that an ``nsenter`` outside waits for."""
    try:
        children = Path(f"/proc/{wrapper_pid}/task/{wrapper_pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class NodeProcess:
    """A command that ``Node.start`` started. ``pid`` as this machine counts."""

    def __init__(self, words: Sequence[processes.Word], log: Path, env: Mapping[str, str]) -> None:
        self._wrapper = processes.start_logged(words, log, env=env)
        wait_until(
            lambda: process_of(self._wrapper.pid) is not None or not self.running,
            BOOT_TIMEOUT_S,
            processes.command_line(words),
        )
        self.pid = process_of(self._wrapper.pid) or 0  # 0: it has ended already

    @property
    def running(self) -> bool:
        return self._wrapper.poll() is None

    def signal(self, sig: signal.Signals) -> None:
        if self.pid and self.running:
            processes.kill(self.pid, sig)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit status. LabError if it goes on for longer."""
        wait_until(lambda: not self.running, timeout_s, f"end of process {self.pid}")
        return self._wrapper.returncode

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL."""
        self.signal(signal.SIGTERM)
        try:
            self.wait(timeout_s)
        except LabError:
            self.signal(signal.SIGKILL)
            self.wait()


class Node:
    def __init__(self, lab_directory: Path, switch: Switch, name: str, hosts_file: str) -> None:
        self.name = name
        self.directory = lab_directory / name
        self.namespace = f"{switch.name}-{name}"
        self._lab_directory = lab_directory
        self._switch = switch
        self._hosts_file = hosts_file

    # --- what it is

    @property
    def init_pid(self) -> int | None:
        """Its first process; None when it is off."""
        try:
            boot = json.loads((self.directory / "boot.json").read_bytes())
        except (OSError, ValueError):
            return None
        return int(boot["pid"]) if started_at(boot["pid"]) == boot["started"] else None

    @property
    def is_on(self) -> bool:
        return self.init_pid is not None

    def address(self, network: str = "mgmt") -> str:
        return self._switch.addressing.address(network, octet_of(self.name))

    def path(self, inside: str | Path) -> Path:
        """A file of the node's /run, /var or /etc, as seen from outside."""
        path = Path(inside)
        if path.parts[1:2] and path.parts[1] in ("run", "var", "etc"):
            return self.directory.joinpath(*path.parts[1:])
        return path

    @property
    def libvirt_uri(self) -> str:
        """Its libvirtd, from outside."""
        return f"qemu+unix:///system?socket={self.path('/run/libvirt/libvirt-sock')}"

    def libvirtd_answers(self) -> bool:
        libvirt.registerErrorHandler(lambda *_: None, None)  # else every try is a line on stderr
        try:
            libvirt.open(self.libvirt_uri).close()
        except libvirt.libvirtError:
            return False
        return True

    # --- commands in it

    def enter(self, cwd: Path | str = "/") -> list[str]:
        """The words that put a command into the node."""
        pid = self.init_pid
        if pid is None:
            raise LabError(f"{self.name} is off")
        return ["nsenter", "-t", str(pid), "-r", "-m", "-u", "-i", "-n", "-p", "--", "env", "-C", os.fspath(cwd)]

    def run(
        self,
        words: Sequence[processes.Word],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        check: bool = True,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
    ) -> processes.Result:
        full = {**os.environ, **(env or {})}
        return processes.run([*self.enter(cwd), *words], stdin=stdin, timeout_s=timeout_s, check=check, env=full)

    def start(
        self,
        words: Sequence[processes.Word],
        *,
        log: Path,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
    ) -> NodeProcess:
        """Starts a command that goes on by itself, until the node loses power."""
        return NodeProcess([*self.enter(cwd), *words], log, {**os.environ, **(env or {})})

    # --- services

    def install(
        self, service: str, words: Sequence[str], *, cwd: Path | str = PROJECT, env: Mapping[str, str] | None = None
    ) -> None:
        """A command that the node starts at every boot, now too if it is on, and again whenever it ends."""
        self._write_service(service, Service(words=list(words), cwd=os.fspath(cwd), env=dict(env) if env else None))
        self._tell_init()

    def uninstall(self, service: str) -> None:
        """Ends it by SIGTERM, and waits."""
        pid = self.service_pid(service)
        (self.directory / "services" / f"{service}.json").unlink(missing_ok=True)
        self._tell_init()
        if pid is not None:
            wait_until(lambda: started_at(pid) is None, GONE_TIMEOUT_S, f"end of {service} on {self.name}")

    def service_pid(self, service: str) -> int | None:
        """Its process as this machine counts; None while it does not run."""
        try:
            inside = (self.directory / "services" / f"{service}.pid").read_text().strip()
        except OSError:
            return None
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            inner = [line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")]
            if inner == [inside]:
                return pid
        return None

    def pids(self) -> list[int]:
        """Every process of the node, as this machine counts."""
        found = processes.run(["ip", "netns", "pids", self.namespace], check=False)
        return [int(word) for word in found.stdout.split()]

    def _write_service(self, name: str, service: Service) -> None:
        path = self.directory / "services" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(service)))
        beside.rename(path)

    def _tell_init(self) -> None:
        pid = self.init_pid
        if pid is not None:
            processes.kill(pid, signal.SIGHUP)

    # --- power and cables

    def boot(self) -> None:
        """Power on. Does nothing when it is on."""
        if self.is_on:
            return
        self._kill_all()  # of a boot that was interrupted
        write_disk(self.directory, self._hosts_file, self._switch.name, self.name, self.address())
        if self.name != "array":
            self._write_service("libvirtd", LIBVIRTD)
        empty_run(self.directory)
        self._switch.plug(self.name, self.namespace)
        config = self.directory / "config.json"
        own = Config(node=self.name, directory=str(self.directory), lab_directory=str(self._lab_directory))
        config.write_text(json.dumps(asdict(own)))
        words = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        words += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        words += [sys.executable, "-c", "import sys; from gespann.lab.node_init import main; main(sys.argv[1:])"]
        words += [str(config)]
        log = self.directory / "log/init.log"
        env = {**os.environ, "PYTHONPATH": str(PROJECT), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        wrapper = processes.start_logged(words, log, env=env)
        wait_until(lambda: self.is_on or wrapper.poll() is not None, BOOT_TIMEOUT_S, f"boot of {self.name} ({log})")
        if not self.is_on:
            raise LabError(f"{self.name} does not boot: {log.read_text()[-2000:]}")
        if self.name != "array":
            wait_until(self.libvirtd_answers, BOOT_TIMEOUT_S, f"libvirtd of {self.name} ({self.directory}/log)")

    def power_off(self) -> None:
        """The cord is pulled; the kernel closes its sockets, so peers hear of it. Returns when all of it is gone."""
        pid = self.init_pid
        if pid is not None:
            processes.kill(pid)
        self._kill_all()
        (self.directory / "boot.json").unlink(missing_ok=True)

    def crash(self) -> None:
        """Power loss as peers see it: not a packet comes from it any more."""
        for network in NETWORKS:
            self.cut(network)
        self.power_off()

    def cut(self, network: str) -> None:
        self._switch.cut(self.name, network)

    def heal(self, network: str) -> None:
        self._switch.heal(self.name, network)

    def drop(self, network: str) -> None:
        """Its packets vanish, while the link stays up. ``undrop`` ends it."""
        self._switch.drop(self.name, network)

    def undrop(self, network: str) -> None:
        self._switch.undrop(self.name, network)

    def _kill_all(self) -> None:
        """Whatever is in its network namespace."""

        def gone() -> bool:
            pids = [pid for pid in self.pids() if started_at(pid) is not None]
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            return not pids

        wait_until(gone, GONE_TIMEOUT_S, f"end of all processes of {self.name}")
