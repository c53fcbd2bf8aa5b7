"""Machines of one loopback each: an agent process with fake machines and a door, and a coordinator's process, with
``bin/xe`` in front of either."""

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from gespann.system.processes import LongRunning, kill_session, start_logged
from tests.conftest import ROOT
from tests.own_nets import free_port
from tests.unit.xe.xe_process import Ended, run_xe

START_S = 180.0
POLL_S = 0.1
PASSWORD = "correct horse"


@dataclass
class Machine:
    base: Path
    address: str
    hostname: str
    port: int = field(default_factory=free_port)
    door_port: int = field(default_factory=free_port)
    processes: dict[str, LongRunning] = field(default_factory=dict)
    dies_at: str = ""  # see ``coordinator_process``

    def __post_init__(self) -> None:
        for name in ("a", "ad", "c", "cd"):
            (self.base / name).mkdir(mode=0o700, parents=True)
        (self.base / "password").write_text(PASSWORD)

    @property
    def api(self) -> str:
        return f"{self.address}:{self.port}"

    def start(self, *names: str) -> None:
        base = self.base
        words = {
            "agent": [
                *[
                    "gespann.main.agent",
                    "--run",
                    base / "a",
                    "--data",
                    base / "ad",
                    "--door",
                    f"{self.address}:{self.door_port}",
                ],
                *["--fake", "--fake-hostname", self.hostname],
            ],
            "coordinator": [
                *["tests.product.hosts.coordinator_process", "--run", base / "c", "--data", base / "cd"],
                *["--agent", base / "a/agent.sock", "--listen", self.api],
                *["--root-password-file", base / "password"],
            ],
        }
        env = {**os.environ, "PYTHONPATH": str(ROOT), **({"DIES_AT": self.dies_at} if self.dies_at else {})}
        for name in names or words:
            self.processes[name] = start_logged([sys.executable, "-m", *words[name]], base / f"{name}.log", env=env)

    async def kill(self, name: str) -> None:
        process = self.processes[name]
        kill_session(process.pid)
        await asyncio.to_thread(process.wait)

    async def has_died(self, name: str) -> None:
        """By itself, as it was told to."""
        async with asyncio.timeout(START_S):
            await asyncio.to_thread(self.processes[name].wait)

    async def end(self) -> None:
        for name in self.processes:
            await self.kill(name)

    async def try_xe(self, line: str, typed: str = "") -> Ended:
        socket = str(self.base / "c/xapi")
        return await run_xe(self.base, *shlex.split(line), typed=typed, GESPANN_XAPI_SOCKET=socket)

    async def xe(self, line: str, typed: str = "") -> str:
        """What a command that must work prints."""
        ended = await self.try_xe(line, typed)
        assert (ended.stderr, ended.status) == ("", 0), f"{line}\n{ended}\n{self.log('coordinator')[-3000:]}"
        return ended.stdout.rstrip("\n")

    async def until(self, line: str, answer: str) -> None:
        """``answer`` in what a command prints, on whichever output."""
        said = ""
        try:
            async with asyncio.timeout(START_S):
                while answer not in said.splitlines():
                    ended = await self.try_xe(line)
                    said = ended.stdout + ended.stderr
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            logs = "\n".join(self.log(name)[-3000:] for name in self.processes)
            raise AssertionError(f"{line}: {said!r} has no line {answer!r}\n{logs}") from None

    async def until_up(self) -> None:
        await self.until("host-list params=hostname --minimal", self.hostname)

    def log(self, name: str) -> str:
        return (self.base / f"{name}.log").read_text()


@contextlib.asynccontextmanager
async def machines(count: int) -> AsyncIterator[list[Machine]]:
    base = Path(tempfile.mkdtemp(prefix="gs-h-"))  # short: the path of a socket has 108 bytes at most
    net = f"127.{random.randrange(1, 255)}.{random.randrange(256)}"
    made = [Machine(base / f"h{number}", f"{net}.{number}", f"h{number}") for number in range(1, count + 1)]
    try:
        for machine in made:
            machine.start()
        await asyncio.gather(*(machine.until_up() for machine in made))
        yield made
    finally:
        for machine in made:
            await machine.end()
        shutil.rmtree(base)
