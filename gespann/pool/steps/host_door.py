"""The way to a host's agent: finds it, and gives its refusals their XenAPI names.

An answer may take as long as the work that was asked for. Meanwhile the link looks whether the agent is there at all
(``pool.links.agent_client``): from one that hangs, whoever waits hears so within seconds, as HOST_OFFLINE.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gespann.pool.model.database import Database
from gespann.pool.plan.storage_view import is_live
from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import DomainDestroy, ImageClose, MemoryStop
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

ANSWER_WITHIN_S = 120.0  # the agent's own limits come first, where libvirt hangs and the agent does not


class HostRefused(XenApiError):
    """What an agent said, as the XenAPI says it; ``seam_code`` is the agent's own word."""

    def __init__(self, code: str, params: list[str], seam_code: str) -> None:
        super().__init__(code, params)
        self.seam_code = seam_code


class HostOffline(XenApiError):
    """Nobody answered; the effect may have happened all the same."""

    nobody_answered = True

    def __init__(self, host: str) -> None:
        super().__init__("HOST_OFFLINE", [host])


def _refusal(error: SeamError) -> HostRefused:
    named = {
        "STORAGE": ("SR_BACKEND_FAILURE_46", ["", "The VDI is not available", error.message]),
        "NO_MEMORY": ("HOST_NOT_ENOUGH_FREE_MEMORY", [error.message, ""]),
        "TIMEOUT": ("INTERNAL_ERROR", [f"the host did not finish in time: {error.message}"]),
    }
    code, params = named.get(error.code, ("INTERNAL_ERROR", [f"{error.code}: {error.message}"]))
    return HostRefused(code, params, error.code)


#: hosts of which the administrator says that they are dead; they answer nothing that is asked meanwhile
_DEAD: ContextVar[frozenset[str]] = ContextVar("dead", default=frozenset())
#: what has happened already where nothing runs
_TAKES_AWAY = (DomainDestroy, MemoryStop, ImageClose)


@contextlib.contextmanager
def counted_as_dead(hosts: frozenset[str]) -> Iterator[None]:
    """What is asked of these hosts here is answered as by one on which no machine runs. For undoing and finishing only:
    what may run there all the same is shut out by the storage, when its openings are closed."""
    before = _DEAD.set(hosts)
    try:
        yield
    finally:
        _DEAD.reset(before)


def silent_hosts(db: Database) -> frozenset[str]:
    """Those whose agents do not answer now."""
    return frozenset(host for host in db.all("host") if not is_live(db, host))


async def ask(pool: "Pool", host: str, request: Request, timeout_s: float = ANSWER_WITHIN_S) -> Any:
    """The reply, or HostRefused; HostOffline."""
    if host in _DEAD.get():
        if isinstance(request, _TAKES_AWAY):
            return Empty()
        raise _refusal(SeamError("NOT_FOUND", "the host is dead"))
    agent = pool.agents.get(host)
    if agent is None:
        raise HostOffline(host)
    try:
        return await agent.call(request, timeout_s)
    except SeamError as error:
        raise _refusal(error) from error
    except SeamLost as error:
        raise HostOffline(host) from error


async def ask_unless_gone(pool: "Pool", host: str, request: Request, timeout_s: float = ANSWER_WITHIN_S) -> None:
    """The same of a machine that may have ended: then there is nothing to be done."""
    try:
        await ask(pool, host, request, timeout_s)
    except HostRefused as error:
        if error.seam_code != "NOT_FOUND":
            raise


@contextlib.asynccontextmanager
async def socket_here(pool: "Pool", host: str, path: str) -> AsyncIterator[str]:
    """A path on this machine that leads to a Unix socket of that host."""
    links = pool.services.get("links")
    if links is None:
        yield path
        return
    async with links.socket_here(host, path) as here:
        yield here


async def stream_to(pool: "Pool", host: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a Unix socket of that host. OSError, TimeoutError."""
    links = pool.services.get("links")
    if links is None:
        return await asyncio.open_unix_connection(path)
    reader, writer = await links.stream(host, path)
    return reader, writer
