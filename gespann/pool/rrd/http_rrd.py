"""``GET /rrd_updates``, ``/host_rrd``, ``/vm_rrd``, ``/sr_rrd``: the figures of hosts, machines and storage.

    /rrd_updates?start=SECONDS&interval=SECONDS&cf=AVERAGE|MIN|MAX&host=true&uuid=VM&json=true

``start``: since the epoch, or before now if it is negative; ``host``: hosts too, not only machines.
"""

import asyncio
from collections.abc import Iterator, Mapping

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.api.values import invalid
from gespann.pool.rrd.archive import FUNCTIONS, STEP_S, Rrd
from gespann.pool.rrd.export import updates, updates_json, updates_xml, whole_json, whole_xml
from gespann.pool.rrd.figures import collector_of
from gespann.seams.xenapi.datamodel import ROLES
from gespann.seams.xenapi.errors import XenApiError

DEFAULT_START_S = -600
NUMBER_LIMIT = 1 << 40


def _number(request: HttpRequest, name: str, default: int) -> int:
    text = request.query.get(name, "") or str(default)
    try:
        number = int(float(text)) if len(text) < 32 else NUMBER_LIMIT
    except (ValueError, OverflowError):
        raise invalid(name, text) from None
    if abs(number) >= NUMBER_LIMIT:
        raise invalid(name, text)
    return number


def _asked(request: HttpRequest, name: str) -> bool:
    return request.query.get(name, "false").lower() in ("true", "1")


async def _send(request: HttpRequest, pieces: Iterator[str], *, as_json: bool) -> None:
    kind = "application/json" if as_json else "text/xml"
    await request.begin_response(200, {"Content-Type": kind, "Access-Control-Allow-Origin": "*"})
    for piece in pieces:
        await request.send(piece.encode())
        await asyncio.sleep(0)  # others go on meanwhile


@http("GET", "/rrd_updates", role=ROLES[0])
async def rrd_updates(request: HttpRequest) -> None:
    collector = collector_of(request.pool)
    function = request.query.get("cf", "").upper() or None
    if function is not None and function not in FUNCTIONS:
        raise invalid("cf", function)
    start_s = _number(request, "start", DEFAULT_START_S)
    interval_s = _number(request, "interval", STEP_S)
    only = request.query.get("uuid", "") or request.query.get("vm_uuid", "")
    objects = [(f"vm:{uuid}:", rrd) for uuid, rrd in collector.vms.items() if only in ("", uuid)]
    if _asked(request, "host"):
        objects += [(f"host:{uuid}:", rrd) for uuid, rrd in collector.hosts.items()]
    found = updates(objects, start_s, interval_s, function, request.pool.clock.now().timestamp())
    as_json = _asked(request, "json")
    await _send(request, updates_json(found) if as_json else updates_xml(found), as_json=as_json)


async def _send_whole(request: HttpRequest, rrd: Rrd) -> None:
    as_json = _asked(request, "json")
    await _send(request, whole_json(rrd) if as_json else whole_xml(rrd), as_json=as_json)


async def _send_named(request: HttpRequest, class_name: str, rrds: Mapping[str, Rrd]) -> None:
    uuid = request.query.get("uuid", "")
    ref = request.pool.db.by_uuid(class_name, uuid)
    found = rrds.get(uuid)
    if found is None:
        raise XenApiError("HANDLE_INVALID", [class_name, ref])
    await _send_whole(request, found)


@http("GET", "/host_rrd", role=ROLES[0])
async def host_rrd(request: HttpRequest) -> None:
    """Of the host named by ``uuid``, else of the coordinator's."""
    db = request.pool.db
    uuid = request.query.get("uuid", "")
    host = db.by_uuid("host", uuid) if uuid else next(iter(db.all("pool").values()))["master"]
    found = collector_of(request.pool).hosts.get(db.get("host", host)["uuid"])
    if found is None:
        raise XenApiError("HANDLE_INVALID", ["host", host])
    await _send_whole(request, found)


@http("GET", "/vm_rrd", role=ROLES[0])
async def vm_rrd(request: HttpRequest) -> None:
    """Of the VM named by ``uuid``; 404 for one that has no figures, as it has never run."""
    await _send_named(request, "VM", collector_of(request.pool).vms)


@http("GET", "/sr_rrd", role=ROLES[0])
async def sr_rrd(request: HttpRequest) -> None:
    """Of the SR named by ``uuid``."""
    await _send_named(request, "SR", collector_of(request.pool).srs)
