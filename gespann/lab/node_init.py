"""The first process of a node, ``main([CONFIG])`` in fresh namespaces: gives it its own /run, /var, /etc, /proc,
/sys and name, then keeps its services running until it is killed, which is the power cord.

CONFIG        JSON of ``Config``
services/     NAME.json of ``Service``; read again at SIGHUP; NAME.pid is its process as the node counts
boot.json     written when the node is ready: its process as the whole machine counts, and when that started
"""

import contextlib
import json
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from gespann.system import processes

RESTART_FIRST_S = 0.2
RESTART_MOST_S = 5.0
STEADY_S = 10.0  # who ran for so long starts again at once


@dataclass(frozen=True)
class Config:
    node: str
    directory: str  # the node's own
    lab_directory: str


@dataclass(frozen=True)
class Service:
    words: list[str]
    cwd: str = "/"
    env: dict[str, str] | None = None


@dataclass
class _Running:
    service: Service
    pid: int = 0
    started_s: float = 0.0
    wait_s: float = RESTART_FIRST_S
    due_s: float = 0.0  # when to start it again


def own_mounts(config: Config) -> None:
    """The mount namespace is ours already, and private."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        processes.run(["umount", "-l", f"/run/netns/{name}"], check=False)  # else we would keep other labs' alive
    directory = Path(config.directory)
    hidden = config.lab_directory.startswith(("/run/", "/var/"))
    lab_fd = os.open(config.lab_directory, os.O_PATH | os.O_DIRECTORY) if hidden else -1
    for name in ("run", "var", "etc"):
        processes.run(["mount", "--bind", str(directory / name), f"/{name}"])
    processes.run(["mount", "-t", "proc", "proc", "/proc"])
    processes.run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    if hidden:
        os.makedirs(config.lab_directory, exist_ok=True)
        os.set_inheritable(lab_fd, True)
        processes.run(["mount", "--bind", f"/proc/{os.getpid()}/fd/{lab_fd}", config.lab_directory])
        os.close(lab_fd)
    processes.run(["hostname", config.node])


class Supervisor:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: dict[str, _Running] = {}

    def read(self) -> None:
        """Takes up what is new in services/, and ends what is no longer there."""
        wanted: dict[str, Service] = {}
        for path in (self.directory / "services").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # uninstalled just now: the next word of it is on its way
                wanted[path.stem] = Service(**json.loads(path.read_bytes()))
        for name in [name for name, item in self._running.items() if wanted.get(name) != item.service]:
            self._end(name)
        for name, service in wanted.items():
            if name not in self._running:
                self._running[name] = _Running(service)

    def _end(self, name: str) -> None:
        item = self._running.pop(name)
        self._pid_file(name).unlink(missing_ok=True)
        if item.pid:
            processes.kill(item.pid, signal.SIGTERM)

    def start_due(self) -> None:
        for name, item in self._running.items():
            if item.pid or item.due_s > time.monotonic():
                continue
            env = {**os.environ, **(item.service.env or {})}
            words = ["env", "-C", item.service.cwd, *item.service.words]
            started = processes.start_logged(words, self.directory / "log" / f"{name}.log", env=env)
            item.pid, item.started_s = started.pid, time.monotonic()
            self._pid_file(name).write_text(f"{started.pid}\n")
            started.returncode = 0  # the loop below waits for every child; Popen itself must not

    def reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for name, item in self._running.items():
                if item.pid == pid:
                    self._pid_file(name).unlink(missing_ok=True)
                    steady = time.monotonic() - item.started_s > STEADY_S
                    item.wait_s = RESTART_FIRST_S if steady else min(item.wait_s * 2, RESTART_MOST_S)
                    item.pid, item.due_s = 0, time.monotonic() + item.wait_s

    def next_s(self) -> float | None:
        """How long until something is due; None: nothing is."""
        due = [item.due_s for item in self._running.values() if not item.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _pid_file(self, name: str) -> Path:
        return self.directory / "services" / f"{name}.pid"


def say_ready(config: Config, outer_pid: int, started: str) -> None:
    path = Path(config.directory) / "boot.json"
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"pid": outer_pid, "started": started}))
    beside.rename(path)


def main(words: list[str]) -> None:
    config = Config(**json.loads(Path(words[0]).read_bytes()))
    stat = Path("/proc/self/stat").read_text()  # still the whole machine's /proc
    outer_pid, started = int(stat.split()[0]), stat.rpartition(")")[2].split()[19]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing)
    for sig in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(sig, lambda *_: None)
    own_mounts(config)
    supervisor = Supervisor(Path(config.directory))
    supervisor.read()
    say_ready(config, outer_pid, started)
    while True:
        supervisor.start_due()
        select.select([reading], [], [], supervisor.next_s())
        with contextlib.suppress(BlockingIOError):
            if signal.SIGHUP in os.read(reading, 4096):
                supervisor.read()
        supervisor.reap()
