"""Consoles of running VMs: ``CONNECT /console?uuid=<of the console>`` becomes a raw channel to the machine: its serial
line (vt100) or its screen (RFB). Browsers, which cannot CONNECT, get it by WebSocket: ``GET`` of the same."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.api.web_socket import WebSocket
from gespann.pool.steps.host_door import ask, stream_to
from gespann.seams.host_agent import Domain, DomainList
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.streams import CHUNK_BYTES, pump, until_one_ends


def _console(request: HttpRequest) -> str:
    db, named = request.pool.db, request.query.get("ref", "")
    if named:
        db.get("console", named)
        return named
    return db.by_uuid("console", request.query.get("uuid", ""))


async def _socket(request: HttpRequest) -> tuple[str, str]:
    """The host that the machine runs on, and the path of the socket there."""
    db = request.pool.db
    console = db.get("console", _console(request))
    vm = db.get("VM", console["VM"])
    reply = await ask(request.pool, vm["resident_on"], DomainList())
    domain: Domain | None = next((found for found in reply.domains if found.uuid == vm["uuid"]), None)
    path = "" if domain is None else domain.vnc_socket if console["protocol"] == "rfb" else domain.serial_socket
    if not path:
        raise XenApiError("VM_BAD_POWER_STATE", [console["VM"], "running, paused", vm["power_state"].lower()])
    return vm["resident_on"], path


@contextlib.asynccontextmanager
async def _machine(request: HttpRequest) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, path = await _socket(request)
    try:
        reader, writer = await stream_to(request.pool, host, path)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise XenApiError("INTERNAL_ERROR", [f"the console does not answer: {why}"]) from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@http("CONNECT", "/console", role="vm-operator")
async def console(request: HttpRequest) -> None:
    async with _machine(request) as (reader, writer):
        await request.established()
        await until_one_ends(pump(request.reader, writer), pump(reader, request.writer))


@http("GET", "/console", role="vm-operator")
async def console_for_browsers(request: HttpRequest) -> None:
    """The same inside a WebSocket: binary messages, cut as they come."""
    web_socket = WebSocket(request)
    if not await web_socket.is_welcome():
        return
    async with _machine(request) as (reader, writer):
        await web_socket.open()
        await until_one_ends(_to_machine(web_socket, writer), _to_browser(reader, web_socket))
        await web_socket.close()


async def _to_machine(web_socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        async for data in web_socket.messages():
            writer.write(data)
            await writer.drain()


async def _to_browser(reader: asyncio.StreamReader, web_socket: WebSocket) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            await web_socket.send(data)
