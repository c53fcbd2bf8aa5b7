"""XenAPI class VDI."""

from typing import Any

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.classes.context import assert_free, capabilities_of, fresh_names, given, set_fields, work_of
from gespann.pool.model.kept_changes import is_dataless
from gespann.pool.plan import copy_plans, disk_plans, legal_moves, move_plans
from gespann.pool.plan.shapes import Plan
from gespann.pool.plan.storage_view import assert_attached
from gespann.pool.reconcile.storage_scan import scan_sr, scan_when_possible
from gespann.seams.xenapi.errors import XenApiError

#: what a constructor may say
_GIVEN = frozenset(
    {
        *("name_label", "name_description", "SR", "virtual_size", "type", "sharable", "read_only", "other_config"),
        *("xenstore_data", "sm_config", "tags"),
    }
)


@implements("VDI.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    pool = call.pool
    fields: dict[str, Any] = {"name_label": "", "name_description": "", "sm_config": {}}
    fields |= {name: value for name, value in args.items() if name in _GIVEN}
    return str(
        await work_of(pool).run(lambda: disk_plans.plan_create(pool.db, fields, capabilities_of(pool)), task=call.task)
    )


@implements("VDI.destroy")
async def destroy(call: Call, vdi: str) -> None:
    pool = call.pool
    await work_of(pool).run(lambda: disk_plans.plan_destroy(pool.db, vdi, capabilities_of(pool)), task=call.task)


@implements("VDI.clone")
async def clone(call: Call, vdi: str, driver_params: dict[str, str]) -> str:
    pool = call.pool
    return str(
        await work_of(pool).run(lambda: disk_plans.plan_clone(pool.db, vdi, capabilities_of(pool)), task=call.task)
    )


@implements("VDI.copy")
async def copy(call: Call, vdi: str, sr: str, base_vdi: str, into_vdi: str) -> str:
    """Into a new VDI of ``sr``, or into ``into_vdi``; with ``base_vdi`` only what differs from that."""
    pool = call.pool
    capabilities, prefix = capabilities_of(pool), pool.iscsi_prefix

    def planner() -> Plan:
        if given(into_vdi):
            return copy_plans.plan_copy_into(pool.db, vdi, into_vdi, base_vdi, capabilities, prefix)
        return copy_plans.plan_copy(pool.db, vdi, sr, base_vdi, capabilities, prefix)

    made = str(await work_of(pool).run(planner, task=call.task))
    if given(into_vdi):
        await scan_when_possible(pool, pool.db.get("VDI", made)["SR"])
    return made


@implements("VDI.pool_migrate")
async def pool_migrate(call: Call, vdi: str, sr: str, options: dict[str, str]) -> str:
    """The new VDI: another uuid, the same contents, names and users; a VM that runs with it goes on. ``options`` ask
    for nothing that this pool does in another way."""
    pool = call.pool
    capabilities = capabilities_of(pool)

    def planner() -> Plan:
        vm = move_plans.runs_with(pool.db, vdi)
        if vm is None:
            return move_plans.plan_move(pool.db, vdi, sr, capabilities, pool.iscsi_prefix)
        return move_plans.plan_move_live(pool.db, vdi, sr, capabilities, vm, fresh_names(pool, vm))

    return str(await work_of(pool).run(planner, task=call.task))


async def _resize(call: Call, vdi: str, size: int, *, online: bool) -> None:
    pool = call.pool
    await work_of(pool).run(
        lambda: disk_plans.plan_resize(pool.db, vdi, size, capabilities_of(pool), online=online), task=call.task
    )


@implements("VDI.resize")
async def resize(call: Call, vdi: str, size: int) -> None:
    """Also while a running VM uses it, if the driver can."""
    pool = call.pool
    in_use = legal_moves.vdi_in_use(pool.db, vdi)
    sr_type = pool.db.get("SR", pool.db.get("VDI", vdi)["SR"])["type"]
    await _resize(call, vdi, size, online=in_use and "VDI_RESIZE_ONLINE" in capabilities_of(pool)(sr_type))


@implements("VDI.resize_online")
async def resize_online(call: Call, vdi: str, size: int) -> None:
    await _resize(call, vdi, size, online=True)


@implements("VDI.update")
async def update(call: Call, vdi: str) -> None:
    """Writes what the record says to the storage again."""
    await _write(call, vdi, {})


async def _write(call: Call, vdi: str, fields: dict[str, Any]) -> None:
    """Fields that the storage keeps too, if it can; they change together or not at all."""
    pool = call.pool
    sr = pool.db.get("VDI", vdi)["SR"]
    kept_there = not is_dataless(pool.db, pool.db.get("VDI", vdi)["uuid"])
    if kept_there and "VDI_UPDATE" in capabilities_of(pool)(pool.db.get("SR", sr)["type"]):
        await work_of(pool).run(
            lambda: disk_plans.plan_update(pool.db, vdi, fields, capabilities_of(pool)), task=call.task
        )
    elif fields:
        assert_free(pool, "VDI", vdi)
        set_fields(call, "VDI", vdi, **fields)


@implements("VDI.set_name_label")
async def set_name_label(call: Call, vdi: str, value: str) -> None:
    await _write(call, vdi, {"name_label": value})


@implements("VDI.set_name_description")
async def set_name_description(call: Call, vdi: str, value: str) -> None:
    await _write(call, vdi, {"name_description": value})


@implements("VDI.set_sharable")
async def set_sharable(call: Call, vdi: str, value: bool) -> None:
    await _write(call, vdi, {"sharable": value})


@implements("VDI.set_read_only")
async def set_read_only(call: Call, vdi: str, value: bool) -> None:
    await _write(call, vdi, {"read_only": value})


@on_set("VDI.sm_config")
async def set_sm_config(call: Call, vdi: str, value: dict[str, str]) -> None:
    await _write(call, vdi, {"sm_config": value})


@implements("VDI.forget")
async def forget(call: Call, vdi: str) -> None:
    pool = call.pool
    await work_of(pool).run(lambda: disk_plans.plan_forget(pool.db, vdi, capabilities_of(pool)), task=call.task)


@implements("VDI.introduce")
async def introduce(call: Call, uuid: str, name_label: str, name_description: str, sr: str, *rest: Any) -> str:
    """A volume that is on the storage already, found by its uuid or its location; what the storage knows of it counts
    more than what is said here."""
    pool = call.pool
    location = rest[4]
    assert_attached(pool.db, sr)
    known = {record["uuid"] for record in pool.db.all("VDI").values()}
    if uuid in known:
        raise XenApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", ["VDI", "uuid", uuid])
    await scan_sr(pool, sr)
    for ref, record in pool.db.all("VDI").items():
        if record["SR"] == sr and (record["uuid"] == uuid or (location and record["location"] == location)):
            fields = {"name_label": name_label, "name_description": name_description}
            set_fields(call, "VDI", ref, **{name: value for name, value in fields.items() if value})
            return ref
    raise XenApiError("VDI_LOCATION_MISSING", [sr, location or uuid])


@implements("VDI.pool_introduce")
async def pool_introduce(call: Call, *params: Any) -> str:
    """What ``introduce`` was called between hosts."""
    return str(await introduce(call, *params))


@implements("VDI.force_unlock")
async def force_unlock(call: Call, vdi: str) -> None:
    """As in the original: nobody locks a disk for himself, and a host that has gone is shut out by the storage."""
    raise XenApiError("MESSAGE_DEPRECATED", [])


@implements("VDI.generate_config")
async def generate_config(call: Call, host: str, vdi: str) -> str:
    """How a host would open it without a pool: no driver here can say that beforehand, as what opens a disk is made for
    each opening."""
    raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [call.pool.db.get("VDI", vdi)["SR"]])
