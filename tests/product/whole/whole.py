"""The product as four processes with a door at each seam, and ``bin/xe`` in front. Any of them may die and be started
again; ``leftovers`` then says what is half made."""

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

from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesClient
from gespann.system.processes import LongRunning, is_running, kill_session, start_logged
from tests.conftest import ROOT
from tests.own_nets import free_port
from tests.product.array.group_process import GroupProcess
from tests.product.whole.agent_process import HeldSessions
from tests.product.whole.doors import LineDoor, StreamDoor
from tests.product.whole.state import HELLOS, State
from tests.unit.xe.xe_process import Ended, run_xe

START_S = 180.0
SETTLE_S = 180.0
POLL_S = 0.1
ENGINE, GROUP, COORDINATOR, AGENT = "engine", "group", "coordinator", "agent"
ENGINE_OPS = frozenset(
    {"volume.create", "volume.delete", "volume.resize", "volume.clone", "volume.thick"}
    | {"volume.snapshot", "volume.rollback", "volume.limit"}
    | {"target.put", "target.remove", "chap.put", "chap.remove", "session.drop", "volume.drain"}
)
AGENT_OPS = frozenset(
    {"domain.create", "domain.shutdown", "domain.destroy", "domain.pause", "domain.unpause", "bridge.ensure"}
    | {"memory.save", "memory.stop", "domain.restore", "image.open", "image.close"}
    | {"disk.attach", "disk.detach", "disk.resize"}
)


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
    def __init__(self, base: Path, engine_path: Path, keys: Path) -> None:
        self.base = base
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(2, 255)}"
        launcher = base / "engine"
        launcher.write_text(f'#!/bin/sh\nexec {engine_path} --data "$2" --socket "$4.real" --portal "$6"\n')
        launcher.chmod(0o755)
        for name in ("g/r", "a", "ad", "c", "cd"):
            (base / name).mkdir(mode=0o700, parents=True)
        self.group = GroupAtAddress(base / "g", launcher, keys)
        self.group.address = self.address
        self.engine_socket = base / "g/r/engine.sock.real"
        self.agent_socket = base / "a/agent.sock"
        self.ssh_door = StreamDoor(free_port(), self.group.ssh_port)
        self.engine_door = LineDoor(base / "g/r/engine.sock", self.engine_socket, ENGINE_OPS)
        self.agent_door = LineDoor(base / "agent", self.agent_socket, AGENT_OPS)
        self.tls_port = free_port()
        self.processes: dict[str, LongRunning] = {}
        self.state = State(self)
        self.sr = ""

    # --- processes

    async def begin(self) -> None:
        for door in (self.ssh_door, self.engine_door, self.agent_door):
            await door.start()
        for name in (AGENT, GROUP, COORDINATOR):
            self.start(name)
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
        HeldSessions.end_all(self.base / "a")
        for door in (self.ssh_door, self.engine_door, self.agent_door):
            await door.stop()

    def start(self, name: str) -> None:
        """All but the engine, which is the group's to start."""
        if name == GROUP:
            self.group.start()
            self.processes[name] = self.group.process
            return
        words = {
            AGENT: [
                "tests.product.whole.agent_process",
                "--run",
                self.base / "a",
                "--data",
                self.base / "ad",
                "--fake",
            ],
            COORDINATOR: [
                *["tests.product.whole.coordinator_process", "--run", self.base / "c", "--data", self.base / "cd"],
                *["--agent", self.agent_door.path, "--listen", f"127.0.0.1:{self.tls_port}"],
            ],
        }[name]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes[name] = start_logged([sys.executable, "-m", *words], self.base / f"{name}.log", env=env)

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
            await self.ask(self.agent_socket, HELLOS["agent"])
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

    def log(self, name: str) -> str:
        return (self.base / "g/group.log" if name == GROUP else self.base / f"{name}.log").read_text()

    def log_tail(self, name: str, lines: int = 30) -> str:
        return "\n".join(self.log(name).splitlines()[-lines:])

    # --- what a user types

    async def try_xe(self, line: str) -> Ended:
        return await run_xe(self.base, *shlex.split(line), GESPANN_XAPI_SOCKET=str(self.base / "c/xapi"))

    async def xe(self, line: str) -> str:
        """What a command that must work prints."""
        ended = await self.try_xe(line)
        assert (ended.stderr, ended.status) == ("", 0), f"{line}\n{ended}"
        return ended.stdout.rstrip("\n")

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
            logs = "\n".join(f"--- {name}\n{self.log_tail(name)}" for name in (COORDINATOR, GROUP, AGENT))
            raise AssertionError(f"half made after {after}:\n" + "\n".join(left) + "\n" + logs) from None


def is_clear(error: str) -> bool:
    """A sentence or a published code for the user, and no trace of our insides."""
    insides = re.search(r"Traceback|INTERNAL_ERROR|Exception|Errno|object at 0x", error)
    return bool(error.strip()) and insides is None


@contextlib.asynccontextmanager
async def running(engine_path: Path, keys: Path) -> AsyncIterator[Whole]:
    base = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))  # short: a socket's path has 107 bytes at most
    whole = Whole(base, engine_path, keys)
    try:
        await whole.begin()
        yield whole
    finally:
        await whole.end()
        shutil.rmtree(base)
