"""Whole VMs over HTTP: ``GET /export``, ``PUT /import``, and the records alone (``/export_metadata``,
``/import_metadata``). Streamed, both ways."""

import asyncio
from collections.abc import AsyncIterator

from gespann.pool.api import wire_xml
from gespann.pool.api.classes.message import post
from gespann.pool.api.http_handlers import ClientGone, HttpRequest, http
from gespann.pool.api.tasks import Task
from gespann.pool.classes.context import capabilities_of, coordinator, work_of
from gespann.pool.images import ova, xva
from gespann.pool.images.streams import EndedEarly, Pieces, compressed, decompressed
from gespann.pool.images.tar import END, TarReader, member
from gespann.pool.model.database import Database
from gespann.pool.plan import export_plans, import_plans
from gespann.pool.pool import Pool
from gespann.pool.reconcile.storage_scan import scan_when_possible
from gespann.seams.xenapi.datamodel import NULL_REF, parse_type
from gespann.seams.xenapi.errors import XenApiError

_COMPRESSION = {"true": "gzip", "gzip": "gzip", "zstd": "zstd"}
_HEADERS = {
    "Content-Type": "application/octet-stream",
    "Content-Disposition": 'attachment; filename="export.xva"',
}
_TRUE = ("true", "1")
LEFT_BEHIND = 4  # of a message: something to know, nothing to do


def _flag(request: HttpRequest, name: str, default: bool = False) -> bool:
    given = request.query.get(name)
    return default if given is None else given.lower() in _TRUE


def _vm(request: HttpRequest) -> str:
    """Named by ``ref`` or ``uuid``."""
    db = request.pool.db
    if ref := request.query.get("ref"):
        db.get("VM", ref)
        return ref
    return db.by_uuid("VM", request.query.get("uuid", ""))


def _version(request: HttpRequest) -> dict[str, str]:
    return export_plans.version_of(request.pool.db.get("host", coordinator(request.pool)))


@http("GET", "/export", role="vm-admin")
async def export(request: HttpRequest) -> None:
    """The answer begins when the VM may be exported, and ends with the connection. A client that must not take a part
    for the whole watches the task."""
    pool, vm = request.pool, _vm(request)
    algorithm = _COMPRESSION.get(request.query.get("use_compression", "").lower(), "")
    preserve = _flag(request, "preserve_power_state")

    async def send(piece: bytes) -> None:
        if not request.responded:
            await request.begin_response(200, _HEADERS)
        await request.send(piece)

    async with compressed(send, algorithm) as sink:
        await work_of(pool).run(
            lambda: export_plans.plan_export(pool.db, vm, pool.iscsi_prefix, _version(request), preserve=preserve),
            task=request.task,
            memory={"sink": sink},
        )


@http("GET", "/export_metadata", role="vm-admin")
async def export_metadata(request: HttpRequest) -> None:
    db = request.pool.db
    vms = export_plans.vms_for_metadata(db, None if _flag(request, "all") else _vm(request))
    exported = export_plans.gather(db, vms, snapshots=_flag(request, "export_snapshots", True))
    await request.respond(200, member(xva.OVA_XML, exported.writer.xml(_version(request))) + END, _HEADERS)


def _sr(request: HttpRequest) -> str:
    """Where the disks go: ``sr_id`` (a reference, or a uuid), ``sr_uuid``, or the pool's default."""
    db = request.pool.db
    sr = ""
    if uuid := request.query.get("sr_uuid"):
        sr = db.by_uuid("SR", uuid)
    elif named := request.query.get("sr_id"):
        sr = named if db.find("SR", named) is not None else db.by_uuid("SR", named)
    return sr_for_import(db, sr)


def sr_for_import(db: Database, sr: str) -> str:
    """``sr`` "": the pool's default."""
    if not sr:
        sr = next((record["default_SR"] for record in db.all("pool").values()), NULL_REF)
        if db.find("SR", sr) is None:
            raise XenApiError("DEFAULT_SR_NOT_FOUND", [sr])
    if db.get("SR", sr)["content_type"] == "iso":
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [sr])
    return sr


async def _until_gone(request: HttpRequest) -> AsyncIterator[bytes]:
    """An archive says itself where it ends: a client may leave when it has sent it."""
    try:
        async for piece in request.body(early_eof_ok=True):
            yield piece
    except ClientGone:
        return


async def _metadata(archive: xva.ArchiveReader) -> ova.Metadata:
    """In a thread: reading a large one takes seconds."""
    return await asyncio.to_thread(ova.parse, await archive.ova_xml())


@http("PUT", "/import", role="vm-admin")
async def import_vm(request: HttpRequest) -> None:
    """The task's result is the set of VMs. Anything wrong, and nothing of them is there."""
    pool, sr = request.pool, _sr(request)
    if await request.is_only_looking():
        return
    wanted = import_plans.Wanted(sr=sr, restore=_flag(request, "restore"), force=_flag(request, "force"))
    await request.accept_early()
    await _answer_with(
        request, await take_in(pool, wanted, _until_gone(request), request.task, request.knows_its_length)
    )


async def take_in(
    pool: Pool, wanted: import_plans.Wanted, body: AsyncIterator[bytes], task: Task | None, knows_its_length: bool
) -> list[str]:
    """The VMs of an archive that comes in pieces."""
    halted: dict[str, str] = {}
    try:
        async with decompressed(Pieces(body)) as pieces:
            archive = xva.ArchiveReader(TarReader(pieces), force=wanted.force)
            metadata = await _metadata(archive)
            can, prefix = capabilities_of(pool), pool.iscsi_prefix
            vms = await work_of(pool).run(
                lambda: import_plans.plan_import(pool.db, metadata, wanted, can, prefix, halted),
                task=task,
                memory={"archive": archive},
            )
            if knows_its_length:
                await archive.tar.drain(xva.AFTER_END_BYTES)
    except EndedEarly:
        raise xva.premature() from None
    for vm, why in halted.items():
        if (record := pool.db.find("VM", vm)) is not None:
            text = f"The VM was suspended where it comes from, and is halted here: its memory cannot be used, {why}"
            post(pool.db, pool.clock, "VM_IMPORTED_WITHOUT_MEMORY", LEFT_BEHIND, "VM", record["uuid"], text)
    await scan_when_possible(pool, wanted.sr)
    return list(vms)


@http("PUT", "/import_metadata", role="vm-admin")
async def import_metadata(request: HttpRequest) -> None:
    """``dry_run``: only says whether it would work."""
    pool = request.pool
    if await request.is_only_looking():
        return
    wanted = import_plans.Wanted(restore=_flag(request, "restore"), force=_flag(request, "force"))
    await request.accept_early()
    try:
        async with decompressed(Pieces(_until_gone(request))) as pieces:
            metadata = await _metadata(xva.ArchiveReader(TarReader(pieces)))
    except EndedEarly:
        raise xva.premature() from None
    vms: list[str] = []
    if _flag(request, "dry_run"):
        import_plans.plan_import_metadata(pool.db, metadata, wanted)
    else:
        vms = await work_of(pool).run(
            lambda: import_plans.plan_import_metadata(pool.db, metadata, wanted), task=request.task
        )
    await _answer_with(request, vms)


async def _answer_with(request: HttpRequest, vms: list[str]) -> None:
    request.result = wire_xml.encoder(parse_type("VM ref set"))(vms)
    await request.respond(200)
