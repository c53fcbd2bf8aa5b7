"""Disk images over HTTP: ``PUT /import_raw_vdi`` and ``GET /export_raw_vdi``, raw, VHD or qcow2, streamed."""

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.classes.context import work_of
from gespann.pool.images import formats
from gespann.pool.plan.disk_plans import plan_export, plan_import
from gespann.pool.plan.image_plans import plan_export_image, plan_import_image
from gespann.pool.plan.shapes import Plan
from gespann.pool.reconcile.storage_scan import scan_when_possible
from gespann.pool.steps.runner import Memory
from gespann.seams.xenapi.errors import XenApiError

RAW = "raw"
CONTENT_TYPES = {RAW: "application/octet-stream", formats.VHD: "application/vhd", formats.QCOW2: "application/qcow2"}


def _vdi(request: HttpRequest, key: str = "vdi") -> str:
    """Named by reference or by uuid."""
    named = request.query.get(key, "")
    if request.pool.db.find("VDI", named) is not None:
        return named
    return request.pool.db.by_uuid("VDI", named)


def _format(request: HttpRequest) -> str:
    given = request.query.get("format", "") or RAW
    if given.lower() not in CONTENT_TYPES:
        raise XenApiError("VALUE_NOT_SUPPORTED", ["format", given, f"none of {', '.join(CONTENT_TYPES)}"])
    return given.lower()


def _is_chunked(request: HttpRequest) -> bool:
    """Raw, in pieces that say where they belong."""
    given = request.query.get("chunked", "false").lower()
    if given not in ("true", "false", ""):
        raise XenApiError("VALUE_NOT_SUPPORTED", ["chunked", given, "neither true nor false"])
    if given == "true" and _format(request) != RAW:
        raise XenApiError("VALUE_NOT_SUPPORTED", ["chunked", given, "only a raw image comes in pieces"])
    return given == "true"


@http("PUT", "/import_raw_vdi", role="vm-admin")
async def import_raw_vdi(request: HttpRequest) -> None:
    """Answered when everything is on the storage, unless the client waits for an answer before it sends."""
    vdi, pool = _vdi(request), request.pool
    format_name = formats.CHUNKED if _is_chunked(request) else _format(request)

    def planner() -> Plan:
        if format_name == RAW:
            return plan_import(pool.db, vdi, pool.iscsi_prefix)
        return plan_import_image(pool.db, vdi, format_name, pool.iscsi_prefix)

    if not request.knows_its_length:
        await work_of(pool).assert_possible(planner)
    if await request.is_only_looking():
        return
    await request.accept_early()
    try:
        await work_of(pool).run(planner, task=request.task, memory={"body": request.body(early_eof_ok=True)})
    except XenApiError as error:
        if error.code == "VDI_TOO_SMALL":  # who found that does not know the disk
            raise XenApiError(error.code, [vdi, *error.params[1:]]) from error
        raise
    await scan_when_possible(pool, pool.db.get("VDI", vdi)["SR"])
    await request.respond(200)


@http("GET", "/export_raw_vdi", role="vm-admin")
async def export_raw_vdi(request: HttpRequest) -> None:
    """With ``base`` (VHD only) what differs from that disk. The last piece leaves when the disk is free again: who has
    every byte that was promised may ask for the next thing at once."""
    vdi, pool, format_name = _vdi(request), request.pool, _format(request)
    base = _vdi(request, "base") if request.query.get("base") else ""
    if base and format_name != formats.VHD:
        raise XenApiError("VALUE_NOT_SUPPORTED", ["base", request.query["base"], "only a VHD can be a difference"])
    length_bytes = pool.db.get("VDI", vdi)["virtual_size"]
    sent, held = 0, b""

    def begin(length: int) -> None:
        nonlocal length_bytes
        length_bytes = length

    async def sink(piece: bytes) -> None:
        nonlocal sent, held
        if not sent:  # only now is it sure that there is something to send
            headers = {"Content-Type": CONTENT_TYPES[format_name], "Content-Length": str(length_bytes)}
            await request.begin_response(200, headers)
        sent += len(piece)
        if sent > length_bytes:
            raise XenApiError("VDI_IO_ERROR", [vdi, f"the volume is larger than {length_bytes} bytes"])
        leaving, held = held, bytes(piece)
        if leaving:
            await request.send(leaving)

    memory: Memory = {"sink": sink, "begin": begin}
    if format_name == RAW:
        await work_of(pool).run(lambda: plan_export(pool.db, vdi, pool.iscsi_prefix), task=request.task, memory=memory)
    else:
        await work_of(pool).run(
            lambda: plan_export_image(pool.db, vdi, base, format_name, pool.iscsi_prefix),
            task=request.task,
            memory=memory,
        )
    if sent != length_bytes:
        raise XenApiError("VDI_IO_ERROR", [vdi, f"the volume has {sent} of {length_bytes} bytes"])
    await request.send(held)
