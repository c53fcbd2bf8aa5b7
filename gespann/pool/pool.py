"""One pool: what all handlers, steps and reconcilers share. Wired in ``gespann.main.coordinator``, or by a test."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gespann.pool.model.database import Database
from gespann.seams.engine_socket import Request
from gespann.seams.sr_driver import SrDriver
from gespann.system.clock import Clock


class Agent(Protocol):
    """The agent of one host, over seam 5 (or a fake). Raises SeamError, SeamLost."""

    async def call(self, request: Request, timeout_s: float | None = None) -> Any: ...


@dataclass(frozen=True)
class HostDoor:
    """Where the agent of another host is, and the certificate (PEM) by which it is known."""

    address: str
    port: int
    certificate: str


class Links(Protocol):
    """The ways to hosts other than this process's own; they put the agents into ``Pool.agents``."""

    address: str  # where clients find this coordinator, as agents are told when they are connected

    @property
    def certificate(self) -> str:
        """What this coordinator shows to agents, PEM."""
        ...

    async def open(self, host: str, door: HostDoor) -> None: ...

    async def close(self, host: str) -> None: ...

    def shut_out(self, host: str) -> bool:
        """The agent answers, and takes this coordinator for its own no longer."""
        ...

    def door(self, host: str) -> HostDoor: ...

    def leader_seen(self, host: str) -> tuple[int, str]:
        """The agent answers, and obeys the coordinator of this epoch, at this address; (0, "") if it did not say so."""
        ...

    async def stream(self, host: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A Unix socket of that host. OSError, TimeoutError."""
        ...

    def socket_here(self, host: str, path: str) -> AbstractAsyncContextManager[str]:
        """A path on this machine that leads to a Unix socket of that host."""
        ...


@dataclass
class Pool:
    db: Database
    drivers: Mapping[str, SrDriver]  # SR type -> driver
    agents: dict[str, Agent]  # host ref -> its agent
    clock: Clock
    tls_port: int = 443  # where clients reach the consoles of this pool
    iscsi_prefix: str = "iqn.2026-01.org.gespann"
    services: dict[str, Any] = field(default_factory=dict)
