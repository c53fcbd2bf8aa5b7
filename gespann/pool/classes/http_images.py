"""Disk images over HTTP: ``PUT /import_raw_vdi`` and ``GET /export_raw_vdi``, format raw, streamed."""

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.classes.context import work_of
from gespann.pool.plan.disk_plans import plan_export, plan_import
from gespann.pool.reconcile.storage_scan import scan_when_possible
from gespann.seams.xenapi.errors import XenApiError


def _vdi(request: HttpRequest) -> str:
    """Named by reference or by uuid."""
    named = request.query.get("vdi", "")
    if request.pool.db.find("VDI", named) is not None:
        return named
    return request.pool.db.by_uuid("VDI", named)


def _assert_raw(request: HttpRequest) -> None:
    for name, wanted in (("format", "raw"), ("chunked", "false")):
        given = request.query.get(name, wanted) or wanted
        if given.lower() != wanted:
            raise XenApiError("VALUE_NOT_SUPPORTED", [name, given, f"only {wanted} is supported"])


@http("PUT", "/import_raw_vdi", role="vm-admin")
async def import_raw_vdi(request: HttpRequest) -> None:
    """Answered when everything is on the storage, unless the client waits for an answer before it sends."""
    _assert_raw(request)
    vdi, pool = _vdi(request), request.pool
    if await request.is_only_looking():
        return
    await request.accept_early()
    memory = {"body": request.body(early_eof_ok=True)}
    await work_of(pool).run(lambda: plan_import(pool.db, vdi, pool.iscsi_prefix), task=request.task, memory=memory)
    await scan_when_possible(pool, pool.db.get("VDI", vdi)["SR"])
    await request.respond(200)


@http("GET", "/export_raw_vdi", role="vm-admin")
async def export_raw_vdi(request: HttpRequest) -> None:
    _assert_raw(request)
    vdi, pool = _vdi(request), request.pool
    size_bytes = pool.db.get("VDI", vdi)["virtual_size"]
    sent = 0

    async def sink(piece: bytes) -> None:
        nonlocal sent
        if not sent:  # only now is it sure that there is something to send
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
            await request.begin_response(200, headers)
        sent += len(piece)
        if sent > size_bytes:
            raise XenApiError("VDI_IO_ERROR", [vdi, f"the volume is larger than {size_bytes} bytes"])
        await request.send(piece)

    await work_of(pool).run(
        lambda: plan_export(pool.db, vdi, pool.iscsi_prefix), task=request.task, memory={"sink": sink}
    )
    if sent != size_bytes:
        raise XenApiError("VDI_IO_ERROR", [vdi, f"the volume has {sent} of {size_bytes} bytes"])
