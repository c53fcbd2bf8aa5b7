"""The ways to the agents of other hosts: a connection over mutual TLS each, opened again whenever it is lost.

What a console or an image is reached by is a Unix socket on its own host: ``stream`` opens it from here, and
``socket_here`` gives a path on this machine that leads to it, for programs that know nothing else.
"""

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gespann.pool.pool import HostDoor, Pool
from gespann.pool.succession.terms import term_of
from gespann.seams import host_agent
from gespann.seams.host_membership import AllegianceChanged, Open
from gespann.seams.host_succession import Refusal
from gespann.seams.json_lines import LINE_LIMIT_BYTES
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.files import private_directory
from gespann.system.json_lines import Connect, JsonLinesClient, Watch
from gespann.system.mutual_tls import certificate_of, connect_pinned
from gespann.system.streams import Streams, UnixRelay

log = logging.getLogger(__name__)

CONNECT_WITHIN_S = 5.0
#: an agent answers a greeting beside anything else: one that does not, within 16 to 20 s of its last word, hangs
ALIVE_EVERY_S, ALIVE_WITHIN_S = 4.0, 12.0
EVENTS: tuple[type[host_agent.Event], ...] = (*host_agent.EVENTS, AllegianceChanged)


def agent_client(
    path: Path | str,
    *,
    told: Callable[[Any], None],
    up: Callable[[host_agent.HelloReply], None],
    down: Callable[[str], None],
    connect: Connect | None = None,
) -> JsonLinesClient:
    """For a coordinator that leads, or ``connect``s to a host that it leads: kept open, and given up when it hangs."""
    return JsonLinesClient(
        path,
        connect=connect,
        hello=host_agent.Hello(version=host_agent.VERSION),
        events=EVENTS,
        on_event=told,
        on_up=up,
        on_down=down,
        watch=Watch(ALIVE_EVERY_S, ALIVE_WITHIN_S),
    )


class DoorRefused(ConnectionError):
    """The agent answered, and does not open this. ``leader``: the epoch that it obeys, and that coordinator's address,
    if that is why."""

    def __init__(self, text: str, leader: tuple[int, str] = (0, "")) -> None:
        super().__init__(text)
        self.leader = leader


@dataclass
class _Link:
    door: HostDoor
    client: JsonLinesClient | None = None
    shut_out: bool = False
    leader: tuple[int, str] = (0, "")
    relays: set[UnixRelay] = field(default_factory=set)


@dataclass
class AgentLinks:
    """``identity``: what this coordinator proves itself by. ``run_dir``: for sockets."""

    pool: Pool
    identity: Path
    run_dir: Path
    told: Callable[[str, Any], None] = lambda host, event: None
    up: Callable[[str], None] = lambda host: None
    down: Callable[[str, str], None] = lambda host, why: None
    deposed: Callable[[int, str], None] = lambda epoch, address: None  # an agent obeys a later coordinator, there
    address: str = ""  # where clients find this coordinator
    _links: dict[str, _Link] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def certificate(self) -> str:
        return certificate_of(self.identity)

    async def open(self, host: str, door: HostDoor) -> None:
        if host in self._links:
            if self._links[host].door == door:
                return
            await self.close(host)
        link = self._links[host] = _Link(door)
        link.client = agent_client(
            f"{door.address}:{door.port}",
            connect=lambda: self._connect(link, Open(what="agent")),
            told=lambda event: self.told(host, event),
            up=lambda _: self.up(host),
            down=lambda why: self._down(link, host, why),
        )
        self.pool.agents[host] = link.client
        link.client.start()

    async def close(self, host: str) -> None:
        link = self._links.pop(host, None)
        if link is not None:
            self.pool.agents.pop(host, None)
            if link.client is not None:
                await link.client.close()

    async def close_all(self) -> None:
        for host in list(self._links):
            await self.close(host)

    def shut_out(self, host: str) -> bool:
        """When last asked the agent was there, and did not take this coordinator's certificate: it is released."""
        link = self._links.get(host)
        return link is not None and link.shut_out

    def door(self, host: str) -> HostDoor:
        """HOST_OFFLINE for one that is not another host."""
        if host not in self._links:
            raise XenApiError("HOST_OFFLINE", [host])
        return self._links[host].door

    def leader_seen(self, host: str) -> tuple[int, str]:
        link = self._links.get(host)
        return link.leader if link is not None else (0, "")

    async def stream(self, host: str, path: str) -> Streams:
        """A Unix socket of that host. OSError, TimeoutError."""
        link = self._links.get(host)
        if link is None:
            return await asyncio.open_unix_connection(path)
        return await self._connect(link, Open(what="socket", path=path))

    @contextlib.asynccontextmanager
    async def socket_here(self, host: str, path: str) -> AsyncIterator[str]:
        link = self._links.get(host)
        if link is None:
            yield path
            return
        directory = private_directory(self.run_dir / "far")
        relay = UnixRelay(directory / f"{next(self._numbers)}.sock", lambda: self.stream(host, path))
        await relay.start()
        link.relays.add(relay)
        try:
            yield str(relay.path)
        finally:
            link.relays.discard(relay)
            await relay.stop()

    def _down(self, link: _Link, host: str, why: str) -> None:
        """What goes through the agent's door has ended with it, or hangs with it."""
        for relay in link.relays:
            relay.cut()
        self.down(host, why)

    async def _connect(self, link: _Link, wanted: Open) -> Streams:
        epoch = term_of(self.pool.db).epoch
        try:
            streams = await open_door(link.door, self.identity, wanted, epoch, self.address)
        except DoorRefused as refused:
            leading, address = refused.leader
            link.leader = leading, address or link.door.address  # none: that machine's own coordinator leads
            if leading > epoch:
                self.deposed(*link.leader)
            raise
        except ssl.SSLError:
            link.shut_out = True
            raise
        link.shut_out, link.leader = False, (0, "")
        return streams


async def open_door(door: HostDoor, identity: Path, wanted: Open, epoch: int, address: str) -> Streams:
    """What is wanted of another host. DoorRefused; OSError, ssl.SSLError, TimeoutError."""
    wanted = msgspec.structs.replace(wanted, epoch=epoch, coordinator_address=address)
    reader, writer = await connect_pinned(door.address, door.port, identity, door.certificate, CONNECT_WITHIN_S)
    try:
        await _ask_for(reader, writer, wanted)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _ask_for(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: Open) -> None:
    writer.write(msgspec.json.encode(wanted) + b"\n")
    async with asyncio.timeout(CONNECT_WITHIN_S):
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise DoorRefused("the agent closed the connection") from None
    try:
        if len(line) <= LINE_LIMIT_BYTES and msgspec.json.decode(line, type=dict[str, Any]).get("ok") is True:
            return
        refusal = msgspec.json.decode(line, type=Refusal)
    except msgspec.MsgspecError:
        raise DoorRefused(line.decode(errors="replace").strip()[:500]) from None
    raise DoorRefused(refusal.error[:500], (refusal.epoch, refusal.coordinator_address))
