"""What somebody who is to help has to see: logs, records, and what each host says, as one archive.

``GET /system-status?entries=logs,database&output=tar``: the parts that ``host.get_system_status_capabilities`` lists,
all of them by default; as tar, tar.bz2 or zip. ``GET /host_logs_download``: the logs alone, as tar.gz. Secrets are in
none of it: not in logs, and secret objects and sessions are left out of the records.
"""

import asyncio
import io
import tarfile
import zipfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, cast
from xml.sax.saxutils import quoteattr

import msgspec

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.host_care import log_of
from gespann.pool.pool import Pool
from gespann.pool.steps.host_door import ask
from gespann.seams.host_agent import Facts
from gespann.seams.host_reports import HostReport
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.log import recent_lines

if TYPE_CHECKING:
    from gespann.pool.api.api import Api

AUDIT_LINES = 20_000
#: classes whose records are secrets, or open a door
NOT_SHOWN = frozenset({"secret", "session"})
MIB = 1024 * 1024

Files = dict[str, bytes]


async def _logs(pool: Pool) -> Files:
    files = {"logs/coordinator.log": recent_lines().encode()}
    for host, record in pool.db.all("host").items():
        files[f"logs/{record['uuid']}.log"] = await _said(log_of(pool, host))
    return files


async def _audit(pool: Pool) -> Files:
    lines = cast("Api", pool.services["api"]).audit.lines("")
    return {"audit.log": b"".join(list(lines)[-AUDIT_LINES:])}


async def _database(pool: Pool) -> Files:
    shown = {name: dict(table) for name, table in pool.db.tables.items() if table and name not in NOT_SHOWN}
    return {"database.json": await asyncio.to_thread(_json, msgspec.json.encode(shown))}


async def _hosts(pool: Pool) -> Files:
    files = {}
    for host, record in pool.db.all("host").items():
        files[f"hosts/{record['uuid']}/facts.json"] = await _said(_facts(pool, host))
        files[f"hosts/{record['uuid']}/kernel.log"] = await _said(_kernel(pool, host))
    return files


async def _facts(pool: Pool, host: str) -> str:
    return _json(msgspec.json.encode(await ask(pool, host, Facts()))).decode()


async def _kernel(pool: Pool, host: str) -> str:
    return str((await ask(pool, host, HostReport(what="kernel"))).text)


async def _said(asked: Awaitable[str]) -> bytes:
    """A host that does not answer is what one would like to read about, and no reason to give nothing."""
    try:
        return (await asked).encode("utf-8", "replace")
    except XenApiError as error:
        return f"{error.code}: {', '.join(error.params)}\n".encode()


def _json(data: bytes) -> bytes:
    return msgspec.json.format(data, indent=1) + b"\n"


#: each with what makes it, the most that it may come to, and whether it tells of people
PARTS: dict[str, tuple[Callable[[Pool], Awaitable[Files]], int, str]] = {
    "logs": (_logs, 64 * MIB, "maybe"),
    "audit": (_audit, 16 * MIB, "yes"),
    "database": (_database, 256 * MIB, "maybe"),
    "hosts": (_hosts, 64 * MIB, "no"),
}


@implements("host.get_system_status_capabilities")
async def get_system_status_capabilities(call: Call, host: str) -> str:
    """The parts of ``/system-status``, in the words of the original's XML."""
    lines = [
        f'<capability content-type="text/plain" default-checked="yes" key={quoteattr(key)}'
        f' max-size="{size}" max-time="60" min-size="0" min-time="0" pii={quoteattr(pii)}/>'
        for key, (_, size, pii) in PARTS.items()
    ]
    return f"<system-status-capabilities>{''.join(lines)}</system-status-capabilities>"


def _tar(mode: str) -> Callable[[Files, datetime], bytes]:
    def packed(files: Files, now: datetime) -> bytes:
        into = io.BytesIO()
        with tarfile.open(fileobj=into, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(data), int(now.timestamp()), 0o600
                archive.addfile(entry, io.BytesIO(data))
        return into.getvalue()

    return packed


def _zip(files: Files, now: datetime) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, now.timetuple()[:6]), data, zipfile.ZIP_DEFLATED)
    return into.getvalue()


OUTPUTS: dict[str, tuple[Callable[[Files, datetime], bytes], str]] = {
    "tar": (_tar(""), "application/x-tar"),
    "tar.bz2": (_tar("bz2"), "application/x-bzip2"),
    "zip": (_zip, "application/zip"),
}


@http("GET", "/system-status", role="pool-operator")
async def system_status(request: HttpRequest) -> None:
    entries = [word for word in request.query.get("entries", "").split(",") if word] or list(PARTS)
    for entry in entries:
        if entry not in PARTS:
            raise XenApiError("INVALID_VALUE", ["entries", entry[:128]])
    output = request.query.get("output") or "tar"
    if output not in OUTPUTS:
        raise XenApiError("INVALID_VALUE", ["output", output[:128]])
    files: Files = {}
    for entry in dict.fromkeys(entries):
        files |= await PARTS[entry][0](request.pool)
    pack, kind = OUTPUTS[output]
    await _send(request, await asyncio.to_thread(pack, files, request.pool.clock.now()), kind)


@http("GET", "/host_logs_download", role="pool-operator")
async def host_logs_download(request: HttpRequest) -> None:
    pack = _tar("gz")
    data = await asyncio.to_thread(pack, await _logs(request.pool), request.pool.clock.now())
    await _send(request, data, "application/gzip")


async def _send(request: HttpRequest, data: bytes, kind: str) -> None:
    await request.respond(200, data, {"Content-Type": kind})
