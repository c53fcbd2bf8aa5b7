"""XenAPI class VDI: which blocks have changed."""

import base64

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, capabilities_of, set_fields, work_of
from gespann.pool.plan.change_plans import assert_trackable, plan_compare, plan_list_changed_blocks
from gespann.pool.plan.data_plans import plan_data_destroy
from gespann.pool.plan.legal_moves import METADATA_TYPE
from gespann.pool.reconcile.data_shedding import shed_when_possible
from gespann.pool.steps.runner import Memory


@implements("VDI.enable_cbt")
async def enable_cbt(call: Call, vdi: str) -> None:
    """From now on its snapshots may be compared. Until then it costs nothing: they are read when it is asked for."""
    _set(call, vdi, "enable_cbt", True)


@implements("VDI.disable_cbt")
async def disable_cbt(call: Call, vdi: str) -> None:
    """Snapshots that were taken until now keep what they have."""
    _set(call, vdi, "disable_cbt", False)


def _set(call: Call, vdi: str, doing: str, value: bool) -> None:
    assert_trackable(call.pool.db, vdi, doing, capabilities_of(call.pool))
    assert_free(call.pool, "VDI", vdi)
    set_fields(call, "VDI", vdi, cbt_enabled=value)


@implements("VDI.data_destroy")
async def data_destroy(call: Call, vdi: str) -> None:
    """What has changed since this snapshot, and up to it, can still be told. Done already: nothing to do."""
    pool = call.pool
    if pool.db.get("VDI", vdi)["type"] != METADATA_TYPE:
        await work_of(pool).run(lambda: plan_data_destroy(pool.db, vdi, capabilities_of(pool)), task=call.task)
    await shed_when_possible(pool, vdi)


@implements("VDI.list_changed_blocks")
async def list_changed_blocks(call: Call, vdi_from: str, vdi_to: str) -> str:
    """Base64 of a bit for each 64 KiB of ``vdi_to``, the highest bit of a byte first. Where the storage cannot tell, a
    host compares what both hold."""
    pool, memory, capabilities = call.pool, Memory(), capabilities_of(call.pool)
    await work_of(pool).run(
        lambda: plan_list_changed_blocks(pool.db, vdi_from, vdi_to, capabilities), task=call.task, memory=memory
    )
    if "changed" not in memory:
        await work_of(pool).run(
            lambda: plan_compare(pool.db, vdi_from, vdi_to, capabilities, pool.iscsi_prefix),
            task=call.task,
            memory=memory,
        )
    return base64.b64encode(memory["changed"]).decode()
