"""A whole group for tests: production code, with a fake engine, a clock that stands still, and chance that repeats."""

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.group import Group
from gespann.array.shell.host_keys import host_keys
from gespann.array.shell.server import Limits
from gespann.system.clock import ManualClock

PASSWORD = "let-me-in-please"
NO_DELAY = Limits(failure_delay_s=0)


@pytest.fixture(scope="session")
def ssh_host_keys(tmp_path_factory) -> Path:
    """Made once: an RSA key takes a second or two."""
    folder = tmp_path_factory.mktemp("host_keys")
    host_keys(folder)
    return folder


class GroupOfATest:
    def __init__(self, data_dir: Path, limits: Limits = NO_DELAY) -> None:
        self.data_dir = data_dir
        self.limits = limits
        self.engine = FakeEngine()
        self.clock = ManualClock()
        self.chance = random.Random(1)
        self.group: Group

    @property
    def control(self):
        return self.group.control

    async def start(self, wait_for_engine_s: float = 20) -> None:
        self.group = Group(
            self.data_dir, self.engine, self.clock, limits=self.limits, random_bytes=self.chance.randbytes
        )
        self.group.set_up("group1", PASSWORD, "192.0.2.10")
        await self.group.start(wait_for_engine_s)

    async def stop(self) -> None:
        await self.group.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @asynccontextmanager
    async def connect(self, **options) -> AsyncIterator[asyncssh.SSHClientConnection]:
        given = {"username": "grpadmin", "password": PASSWORD, "known_hosts": None, "client_keys": None, **options}
        async with asyncssh.connect(
            "127.0.0.1", self.group.ssh_port, config=[], agent_path=None, **given
        ) as connection:
            yield connection

    async def cli(self, *commands: str) -> list[str]:
        """The output lines of the last command, each command given as an exec request."""
        lines: list[str] = []
        async with self.connect() as connection:
            for command in commands:
                done = await connection.run(command)
                lines = done.stdout.splitlines()
        return lines


@pytest.fixture
async def group_of_a_test(tmp_path, ssh_host_keys, monkeypatch) -> AsyncIterator[GroupOfATest]:
    monkeypatch.setattr("gespann.array.model.secrets._SCRYPT_N", 16)  # what is stored says how it was made
    shutil.copytree(ssh_host_keys, tmp_path / "group")
    made = GroupOfATest(tmp_path / "group")
    await made.start()
    yield made
    await made.stop()
