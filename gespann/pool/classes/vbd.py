"""XenAPI class VBD."""

from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, fresh_names, given, set_fields, work_of
from gespann.pool.plan import device_numbers, device_plans, legal_moves, placement
from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

_GIVEN = frozenset(
    {
        *("VM", "VDI", "userdevice", "bootable", "mode", "type", "unpluggable", "empty", "other_config"),
        *("qos_algorithm_type", "qos_algorithm_params"),
    }
)
AUTODETECT = "autodetect"


@implements("VBD.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    """Plugs nothing, also if the VM runs."""
    db = call.pool.db
    fields = {name: value for name, value in args.items() if name in _GIVEN}
    fields["userdevice"] = _userdevice(call, fields["VM"], fields["userdevice"])
    if not given(fields["VDI"]):
        fields |= {"VDI": NULL_REF, "empty": True}
    elif db.get("VDI", fields["VDI"])["type"] == legal_moves.METADATA_TYPE:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [fields["VDI"], legal_moves.METADATA_TYPE])
    else:
        fields["empty"] = False
    if fields["empty"] and fields["type"] != "CD":
        raise XenApiError("VBD_NOT_REMOVABLE_MEDIA", [fields["VDI"]])
    if fields["type"] == "CD":
        if fields["mode"] != "RO":
            raise XenApiError("VBD_CDS_MUST_BE_READONLY", [])
    elif fields["mode"] == "RW" and db.get("VDI", fields["VDI"])["read_only"]:
        raise XenApiError("VDI_READONLY", [fields["VDI"]])
    assert_free(call.pool, "VM", fields["VM"])
    if given(fields["VDI"]):
        assert_free_or_shared(call, fields["VDI"])
    with db.transaction() as tx:
        return tx.create("VBD", fields)


def assert_free_or_shared(call: Call, vdi: str) -> None:
    """A VDI about to go must not get a new user."""
    for operation in call.pool.db.get("VDI", vdi)["current_operations"].values():
        if operation in ("destroy", "forget", "data_destroy"):
            raise XenApiError("VDI_IN_USE", [vdi, operation])


def _userdevice(call: Call, vm: str, wanted: str) -> str:
    free = device_numbers.free_disk_numbers(call.pool.db, vm)
    if wanted in ("", AUTODETECT):
        return str(free[0])
    number = device_numbers.disk_number(wanted)
    if number not in free:
        raise XenApiError("DEVICE_ALREADY_EXISTS", [wanted])
    return str(number)


@implements("VBD.destroy")
async def destroy(call: Call, vbd: str) -> None:
    await work_of(call.pool).run(lambda: device_plans.plan_destroy_vbd(call.pool.db, vbd), task=call.task)


@implements("VBD.plug")
async def plug(call: Call, vbd: str) -> None:
    pool = call.pool
    vm = pool.db.get("VBD", vbd)["VM"]
    await work_of(pool).run(lambda: device_plans.plan_plug(pool.db, vbd, fresh_names(pool, vm)), task=call.task)


@implements("VBD.unplug")
async def unplug(call: Call, vbd: str) -> None:
    await work_of(call.pool).run(lambda: device_plans.plan_unplug(call.pool.db, vbd), task=call.task)


@implements("VBD.unplug_force")
async def unplug_force(call: Call, vbd: str) -> None:
    """The guest is asked all the same: there is no way to take a disk from QEMU that it holds on to."""
    if not call.pool.db.get("VBD", vbd)["currently_attached"]:
        return
    await work_of(call.pool).run(lambda: device_plans.plan_unplug(call.pool.db, vbd, "unplug_force"), task=call.task)


@implements("VBD.unplug_force_no_safety_check")
async def unplug_force_no_safety_check(call: Call, vbd: str) -> None:
    """What it would leave out are checks of the guest's driver, and there are none."""
    await unplug_force(call, vbd)


@implements("VBD.insert")
async def insert(call: Call, vbd: str, vdi: str) -> None:
    pool = call.pool
    vm = pool.db.get("VBD", vbd)["VM"]
    await work_of(pool).run(lambda: device_plans.plan_insert(pool.db, vbd, vdi, fresh_names(pool, vm)), task=call.task)


@implements("VBD.eject")
async def eject(call: Call, vbd: str) -> None:
    await work_of(call.pool).run(lambda: device_plans.plan_eject(call.pool.db, vbd), task=call.task)


@implements("VBD.assert_attachable")
async def assert_attachable(call: Call, vbd: str) -> None:
    db = call.pool.db
    legal_moves.assert_vbd(db, vbd, "attach")
    record = db.get("VBD", vbd)
    if record["empty"]:
        return
    sr = db.get("VDI", record["VDI"])["SR"]
    resident = db.get("VM", record["VM"])["resident_on"]
    hosts = attached_hosts(db, sr)
    if not hosts or (given(resident) and resident not in hosts):
        raise XenApiError("VM_REQUIRES_SR", [record["VM"], sr])
    placement.assert_usable(db, record["VDI"], writes=record["mode"] == "RW" and record["type"] != "CD")


@implements("VBD.set_mode")
async def set_mode(call: Call, vbd: str, value: str) -> None:
    """While it is not plugged."""
    record = call.pool.db.get("VBD", vbd)
    if record["currently_attached"]:
        raise XenApiError("DEVICE_ALREADY_ATTACHED", [vbd])
    if record["type"] == "CD" and value != "RO":
        raise XenApiError("VBD_CDS_MUST_BE_READONLY", [])
    assert_free(call.pool, "VBD", vbd)
    set_fields(call, "VBD", vbd, mode=value)
