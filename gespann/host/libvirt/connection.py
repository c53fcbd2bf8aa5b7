"""The connections to libvirtd: opened again whenever they are lost, one for work and one that is free to destroy.

down --open()--> up --lost: closed, keep-alive missed--> down
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from gespann.host.libvirt.errors import translate
from gespann.host.libvirt.worker import in_worker, start_event_loop
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 1.0
OPEN_DEADLINE_S = 15.0
CALL_DEADLINE_S = 30.0
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3


class ConnectionLost(SeamError):
    """libvirtd went away in the middle of a call, or is not there."""

    def __init__(self, what: str) -> None:
        super().__init__("HYPERVISOR", f"{what}: libvirtd does not answer")


@dataclass(frozen=True)
class LibvirtEvent:
    """``kind`` is VIR_DOMAIN_EVENT_ID_*; ``details`` what libvirt gives with it."""

    kind: int
    uuid: str
    details: tuple[Any, ...]


EVENT_KINDS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
)


class Connection:
    """``on_event`` is called in the event loop's thread; ``on_up`` after each (re)connection, before calls go on."""

    def __init__(
        self, uri: str, on_event: Callable[[LibvirtEvent], None], on_up: Callable[[libvirt.virConnect], Awaitable[None]]
    ) -> None:
        self._uri = uri
        self._on_event = on_event
        self._on_up = on_up
        self._main: libvirt.virConnect | None = None
        self._destroyer: libvirt.virConnect | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self, wait_s: float) -> None:
        """Waits at most so long for the first connection; goes on trying after that."""
        start_event_loop()
        self._keeper = asyncio.create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._up.wait()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._up.clear()
        await self._drop()

    async def call(
        self,
        what: str,
        work: Callable[[libvirt.virConnect], T],
        *,
        deadline_s: float = CALL_DEADLINE_S,
        destroyer: bool = False,
        asks: bool = False,
    ) -> T:
        """Runs ``work`` in a worker. ConnectionLost if libvirtd is not there, or goes: the effect may have happened.
        ``asks``: it changes nothing, so it is asked once more if libvirtd went away over it."""
        for left in (1, 0) if asks else (0,):
            try:
                return await self._call(what, work, deadline_s, destroyer)
            except ConnectionLost:
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _call(self, what: str, work: Callable[[libvirt.virConnect], T], deadline_s: float, destroyer: bool) -> T:
        try:
            async with asyncio.timeout(min(deadline_s, OPEN_DEADLINE_S)):
                await self._up.wait()
        except TimeoutError:
            raise ConnectionLost(what) from None
        connection = self._destroyer if destroyer else self._main
        if connection is None:
            raise ConnectionLost(what)
        try:
            return await in_worker(lambda: work(connection), deadline_s, what)
        except libvirt.libvirtError as error:
            if not _is_alive(connection):
                if connection in (self._main, self._destroyer):
                    self._lose()
                raise ConnectionLost(what) from error
            raise translate(error) from error

    def _lose(self) -> None:
        self._up.clear()
        self._lost.set()

    async def _keep(self) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._connect()
            except (libvirt.libvirtError, SeamError) as error:
                log.warning("%s: %s", self._uri, error)
                await self._drop()
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MOST_S)
                continue
            wait_s = RETRY_FIRST_S
            await self._lost.wait()
            log.warning("%s: connection lost", self._uri)
            await self._drop()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()

        def open_both() -> tuple[libvirt.virConnect, libvirt.virConnect]:
            opened = libvirt.open(self._uri), libvirt.open(self._uri)
            for connection in opened:
                connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
                connection.registerCloseCallback(lambda *_: loop.call_soon_threadsafe(self._lose), None)
            for kind in EVENT_KINDS:
                opened[0].domainEventRegisterAny(None, kind, self._forwarder(loop, kind), None)
            return opened

        self._main, self._destroyer = await in_worker(open_both, OPEN_DEADLINE_S, f"open {self._uri}")
        await self._on_up(self._main)
        self._up.set()
        log.info("%s: connected", self._uri)

    def _forwarder(self, loop: asyncio.AbstractEventLoop, kind: int) -> Callable[..., None]:
        def forward(_: libvirt.virConnect, domain: libvirt.virDomain, *details: Any) -> None:
            event = LibvirtEvent(kind, domain.UUIDString(), details[:-1])  # the last is our own opaque
            loop.call_soon_threadsafe(self._on_event, event)

        return forward

    async def _drop(self) -> None:
        dropped = [connection for connection in (self._main, self._destroyer) if connection is not None]
        self._main = self._destroyer = None

        def close() -> None:
            for connection in dropped:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.unregisterCloseCallback()
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()

        if dropped:
            with contextlib.suppress(SeamError):
                await in_worker(close, 5.0, "close")


def _is_alive(connection: libvirt.virConnect) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
