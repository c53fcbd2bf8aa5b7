"""XenAPI class VDI: small messages."""

import hashlib
from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, set_fields, work_of
from gespann.pool.plan.disk_plans import plan_export
from gespann.pool.plan.legal_moves import METADATA_TYPE
from gespann.pool.plan.storage_view import assert_attached, attached_hosts
from gespann.pool.steps.runner import Memory
from gespann.seams.xenapi.errors import XenApiError


@implements("VDI.set_on_boot")
async def set_on_boot(call: Call, vdi: str, value: str) -> None:
    """No driver can forget what a machine has written, so ``reset`` is refused."""
    record = call.pool.db.get("VDI", vdi)
    assert_attached(call.pool.db, record["SR"])
    if value != "persist":
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [record["SR"]])
    assert_free(call.pool, "VDI", vdi)
    set_fields(call, "VDI", vdi, on_boot=value)


@implements("VDI.get_nbd_info")
async def get_nbd_info(call: Call, vdi: str) -> list[dict[str, Any]]:
    """Where the disk can be read, in the name of this session; nowhere, if no network is for that or no host has its
    repository plugged."""
    db, front = call.pool.db, call.pool.services.get("nbd")
    record = db.get("VDI", vdi)
    if record["type"] == METADATA_TYPE:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [vdi, METADATA_TYPE])
    if front is None or front.certificate is None or not attached_hosts(db, record["SR"]):
        return []
    shown = {
        "exportname": f"/{record['uuid']}?session_id={call.session}",
        "cert": front.certificate.text(),
        "subject": front.certificate.subject(),
    }
    return [{**shown, "address": address, "port": port} for address, port in front.addresses()]


@implements("VDI.checksum")
async def checksum(call: Call, vdi: str) -> str:
    """MD5 of all that is on the disk, in hex; a host reads it for that."""
    pool, digest = call.pool, hashlib.md5(usedforsecurity=False)

    async def sink(piece: bytes) -> None:
        digest.update(piece)

    memory: Memory = {"sink": sink}
    await work_of(pool).run(lambda: plan_export(pool.db, vdi, pool.iscsi_prefix), task=call.task, memory=memory)
    return digest.hexdigest()
