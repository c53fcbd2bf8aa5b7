"""Consoles of running VMs: ``CONNECT /console?uuid=<of the console>`` becomes a raw channel to the machine: its serial
line (vt100) or its screen (RFB)."""

import asyncio
import contextlib

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.steps.host_door import ask, stream_to
from gespann.seams.host_agent import Domain, DomainList
from gespann.seams.xenapi.errors import XenApiError

CHUNK_BYTES = 64 * 1024


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


@http("CONNECT", "/console", role="vm-operator")
async def console(request: HttpRequest) -> None:
    host, path = await _socket(request)
    try:
        reader, writer = await stream_to(request.pool, host, path)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise XenApiError("INTERNAL_ERROR", [f"the console does not answer: {why}"]) from error
    try:
        await request.established()
        await _join((request.reader, writer), (reader, request.writer))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _join(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Until either side ends."""
    pumps = [asyncio.create_task(_pump(reader, writer)) for reader, writer in ways]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
