"""A whole group in one process: control and its doors.

group = Group(data_dir, engine, clock, ssh=("127.0.0.1", 0))
group.set_up("group1", admin_password="...")     # does nothing when the group is there already
await group.start()                              # group.ssh_port is the port that was got
await group.stop()
"""

import os
from collections.abc import Callable
from pathlib import Path

from gespann.array.control import Control
from gespann.array.data_plane.link import EngineClient
from gespann.array.shell.server import Limits, SshDoor
from gespann.system.clock import Clock, SystemClock


class Group:
    """``engine``: a ``JsonLinesClient`` of the engine's socket, made with ``hello=link.HELLO``; or a ``FakeEngine``.
    ``portal_address``: "host:port" that discovery names. ``random_bytes``: of which identities are made."""

    def __init__(
        self,
        data_dir: Path,
        engine: EngineClient,
        clock: Clock | None = None,
        *,
        ssh: tuple[str, int] = ("127.0.0.1", 0),
        portal_address: str = "",
        limits: Limits | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.control = Control(data_dir, engine, clock or SystemClock(), portal_address, random_bytes)
        self.ssh = SshDoor(self.control, *ssh, limits)

    @property
    def ssh_port(self) -> int:
        return self.ssh.port

    def set_up(self, name: str, admin_password: str | None = None, address: str | None = None) -> bool:
        return self.control.set_up(name, admin_password, address)

    async def start(self, wait_for_engine_s: float = 10.0) -> None:
        await self.control.start(wait_for_engine_s)
        await self.ssh.start()

    async def stop(self) -> None:
        await self.ssh.stop()
        await self.control.stop()
