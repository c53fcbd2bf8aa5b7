"""The product as four processes with a door at each seam, and ``bin/xe`` in front; a second host joins when a test asks
for it. Any of them may die and be started again; ``leftovers`` then says what is half made."""

import asyncio
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from gespann.seams.host_agent import Domain, DomainList
from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesClient
from gespann.system.processes import LongRunning, is_running, kill_session, start_logged
from tests.conftest import ROOT
from tests.own_nets import free_port
from tests.product.array.group_process import GroupProcess
from tests.product.whole.doors import Door, LineDoor, StreamDoor
from tests.product.whole.host import Host
from tests.product.whole.messages import ENGINE_OPS
from tests.product.whole.state import HELLOS, State
from tests.unit.xe.xe_process import Ended, run_xe

START_S = 180.0
SETTLE_S = 180.0
POLL_S = 0.1
ENGINE, GROUP, COORDINATOR, AGENT, OTHER_AGENT = "engine", "group", "coordinator", "agent", "other agent"
JOINING = "the other host's own coordinator"
HOSTNAME, OTHER_HOSTNAME = "fakehost", "fakehost2"


class GroupAtAddress(GroupProcess):
    """On the port that initiators expect, at an address of its own; its engine is started through ``launcher``, which
    gives it a socket behind the door."""

    address = ""

    @property
    def words(self) -> list[str]:
        words = super().words
        words[words.index("--iscsi") + 1] = f"{self.address}:3260"
        return words


class Whole:
    def __init__(self, base: Path, engine_path: Path, keys: Path, *, gives_up_soon: bool) -> None:
        self.base = base
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **({"GIVES_UP_SOON": "1"} if gives_up_soon else {})}
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(2, 255)}"
        launcher = base / "engine"
        launcher.write_text(f'#!/bin/sh\nexec {engine_path} --data "$2" --socket "$4.real" --portal "$6"\n')
        launcher.chmod(0o755)
        for name in ("g/r", "c", "cd"):
            (base / name).mkdir(mode=0o700, parents=True)
        self.group = GroupAtAddress(base / "g", launcher, keys)
        self.group.address = self.address
        self.engine_socket = base / "g/r/engine.sock.real"
        self.ssh_door = StreamDoor(free_port(), self.group.ssh_port)
        self.engine_door = LineDoor(base / "g/r/engine.sock", self.engine_socket, ENGINE_OPS)
        self.hosts = {AGENT: Host(base, "a", HOSTNAME, "127.0.0.1", member=False)}
        self.tls_port, self.nbd_port = free_port(), free_port()
        self.processes: dict[str, LongRunning] = {}
        self.state = State(self)
        self.sr = ""

    # --- processes

    async def begin(self) -> None:
        for door in self.doors:
            await door.start()
        for name in (AGENT, GROUP, COORDINATOR):
            self.start(name)
        await self.until_up()

    @property
    def agent_door(self) -> LineDoor:
        return self.hosts[AGENT].door

    @property
    def doors(self) -> list[Door]:
        return [self.ssh_door, self.engine_door, *(door for host in self.hosts.values() for door in host.doors)]

    async def join_other_host(self) -> None:
        """The coordinator that it had before has nothing to say any more, and ends."""
        address = self.address.rpartition(".")[0] + ".1"
        host = self.hosts[OTHER_AGENT] = Host(self.base, "b", OTHER_HOSTNAME, address, member=True)
        for door in host.doors:
            await door.start()
        for name in (OTHER_AGENT, JOINING):
            self.start(name)
        async with asyncio.timeout(START_S):
            while (await self.try_xe("host-list", "j")).status != 0:
                assert self.processes[JOINING].poll() is None, self.log_tail(JOINING)
                await asyncio.sleep(POLL_S)
        password = shlex.quote((self.base / "cd/root.password").read_text().strip())
        master = f"master-address=127.0.0.1:{self.tls_port}"
        await self.xe(f"pool-join {master} master-username=root master-password={password}", "j")
        await self.kill(JOINING)
        del self.processes[JOINING]
        await self.until_up()

    async def end(self) -> None:
        engine_pid = 0
        with contextlib.suppress(SeamLost):
            engine_pid = await self.pid(ENGINE)
        for process in self.processes.values():
            kill_session(process.pid)
            await asyncio.to_thread(process.wait)
        if engine_pid:
            kill_session(engine_pid)
        for host in self.hosts.values():
            host.end_sessions()
        for door in self.doors:
            await door.stop()

    def start(self, name: str) -> None:
        """All but the engine, which is the group's to start."""
        if name == GROUP:
            self.group.start()
            self.processes[name] = self.group.process
            return
        if name in self.hosts:
            words = self.hosts[name].words
        else:
            agent, run, data, address = self._coordinator(name)
            words = ["tests.product.whole.coordinator_process", "--run", str(run), "--data", str(data)]
            words += ["--agent", str(agent), "--listen", address, "--nbd-port", str(self.nbd_port)]
        self.processes[name] = start_logged([sys.executable, "-m", *words], self.base / f"{name}.log", env=self._env)

    def _coordinator(self, name: str) -> tuple[Path, Path, Path, str]:
        """Its agent's socket, RUN, DATA, and where it listens."""
        if name == COORDINATOR:
            return self.agent_door.path, self.base / "c", self.base / "cd", f"127.0.0.1:{self.tls_port}"
        other = self.hosts[OTHER_AGENT]
        return other.socket, self.base / "j", self.base / "jd", f"{other.address}:{free_port()}"

    async def pid(self, name: str) -> int:
        if name != ENGINE:
            return self.processes[name].pid
        return (await self.ask(self.engine_socket, HELLOS["engine"])).pid

    async def kill(self, name: str) -> None:
        """Returns when it is dead."""
        pid = await self.pid(name)
        os.kill(pid, signal.SIGKILL)
        if name != ENGINE:
            await asyncio.to_thread(self.processes[name].wait)
        while is_running(pid):  # noqa: ASYNC110 - another process's death tells nobody
            await asyncio.sleep(0.005)

    async def kill_and_start(self, name: str) -> None:
        await self.kill(name)
        if name != ENGINE:
            self.start(name)

    async def until_up(self) -> None:
        """All four answer."""
        async with asyncio.timeout(START_S):
            while not await self._is_up():
                for name, process in self.processes.items():
                    assert process.poll() is None, f"{name} has ended:\n{self.log_tail(name)}"
                await asyncio.sleep(POLL_S)

    async def _is_up(self) -> bool:
        try:
            if not (await self.ask(self.engine_socket, HELLOS["engine"])).configured:
                return False
            for host in self.hosts.values():
                await self.ask(host.socket, HELLOS["agent"])
            for writer in (
                (await asyncio.open_connection("127.0.0.1", self.group.ssh_port))[1],
                (await asyncio.open_unix_connection(self.base / "c/xapi"))[1],
            ):
                writer.close()
        except (SeamLost, OSError):
            return False
        return True

    async def ask(self, path: Path, request):
        hello = HELLOS["engine" if path == self.engine_socket else "agent"]
        client = JsonLinesClient(path, hello=hello, timeout_s=30)
        try:
            return await client.call(request)
        finally:
            await client.close()

    async def domains(self) -> list[tuple[Host, Domain]]:
        """What runs, and where."""
        return [
            (host, domain)
            for host in self.hosts.values()
            for domain in (await self.ask(host.socket, DomainList())).domains
        ]

    def log(self, name: str) -> str:
        return (self.base / "g/group.log" if name == GROUP else self.base / f"{name}.log").read_text()

    def log_tail(self, name: str, lines: int = 30) -> str:
        return "\n".join(self.log(name).splitlines()[-lines:])

    # --- what a user types

    async def try_xe(self, line: str, at: str = "c") -> Ended:
        """``at``: the coordinator's RUN."""
        return await run_xe(self.base, *shlex.split(line), GESPANN_XAPI_SOCKET=str(self.base / at / "xapi"))

    async def xe(self, line: str, at: str = "c") -> str:
        """What a command that must work prints."""
        ended = await self.try_xe(line, at)
        assert (ended.stderr, ended.status) == ("", 0), f"{line}\n{ended}"
        return ended.stdout.rstrip("\n")

    async def until_shown(self, line: str, wanted: str) -> None:
        """Till this command prints that."""
        async with asyncio.timeout(SETTLE_S):
            while await self.xe(line) != wanted:  # noqa: ASYNC110 - asked of another process
                await asyncio.sleep(POLL_S)

    @property
    def password(self) -> str:
        return (self.group.data_dir / "grpadmin.password").read_text().strip()

    def device_config(self, **changed: str) -> str:
        config = {
            "target": self.address,
            "control": "127.0.0.1",
            "port": str(self.ssh_door.port),
            "username": "grpadmin",
            "password": self.password,
            "storagepool": "default",
            **changed,
        }
        return " ".join(f"device-config:{key}={shlex.quote(value)}" for key, value in config.items() if value)

    async def make_sr(self, name: str = "array", **changed: str) -> str:
        return await self.xe(
            f"sr-create name-label={name} type=equal shared=true content-type=user {self.device_config(**changed)}"
            " sm-config:allocation=thin"
        )

    async def make_vm(self, name: str) -> str:
        """Without disks."""
        vm = await self.xe(f"vm-create name-label={name}")
        sizes = " ".join(f"{limit}=128MiB" for limit in ("static-min", "static-max", "dynamic-min", "dynamic-max"))
        await self.xe(f"vm-memory-limits-set uuid={vm} {sizes}")
        return vm

    async def make_template(self) -> None:
        vm = await self.make_vm("tiny")
        vdi = await self.xe(f"vdi-create sr-uuid={self.sr} name-label=system virtual-size=15MiB")
        vbd = await self.xe(f"vbd-create vm-uuid={vm} vdi-uuid={vdi} device=0 bootable=true type=Disk mode=RW")
        await self.xe(f"vbd-param-set uuid={vbd} other-config:owner=true")
        network = await self.xe("network-create name-label=lan")
        await self.xe(f"vif-create vm-uuid={vm} network-uuid={network} device=0 mac=random")
        await self.xe(f"vm-param-set uuid={vm} is-a-template=true")

    # --- what may be left

    async def settled(self, after: str = "") -> None:
        """Everything runs again, and nothing is half made: waits for it, and fails with what is left."""
        await self.until_up()
        left = ["not looked"]
        try:
            async with asyncio.timeout(SETTLE_S):
                while left:
                    try:
                        left = await self.state.leftovers()
                    except SeamLost as lost:
                        left = [str(lost)]
                    if left:
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            logs = "\n".join(f"--- {name}\n{self.log_tail(name)}" for name in self.processes)
            raise AssertionError(f"half made after {after}:\n" + "\n".join(left) + "\n" + logs) from None


def is_clear(error: str) -> bool:
    """A sentence or a published code for the user, and no trace of our insides."""
    insides = re.search(r"Traceback|INTERNAL_ERROR|Exception|Errno|object at 0x", error)
    return bool(error.strip()) and insides is None


@contextlib.asynccontextmanager
async def running(engine_path: Path, keys: Path, *, gives_up_soon: bool = False) -> AsyncIterator[Whole]:
    """``gives_up_soon``: who is silent is waited for some seconds only."""
    base = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))  # short: a socket's path has 107 bytes at most
    whole = Whole(base, engine_path, keys, gives_up_soon=gives_up_soon)
    try:
        await whole.begin()
        yield whole
    finally:
        await whole.end()
        shutil.rmtree(base)
