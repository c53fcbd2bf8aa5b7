"""One pool: what all handlers, steps and reconcilers share. Wired in ``gespann.main.coordinator``, or by a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gespann.pool.model.database import Database
from gespann.seams.engine_socket import Request
from gespann.seams.sr_driver import SrDriver
from gespann.system.clock import Clock


class Agent(Protocol):
    """The agent of one host, over seam 5 (or a fake). Raises SeamError, SeamLost."""

    async def call(self, request: Request, timeout_s: float | None = None) -> Any: ...


@dataclass
class Pool:
    db: Database
    drivers: Mapping[str, SrDriver]  # SR type -> driver
    agents: dict[str, Agent]  # host ref -> its agent
    clock: Clock
    tls_port: int = 443  # where clients reach the consoles of this pool
    iscsi_prefix: str = "iqn.2026-01.org.gespann"
    services: dict[str, Any] = field(default_factory=dict)
