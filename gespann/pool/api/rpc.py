"""The RPC doors over HTTP: XML-RPC on every POST path that is not another's, JSON-RPC on ``/jsonrpc``; an ASGI app."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.responses import Response

from gespann.pool.api import wire_json, wire_xml
from gespann.pool.api.api import Api
from gespann.pool.api.caller import Caller
from gespann.pool.api.web_files import WebFiles
from gespann.pool.api.wire_json import INVALID_REQUEST, SERVER_ERROR, MalformedRequest
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 16 * 1024 * 1024
#: of all requests that are arriving, from strangers too: they are in memory
BODIES_LIMIT_BYTES = 256 * 1024 * 1024
BODY_TIMEOUT_S = 60.0  # for a whole request to arrive
JSON_PATHS = ("/jsonrpc", "/json")  # the second is the older name
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "X-Requested-With"}
#: calls that wait: dropped when their client goes away
WAITING = frozenset({"event.from", "event.next", "event_from", "event_next"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyTooLarge(Exception):
    pass


class TooManyBodies(Exception):
    pass


class ClientGone(Exception):
    pass


class ShuttingDown(Exception):
    pass


class RpcApp:
    """``web``: a directory of static files, served to GET."""

    def __init__(self, api: Api, web: Path | None = None) -> None:
        self.api = api
        self.arriving_bytes = 0  # of bodies that are not whole yet
        self.waiting: set[asyncio.Future[Any]] = set()  # calls that wait for events
        self._files = WebFiles(web) if web else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with contextlib.suppress(ClientGone):
            response = await self._answer(scope, receive)
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        match scope["method"]:
            case "POST":
                return await self._rpc(scope, receive)
            case "OPTIONS":
                return Response(headers=CORS)
            case "GET" | "HEAD":
                return self._files or _page(404, "There is nothing here to see: this is the XenAPI.")
        return _page(405, "Method not allowed")

    async def _rpc(self, scope: Scope, receive: Receive) -> Response:
        wire = wire_json if scope["path"].rstrip("/") in JSON_PATHS else wire_xml
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await self._body(scope, receive)
        except BodyTooLarge:
            return _refused(413, wire, f"A request has at most {BODY_LIMIT_BYTES} bytes", INVALID_REQUEST)
        except TooManyBodies:
            return _refused(503, wire, "Too many large requests at once: ask again")
        except TimeoutError:
            return _refused(408, wire, f"The request did not arrive within {BODY_TIMEOUT_S:g} s")
        caller = caller_of(scope)
        try:
            if wire is wire_json:
                return await self._json(body, caller, receive)
            return await self._xml(body, caller, receive)
        except MalformedRequest as error:
            return _answer(400, wire, wire.malformed(error))
        except ShuttingDown:
            return _refused(503, wire, "The coordinator is shutting down: ask again")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > BODY_LIMIT_BYTES:
            raise BodyTooLarge
        parts, size = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self.arriving_bytes += len(parts[-1])
                if size > BODY_LIMIT_BYTES:
                    raise BodyTooLarge
                if self.arriving_bytes > BODIES_LIMIT_BYTES:
                    raise TooManyBodies
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self.arriving_bytes -= size

    def let_go(self) -> None:
        """Answers those who wait for events: they would keep the process from ending."""
        for work in list(self.waiting):
            work.cancel()

    async def _json(self, body: bytes, caller: Caller, receive: Receive) -> Response:
        try:
            request = wire_json.parse(body)
        except wire_json.NotUtf8 as error:
            return _answer(200, wire_json, wire_json.failure(error.request, error))
        try:
            type_, value = await self._invoke(request.method, request.params, caller, receive)
            text = wire_json.success(request, type_, value, self.api.dispatcher.records)
        except XenApiError as error:
            text = wire_json.failure(request, error)
        return _answer(200, wire_json, text)

    async def _xml(self, body: bytes, caller: Caller, receive: Receive) -> Response:
        try:
            method, params = wire_xml.parse(body)
            type_, value = await self._invoke(method, params, caller, receive)
            encode = wire_xml.bare if method == "system.listMethods" else wire_xml.success
            text = encode(type_, value, self.api.dispatcher.records)
        except XenApiError as error:
            text = wire_xml.failure(error)
        return _answer(200, wire_xml, text)

    async def _invoke(self, method: str, params: list[Any], caller: Caller, receive: Receive) -> Any:
        if method not in WAITING:
            return await self.api.invoke(method, params, caller)
        work = asyncio.ensure_future(self.api.invoke(method, params, caller))
        self.waiting.add(work)
        work.add_done_callback(self.waiting.discard)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientGone
            if work.cancelled():
                raise ShuttingDown
            return work.result()
        finally:
            work.cancel()
            gone.cancel()


def caller_of(scope: Scope) -> Caller:
    state = scope.get("state") or {}
    headers = dict(scope["headers"])
    originator = headers.get(b"originator", b"").decode("latin-1")[:256]
    client = scope.get("client")
    return Caller(client[0] if client else "", bool(state.get("local_root")), originator)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _answer(status: int, wire: ModuleType, text: bytes) -> Response:
    headers = {**CORS, "Content-Type": wire.CONTENT_TYPE}
    if status in (408, 413, 503):
        headers["Connection"] = "close"  # whatever of the request still comes is read by nobody
    return Response(text, status, headers)


def _refused(status: int, wire: ModuleType, why: str, code: int = SERVER_ERROR) -> Response:
    return _answer(status, wire, wire.malformed(MalformedRequest(why, code)))


def _page(status: int, text: str) -> Response:
    body = f"<html><body><h1>{status}</h1><p>{escape(text[:1000])}</p></body></html>\n"
    return Response(body.encode(errors="replace"), status, {**CORS, "Content-Type": "text/html; charset=utf-8"})
