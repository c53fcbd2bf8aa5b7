"""One reader by NBD, behind TLS: what it asks before it names an export is answered here, the rest by the server of the
host that has the disk open."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gespann.pool.api.sessions import Session
from gespann.pool.nbd.exports import Exports
from gespann.pool.nbd.handshake import (
    ERR_POLICY,
    ERR_UNKNOWN,
    FIXED_NEWSTYLE,
    GREETING,
    IHAVEOPT,
    INIT_MAGIC,
    NO_ZEROES,
    OPT_EXPORT_NAME,
    OPT_GO,
    OPT_STRUCTURED_REPLY,
    OPTION_HEADER,
    REP_ACK,
    REP_ERRORS,
    REPLY_HEADER,
    REPLY_MAGIC,
    ZEROES,
    End,
    Pass,
    answer,
    option_bytes,
    option_header,
    reply,
)
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.streams import CHUNK_BYTES, Streams, join, until_one_ends

log = logging.getLogger(__name__)

#: how long a client may think about its next option
OPTION_S = 60.0
REPLY_LIMIT_BYTES = 64 * 1024
Admit = Callable[[str], tuple[Session, str]]


class BadServer(ConnectionError):
    """The server behind does not answer as one of NBD."""


@dataclass
class Guest:
    streams: Streams
    no_zeroes: bool
    admit: Admit
    exports: Exports
    address: str
    _structured: bool = field(default=False, init=False)
    _name: str = field(default="", init=False)
    _session: Session | None = field(default=None, init=False)
    _behind: Streams | None = field(default=None, init=False)
    _held: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack, init=False)

    async def serve(self) -> None:
        """To the end of the connection. OSError, TimeoutError, IncompleteReadError."""
        try:
            async with self._held:
                if await self._negotiated():
                    assert self._behind is not None
                    assert self._session is not None
                    await until_one_ends(join(self.streams, self._behind), _ended(self._session))
        finally:
            self.streams[1].close()

    async def _negotiated(self) -> bool:
        """Whether what follows is for the server behind."""
        reader = self.streams[0]
        while True:
            async with asyncio.timeout(OPTION_S):
                option, length = option_header(await reader.readexactly(OPTION_HEADER.size))
                data = await reader.readexactly(length)
            said = answer(option, data, secure=True)
            if isinstance(said, Pass):
                passed = await self._pass_on(said)
                if passed is not None:
                    return passed
                continue
            await self._say(said.data)
            if isinstance(said, End):
                return False

    async def _pass_on(self, wanted: Pass) -> bool | None:
        """None: the negotiation goes on."""
        if wanted.name is None and self._behind is None:
            self._structured = True
            await self._say(reply(wanted.option, REP_ACK))
            return None
        try:
            if wanted.name is not None:
                await self._open(wanted.name)
        except XenApiError as error:
            log.info("NBD with %s: %s", self.address, error.code)
            if wanted.option == OPT_EXPORT_NAME:
                return False
            denied = error.code in ("SESSION_INVALID", "RBAC_PERMISSION_DENIED")
            await self._say(reply(wanted.option, ERR_POLICY if denied else ERR_UNKNOWN, _text(error)))
            return None
        return await self._relay(wanted)

    async def _open(self, name: str) -> None:
        """XenApiError."""
        if self._behind is not None and name == self._name:
            return
        if self._behind is not None:
            raise XenApiError("VDI_IN_USE", ["", "a connection is for one disk"])
        session, vdi = self.admit(name)
        path = await self._held.enter_async_context(self.exports.opened(vdi))
        if session.ended.is_set():
            raise XenApiError("SESSION_INVALID", [session.ref])
        try:
            self._behind = await self._connect(path)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise XenApiError("VDI_IO_ERROR", [vdi, str(error)]) from error
        self._session, self._name = session, name
        log.info("NBD: %s of %s reads VDI %s", session.user, self.address, name.partition("?")[0][1:])

    async def _connect(self, path: str) -> Streams:
        """The server behind, up to where this client is. OSError, BadServer, IncompleteReadError."""
        reader, writer = await asyncio.open_unix_connection(path, limit=CHUNK_BYTES)
        self._held.callback(writer.close)
        greeting = await reader.readexactly(len(GREETING))
        if not greeting.startswith(INIT_MAGIC + IHAVEOPT):
            raise BadServer("the host's server does not greet")
        writer.write((FIXED_NEWSTYLE | NO_ZEROES).to_bytes(4, "big"))
        if self._structured:
            writer.write(option_bytes(OPT_STRUCTURED_REPLY))
            if (await _reply_of(reader))[1] != REP_ACK:
                raise BadServer("the host's server has no structured replies")
        return reader, writer

    async def _relay(self, wanted: Pass) -> bool | None:
        assert self._behind is not None
        self._behind[1].write(option_bytes(wanted.option, wanted.data))
        if wanted.option == OPT_EXPORT_NAME:
            size_and_flags = await self._behind[0].readexactly(10)
            await self._say(size_and_flags + (b"" if self.no_zeroes else ZEROES))
            return True
        while True:
            whole, kind = await _reply_of(self._behind[0])
            await self._say(whole)
            if kind == REP_ACK and wanted.option == OPT_GO:
                return True
            if kind == REP_ACK or kind & REP_ERRORS:
                return None

    async def _say(self, data: bytes) -> None:
        self.streams[1].write(data)
        await self.streams[1].drain()


async def _reply_of(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """One reply to an option, whole, and its kind."""
    head = await reader.readexactly(REPLY_HEADER.size)
    magic, _, kind, length = REPLY_HEADER.unpack(head)
    if magic != REPLY_MAGIC or length > REPLY_LIMIT_BYTES:
        raise BadServer("the host's server answers something else")
    return head + await reader.readexactly(length), kind


async def _ended(session: Session) -> None:
    await session.ended.wait()
    log.info("NBD: a session of %s has ended", session.user)


def _text(error: XenApiError) -> str:
    """For a person at the other end: no references."""
    return " ".join([error.code, *(text for text in error.params if not text.startswith("OpaqueRef:"))])[:1000]
