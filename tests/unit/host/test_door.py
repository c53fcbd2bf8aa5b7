"""The agent's door for other machines: what it opens to whom, and for how long."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gespann.host.door import Door, Ticket
from gespann.host.membership import Membership
from gespann.seams.host_membership import JoinOffer, JoinRelease, Open
from gespann.system.mutual_tls import certificate_of, connect_pinned, ensure_identity


class Site:
    """An agent's directories with three sockets that say their names, and the keys of those who may come."""

    def __init__(self, base: Path) -> None:
        self.base = base
        (base / "run").mkdir()
        self.membership = Membership(base)
        self.coordinator = ensure_identity(base / "coordinator.pem")
        self.source = ensure_identity(base / "source.pem")
        self.door = Door(self.membership, base / "run/agent.sock", "127.0.0.1", 0)
        self.servers: list[asyncio.Server] = []

    async def begin(self) -> None:
        for name in ("run/agent.sock", "run/vnc.sock", "libvirt.sock"):
            self.servers.append(await asyncio.start_unix_server(self._say(name), self.base / name))
        await self.door.open()

    async def end(self) -> None:
        await self.door.close()
        for server in self.servers:
            server.close()

    @staticmethod
    def _say(name: str):
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{name}\n".encode())
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        return say

    async def offer(self) -> None:
        certificate = certificate_of(self.coordinator)
        offer = JoinOffer(pool_uuid="p", coordinator_certificate=certificate, coordinator_address="a")
        await self.membership.handlers()[JoinOffer](offer)

    async def knock(self, identity: Path, wanted: Open) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """The door's answer, or what was opened says its name."""
        own = certificate_of(self.membership.identity)
        reader, writer = await connect_pinned("127.0.0.1", self.membership.door_port, identity, own, 20)
        writer.write(msgspec.json.encode(wanted) + b"\n")
        answer = await reader.readuntil(b"\n")
        if answer == b'{"ok":true}\n':
            answer = await reader.readuntil(b"\n")
        return answer.decode().strip(), reader, writer

    async def says(self, identity: Path, wanted: Open) -> str:
        answer, _, writer = await self.knock(identity, wanted)
        writer.transport.abort()
        return answer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gs-d-") as base:  # short: the path of a socket has 108 bytes at most
        site = Site(Path(base))
        await site.begin()
        yield site
        await site.end()


REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
AGENT = Open(what="agent")


async def test_the_coordinator_that_was_offered_gets_the_agent_and_its_sockets_and_nothing_else(site: Site) -> None:
    with pytest.raises(REFUSED):
        await site.says(site.coordinator, AGENT)
    await site.offer()
    assert await site.says(site.coordinator, AGENT) == "run/agent.sock"
    vnc = Open(what="socket", path=str(site.base / "run/vnc.sock"))
    assert await site.says(site.coordinator, vnc) == "run/vnc.sock"
    (site.base / "run/link.sock").symlink_to(site.base / "libvirt.sock")
    for path in ("libvirt.sock", "run/../libvirt.sock", "run/link.sock", "run/agent.sock", "/etc/passwd"):
        answer = await site.says(site.coordinator, Open(what="socket", path=str(site.base / path)))
        assert answer == '{"error":"not one of the agent\'s sockets"}'
    for nonsense in (b"[]\n", b"{}\n", b"x" * 5000 + b"\n", b'{"what":"shell"}\n'):
        own = certificate_of(site.membership.identity)
        reader, writer = await connect_pinned("127.0.0.1", site.membership.door_port, site.coordinator, own, 20)
        writer.write(nonsense)
        assert (await reader.readuntil(b"\n")).startswith(b'{"error":')
        writer.transport.abort()
    with pytest.raises(REFUSED):
        await site.says(site.source, AGENT)


async def test_who_is_released_loses_the_connection_that_he_has(site: Site) -> None:
    await site.offer()
    _, reader, writer = await site.knock(site.coordinator, AGENT)
    await site.membership.handlers()[JoinRelease](JoinRelease(pool_uuid="p"))
    async with asyncio.timeout(120):
        with contextlib.suppress(*REFUSED):
            assert await reader.read() == b""
    writer.transport.abort()
    with pytest.raises(REFUSED):
        await site.says(site.coordinator, AGENT)


async def test_a_ticket_lets_one_host_to_libvirt_until_it_is_void(site: Site) -> None:
    await site.offer()
    await site.door.admit("t1", Ticket(certificate_of(site.source), site.base / "libvirt.sock"))
    wanted = Open(what="libvirt", ticket="t1")
    assert await site.says(site.coordinator, AGENT) == "run/agent.sock"
    assert "error" in await site.says(site.coordinator, wanted)  # the ticket is another's
    assert "error" in await site.says(site.source, Open(what="libvirt", ticket="t2"))
    assert "error" in await site.says(site.source, AGENT)
    answer, reader, writer = await site.knock(site.source, wanted)
    assert answer == "libvirt.sock"
    await site.door.dismiss("t1")
    async with asyncio.timeout(120):
        with contextlib.suppress(*REFUSED):
            assert await reader.read() == b""
    writer.transport.abort()
    with pytest.raises(REFUSED):
        await site.says(site.source, wanted)
