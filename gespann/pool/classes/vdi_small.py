"""XenAPI class VDI: small messages."""

import hashlib

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, set_fields, work_of
from gespann.pool.plan.disk_plans import plan_export
from gespann.pool.plan.storage_view import assert_attached
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


@implements("VDI.checksum")
async def checksum(call: Call, vdi: str) -> str:
    """MD5 of all that is on the disk, in hex; a host reads it for that."""
    pool, digest = call.pool, hashlib.md5(usedforsecurity=False)

    async def sink(piece: bytes) -> None:
        digest.update(piece)

    memory: Memory = {"sink": sink}
    await work_of(pool).run(lambda: plan_export(pool.db, vdi, pool.iscsi_prefix), task=call.task, memory=memory)
    return digest.hexdigest()
