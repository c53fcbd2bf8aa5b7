"""``gespann.main.group`` as a process, and its command line."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import asyncssh

from gespann.array.data_plane.link import HELLO
from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesClient
from gespann.system.processes import is_running, start_logged
from tests.own_nets import free_port


class GroupProcess:
    def __init__(self, folder: Path, engine_path: Path, keys: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        shutil.copytree(keys, self.data_dir)
        self.ssh_port, self.iscsi_port = free_port(), free_port()
        self.engine_path = engine_path
        self.process = None

    @property
    def words(self) -> list[str]:
        words = [
            sys.executable,
            "-m",
            "gespann.main.group",
            "--data",
            str(self.data_dir),
            "--run",
            str(self.folder / "r"),
        ]
        words += ["--ssh", f"127.0.0.1:{self.ssh_port}", "--iscsi", f"127.0.0.1:{self.iscsi_port}"]
        return [*words, "--group-name", "group1", "--engine", str(self.engine_path)]

    def start(self) -> None:
        self.process = start_logged(self.words, self.folder / "group.log")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.process.pid, number)
        self.process.wait(120)

    async def until_up(self) -> None:
        """It takes commands, and the engine has its policy: the door opens without one that takes long to start."""
        async with asyncio.timeout(120):
            while True:
                assert is_running(self.process.pid), (self.folder / "group.log").read_text()
                try:
                    await self.cli("whoami")
                    if (await self.engine(HELLO)).configured:
                        return
                except (OSError, asyncssh.Error, SeamLost):
                    pass
                await asyncio.sleep(0.1)

    def connect(self):
        """An SSH connection of the administrator, for ``async with``."""
        return asyncssh.connect(
            "127.0.0.1",
            self.ssh_port,
            config=[],
            username="grpadmin",
            password=(self.data_dir / "grpadmin.password").read_text().strip(),
            known_hosts=None,
            client_keys=None,
            agent_path=None,
        )

    async def cli(self, *commands: str) -> list[str]:
        lines: list[str] = []
        async with self.connect() as connection:
            for command in commands:
                lines = (await connection.run(command)).stdout.splitlines()
        return lines

    async def show(self, volume: str) -> dict[str, str]:
        lines = await self.cli("cli-settings formatoutput off", f"volume select {volume} show")
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    async def engine(self, request):
        client = JsonLinesClient(self.folder / "r" / "engine.sock", hello=HELLO)
        try:
            return await client.call(request)
        finally:
            await client.close()

    async def engine_pid(self) -> int:
        return (await self.engine(HELLO)).pid
