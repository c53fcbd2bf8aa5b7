"""The doors for readers by NBD: an address of this host on each network with the purpose ``nbd``, TLS only.

    front = NbdFront(pool, certificate)     one per coordinator: ``pool.services["nbd"]``
    front.start()                           the doors follow the networks' purposes from here on
    await front.stop()

A client names what it wants: ``/<VDI uuid>?session_id=<session>``, as VDI.get_nbd_info told it. The session must hold,
and be one that may export a disk; when it ends, so do its connections. Up to that name the front speaks NBD itself;
behind it is the host's own server for that disk, which never sees a network.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from gespann.pool.api.api import Api
from gespann.pool.api.audit import quoted
from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.api.permissions import denied
from gespann.pool.api.sessions import Session
from gespann.pool.nbd.exports import Exports
from gespann.pool.nbd.guest import Guest
from gespann.pool.nbd.handshake import (
    GREETING,
    OPTION_HEADER,
    BadClient,
    End,
    Pass,
    StartTls,
    answer,
    client_flags,
    option_header,
)
from gespann.pool.pool import Pool
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.mutual_tls import notice_silence
from gespann.system.streams import CHUNK_BYTES, Streams

log = logging.getLogger(__name__)

PORT = 10809  # what IANA has given to NBD
PURPOSE, LEAST_ROLE, AUDITED = "nbd", "vm-admin", "nbd.read"
LOOK_EVERY_S = 5.0  # an address of this host may change
HANDSHAKE_S = 15.0
CONNECTIONS_LIMIT = 128
STOP_WITHIN_S = 10.0


@dataclass
class _Door:
    sock: socket.socket
    acceptor: "asyncio.Task[None] | None" = None
    connections: "set[asyncio.Task[None]]" = field(default_factory=set)

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])


class NbdFront:
    def __init__(self, pool: Pool, certificate: ServerCertificate | None, port: int = PORT) -> None:
        """``certificate`` none: there is nothing to be had without TLS. ``port`` 0: any."""
        self._pool = pool
        self.certificate = certificate
        self._port = port
        self._exports = Exports(pool)
        self._doors: dict[str, _Door] = {}
        self._refused: set[str] = set()  # addresses at which there is no door, and that has been said
        self._looking: asyncio.Task[None] | None = None
        pool.services["nbd"] = self

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look_again())

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        ending = [task for address in list(self._doors) for task in self._shut(address)]
        await asyncio.gather(*ending, return_exceptions=True)
        await self._exports.close(STOP_WITHIN_S)

    # -- the doors

    def addresses(self) -> list[tuple[str, int]]:
        """Where this front is to be found now."""
        self.look()
        return [(address, self._doors[address].port) for address in self._wanted() if address in self._doors]

    def look(self) -> None:
        """Opens and shuts doors as the networks' purposes and this host's addresses want it."""
        wanted = set(self._wanted())
        self._refused &= wanted
        for address in self._doors.keys() - wanted:
            self._shut(address)
        for address in wanted - self._doors.keys():
            self._open(address)

    async def _look_again(self) -> None:
        while True:
            self.look()
            await self._pool.clock.sleep(LOOK_EVERY_S)

    def _wanted(self) -> Iterator[str]:
        db = self._pool.db
        here = {str(pool["master"]) for pool in db.all("pool").values()}
        if self.certificate is None or db.still:
            return
        for network in db.all("network").values():
            for pif in (db.get("PIF", ref) for ref in network["PIFs"] if PURPOSE in network["purpose"]):
                if pif["host"] in here and pif["currently_attached"]:
                    yield from filter(_is_reachable, [pif["IP"], *(text.partition("/")[0] for text in pif["IPv6"])])

    def _open(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.create_server((address, self._port), family=family, backlog=64)
        except OSError as error:
            if address not in self._refused:
                log.error("no door for NBD at %s: %s", address, error)
                self._refused.add(address)
            return
        sock.setblocking(False)
        self._refused.discard(address)
        door = self._doors[address] = _Door(sock)
        door.acceptor = asyncio.create_task(self._accept(door))
        log.info("serving NBD at %s port %d", address, door.port)

    def _shut(self, address: str) -> "list[asyncio.Task[None]]":
        """Who came by it leaves too."""
        door = self._doors.pop(address)
        tasks = [*([door.acceptor] if door.acceptor is not None else []), *door.connections]
        for task in tasks:
            task.cancel()
        asyncio.get_running_loop().remove_reader(
            door.sock
        )  # else a later socket of the same number would be waited for
        door.sock.close()
        log.info("serving NBD at %s no longer", address)
        return tasks

    async def _accept(self, door: _Door) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(door.sock)
            except OSError as error:
                log.warning("a reader by NBD could not be let in: %s", error)
                await self._pool.clock.sleep(1.0)
                continue
            if sum(len(door.connections) for door in self._doors.values()) >= CONNECTIONS_LIMIT:
                log.warning("more than %d readers by NBD: %s is turned away", CONNECTIONS_LIMIT, peer[0])
                sock.close()
                continue
            task = asyncio.create_task(self._serve(sock, str(peer[0])))
            door.connections.add(task)
            task.add_done_callback(door.connections.discard)

    # -- one connection

    async def _serve(self, sock: socket.socket, address: str) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                no_zeroes = await _until_tls(sock)
                streams = await self._secured(sock)
            notice_silence(streams[1])
            await Guest(streams, no_zeroes, self._admit, self._exports, address).serve()
        except (BadClient, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.info("NBD with %s ends: %s", address, error or type(error).__name__)
        except Exception:
            log.exception("NBD with %s ends", address)

    async def _secured(self, sock: socket.socket) -> Streams:
        """Of a socket from which not a byte too much was read: what was sent in the clear cannot pass for TLS."""
        assert self.certificate is not None
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self.certificate.door)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _admit(self, name: str) -> tuple[Session, str]:
        """The session and the VDI of an export's name. XenApiError."""
        path, _, query = name.partition("?")
        key, _, ref = query.partition("=")
        if not path.startswith("/") or key != "session_id":
            raise XenApiError("UUID_INVALID", ["VDI", "the name is not one that VDI.get_nbd_info gives"])
        api = cast(Api, self._pool.services["api"])
        session = api.sessions.use(ref)
        if not session.may(LEAST_ROLE):
            api.audit.write(session.who(), False, "RBAC_PERMISSION_DENIED", "NBD", AUDITED)
            raise denied("VDI.get_nbd_info", LEAST_ROLE)
        vdi = self._pool.db.by_uuid("VDI", path[1:])
        told = " ".join(map(quoted, ("vdi", self._pool.db.get("VDI", vdi)["name_label"], path[1:], vdi)))
        api.audit.write(session.who(), True, "", "NBD", AUDITED, f"(({told}))")
        return session, vdi


async def _until_tls(sock: socket.socket) -> bool:
    """Returns when the client is to begin with TLS: whether it wants no zeroes. Otherwise the socket is closed."""
    try:
        return await _negotiated_in_the_clear(sock)
    except BaseException:
        sock.close()
        raise


async def _negotiated_in_the_clear(sock: socket.socket) -> bool:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, GREETING)
    no_zeroes = client_flags(await _exactly(sock, 4))
    while True:
        option, length = option_header(await _exactly(sock, OPTION_HEADER.size))
        said = answer(option, await _exactly(sock, length), secure=False)
        assert not isinstance(said, Pass)
        await loop.sock_sendall(sock, said.data)
        if isinstance(said, StartTls):
            return no_zeroes
        if isinstance(said, End):
            raise BadClient("it leaves without TLS")


async def _exactly(sock: socket.socket, length: int) -> bytes:
    data, loop = b"", asyncio.get_running_loop()
    while len(data) < length:
        piece = await loop.sock_recv(sock, length - len(data))
        if not piece:
            raise BadClient("it has gone")
        data += piece
    return data


def _is_reachable(address: str) -> bool:
    """Link-local ones are good for nobody who does not know the interface."""
    return bool(address) and not ipaddress.ip_address(address).is_link_local


def look_again(pool: Pool) -> None:
    """A network's purposes have changed."""
    front = pool.services.get("nbd")
    if front is not None:
        cast(NbdFront, front).look()
