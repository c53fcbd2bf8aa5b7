"""HTTP besides the RPC: image import and export, consoles, and whatever else streams.

    @http("PUT", "/import_raw_vdi", role="vm-admin")
    async def import_raw_vdi(request: HttpRequest) -> None:
        async for chunk in request.body(early_eof_ok=True): ...
        await request.respond(200)

Paths match by prefix, the longest first. A handler has the connection to itself: after it the connection is closed.
Who asks shows a session, as ``session_id`` in the query, as a cookie of that name, or by name and password (Basic);
``request.session`` is checked against ``role`` before the handler is called. ``request.task`` is the task named by
``task_id``, or a new one; it ends as the handler ends.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

import h11

from gespann.pool.api.audit import QUIET_HTTP, quoted
from gespann.pool.api.caller import Caller
from gespann.pool.api.permissions import denied
from gespann.pool.api.sessions import Session
from gespann.pool.api.tasks import Task
from gespann.pool.api.unforeseen import told_of
from gespann.pool.api.values import invalid
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import ROLES
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.api.api import Api
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
#: how long, and for how much, one that has been refused may go on sending
LINGER_S, LINGER_BYTES = 1.0, 16 * 1024 * 1024
#: a client that does not know how much it will send says this, and cuts the connection at the end
UNKNOWN_LENGTH_BYTES = 1 << 50


class ClientGone(Exception):
    """The far end closed before it had sent all that it promised."""


@dataclass
class HttpRequest:
    """One request, and the connection it came by. ``reader`` and ``writer`` are for what is no longer HTTP (after
    ``established`` or ``switch``)."""

    pool: "Pool"
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    caller: Caller
    session: Session
    task: Task
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: h11.Connection = field(repr=False)
    responded: bool = False
    result: str = ""  # of the task: XML text of its value
    is_http_1_0: bool = False
    _first: bytes = field(default=b"", init=False, repr=False)  # of the body, read already

    @property
    def knows_its_length(self) -> bool:
        """Whether all that is promised will really be sent."""
        return self._promised_bytes() < UNKNOWN_LENGTH_BYTES

    def _promised_bytes(self) -> int:
        return int(self.headers.get("content-length", "0") or 0)

    async def is_only_looking(self) -> bool:
        """Some clients first send an empty request without a task, to see whether they would be sent elsewhere:
        answered. One that does not know its length promises as much there too, leaves with the head of the answer, and
        sends its real request at once. So what that would be refused for is to be refused before this is asked."""
        if "task_id" in self.query:
            return False
        if self.headers.get("content-length") == "0":
            await self.respond(200)
            return True
        if self.knows_its_length:
            return False
        await self.begin_response(200, {})
        self._first = await anext(self.body(early_eof_ok=True), b"")
        return not self._first

    async def accept_early(self) -> None:
        """The thin client of old sends its file only after the answer to its head. It speaks HTTP/1.0 and does not care
        what the answer is, since it watches the task; everybody else is told when the work is done."""
        if self.is_http_1_0 and not self.responded:
            await self.begin_response(200, {})

    async def body(self, *, early_eof_ok: bool = False) -> AsyncIterator[bytes]:
        """What the client sends, as it comes. ClientGone if it ends early, unless that is how this client ends: a
        promised length of ``UNKNOWN_LENGTH_BYTES`` or more, and ``early_eof_ok``. Such a client waits for the head of
        the answer before it ends, so it gets one at once; how it went is told by the task."""
        if early_eof_ok and not self.knows_its_length and not self.responded:
            await self.begin_response(200, {})
        if self.headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._first:
            first, self._first = self._first, b""
            yield first
        ended = False
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError:
                if early_eof_ok and not self.knows_its_length and ended:
                    return
                raise ClientGone from None
            if event is h11.NEED_DATA:
                data = await self._read()
                ended = not data
                self.connection.receive_data(data)
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    async def _read(self) -> bytes:
        """Empty at the end. A client that cuts the connection may reset it: what came before counts all the same."""
        try:
            return await self.reader.read(CHUNK_BYTES)
        except ConnectionError:
            buffer: bytearray = self.reader._buffer  # type: ignore[attr-defined]
            left = bytes(buffer)
            buffer.clear()
            return left

    async def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer; nothing if its head is out already (see ``body``)."""
        if self.responded:
            return
        await self.begin_response(status, {"Content-Length": str(len(body)), **(headers or {})})
        await self.send(body)

    async def begin_response(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer whose body follows by ``send``; without Content-Length it ends with the connection."""
        self.responded = True
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", "Connection: close", "Cache-Control: no-cache, no-store"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.send(b"")

    async def send(self, data: bytes) -> None:
        """ClientGone if nobody is there to take it."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            raise ClientGone from None

    async def established(self) -> None:
        """The answer to CONNECT: from here on ``reader`` and ``writer`` are a raw channel."""
        await self.switch(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n")

    async def switch(self, answer: bytes) -> None:
        """The head of the answer, after which the connection speaks no more HTTP. What the client has sent already is
        in ``reader``."""
        self.responded = True
        early, _ = self.connection.trailing_data
        if early:
            rest = bytes(self.reader._buffer)  # type: ignore[attr-defined]
            self.reader._buffer[:] = early + rest  # type: ignore[attr-defined]
        await self.send(answer)


Handler = Callable[[HttpRequest], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    method: str
    prefix: str
    role: str
    handler: Handler

    @property
    def permission(self) -> str:
        name = datamodel.http_actions().get((self.method, self.prefix))
        return f"http/{name or self.method.lower() + self.prefix.replace('/', '_')}"


ROUTES: list[Route] = []


def http(method: str, prefix: str, *, role: str = ROLES[-1]) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        if any(route.method == method and route.prefix == prefix for route in ROUTES):
            raise ValueError(f"{method} {prefix} has a handler already")
        ROUTES.append(Route(method, prefix, role, handler))
        ROUTES.sort(key=lambda route: -len(route.prefix))
        return handler

    return register


def find_route(method: str, path: str) -> Route | None:
    for route in ROUTES:
        if route.method == method and (path == route.prefix or path.startswith(f"{route.prefix}/")):
            return route
    return None


def split_target(target: str) -> tuple[str, dict[str, str]]:
    path, _, query = target.partition("?")
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    return urllib.parse.unquote(path), dict(pairs)


async def answer(
    api: "Api", route: Route, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
) -> None:
    """Serves one request whose head has arrived; closes the connection."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT_BYTES)
    connection.receive_data(head)
    try:
        event = connection.next_event()
        if not isinstance(event, h11.Request):
            raise h11.RemoteProtocolError("no request")
        path, query = split_target(event.target.decode("latin-1"))
    except (h11.RemoteProtocolError, ValueError):
        _refuse(writer, 400)
        return
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    try:
        session, ends = await _session(api, query, headers, caller)
        if not session.may(route.role):
            api.audit.write(session.who(), False, "RBAC_PERMISSION_DENIED", "HTTP", route.permission)
            raise denied(route.permission, route.role)
        task = _task(api, route, query, session)
    except XenApiError as error:
        _refuse(writer, _STATUS.get(error.code, 400), error)
        return
    request = HttpRequest(
        api.pool, event.method.decode(), path, query, headers, caller, session, task, reader, writer, connection
    )
    request.is_http_1_0 = event.http_version == b"1.0"
    try:
        await _run(route, request)
    finally:
        if "task_id" not in query and not task.error_code:
            api.tasks.let_go(task)
        if route.permission not in QUIET_HTTP:
            shown = {name: value for name, value in query.items() if name in ("uuid", "ref", "vdi", "sr_id", "sr_uuid")}
            args = " ".join(f"({quoted(name)} '' {quoted(value)} '')" for name, value in shown.items())
            api.audit.write(session.who(), True, request.task.error_code, "HTTP", route.permission, f"({args})")
        if ends:
            api.sessions.end(session.ref)


async def _handle(route: Route, request: HttpRequest) -> None:
    """An answer that breaks off must not look whole: without a length, its end is the end of the connection."""
    try:
        await route.handler(request)
        request.task.finish(request.result)
    except Exception:
        if request.responded and request.method == "GET":
            request.writer.transport.abort()
        raise


async def _run(route: Route, request: HttpRequest) -> None:
    try:
        await _handle(route, request)
    except XenApiError as error:
        request.task.fail(error)
        if not request.responded:
            _refuse(request.writer, _STATUS.get(error.code, 500), error)
            await _linger(request)
    except (ClientGone, ConnectionError):
        request.task.fail(XenApiError("CLIENT_ERROR", ["The connection was closed before all data had come"]))
    except asyncio.CancelledError:
        request.task.fail(XenApiError("INTERNAL_ERROR", ["The coordinator stopped before the task ended"]))
        raise
    except Exception as error:
        log.exception("%s %s failed", route.method, route.prefix)
        told = told_of(error)
        request.task.fail(told)
        if not request.responded:
            _refuse(request.writer, 500, told if told.code == "OUT_OF_SPACE" else None)


async def _linger(request: HttpRequest) -> None:
    """A client that is still sending sees the answer only if its connection is not cut while bytes of it lie unread."""
    if request.method != "PUT":
        return
    with contextlib.suppress(TimeoutError, OSError):
        if request.writer.can_write_eof():
            request.writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            left = LINGER_BYTES
            while left > 0 and (data := await request.reader.read(CHUNK_BYTES)):
                left -= len(data)


_STATUS = {
    "SESSION_INVALID": 401,
    "SESSION_AUTHENTICATION_FAILED": 401,
    "RBAC_PERMISSION_DENIED": 403,
    "HANDLE_INVALID": 404,
    "UUID_INVALID": 404,
    "INVALID_VALUE": 400,
    "FIELD_TYPE_ERROR": 400,
}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _refuse(writer: asyncio.StreamWriter, status: int, error: XenApiError | None = None) -> None:
    text = " ".join([error.code, *error.params]) if error else _phrase(status)
    body = f"{text}\n".encode()
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", "Content-Type: text/plain; charset=utf-8", "Connection: close"]
    if status == 401:
        lines.append('WWW-Authenticate: Basic realm="Gespann"')
    lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


async def _session(
    api: "Api", query: Mapping[str, str], headers: Mapping[str, str], caller: Caller
) -> tuple[Session, bool]:
    """The session shown, and whether it was made for this request alone."""
    shown = query.get("session_id") or _cookie(headers.get("cookie", ""))
    if shown:
        return api.sessions.use(shown), False
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise invalid("Authorization", "not Basic") from None
        return api.sessions.use(await api.sessions.login(caller, user, password)), True
    if caller.local_root:
        return api.sessions.use(await api.sessions.login(caller, "root", "")), True
    raise XenApiError("SESSION_INVALID", [""])


def _cookie(text: str) -> str:
    try:
        morsel = SimpleCookie(text).get("session_id")
    except CookieError:
        return ""
    return urllib.parse.unquote(morsel.value) if morsel else ""


def _task(api: "Api", route: Route, query: Mapping[str, str], session: Session) -> Task:
    ref, label = query.get("task_id", ""), f"{route.method} {route.prefix}"
    if ref:
        return api.tasks.for_transfer(ref, session, label)
    return api.tasks.begin(label, session.ref, session.user)
