"""Plans for plugging: VBDs and VIFs of running VMs, media of CD drives."""

from gespann.pool.model.database import Database
from gespann.pool.plan.device_numbers import disk_name, disk_number
from gespann.pool.plan.domain_spec import Names, disk_shape, nic_shape, open_act
from gespann.pool.plan.legal_moves import assert_vbd, assert_vif
from gespann.pool.plan.placement import assert_usable
from gespann.pool.plan.reachable_networks import assert_reachable
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import assert_attached
from gespann.pool.steps.openings import Start, all_openings, start_of
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def _running(db: Database, vm: str) -> Start:
    start = start_of(db, vm)
    if start is None:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", db.get("VM", vm)["power_state"].lower()])
    return start


def _locks(db: Database, vbd: str, name: str, vdi: str) -> tuple[Lock, ...]:
    locks = [Lock("VBD", vbd, name), Lock("VM", db.get("VBD", vbd)["VM"], shared=True)]
    return (*locks, Lock("VDI", vdi, shared=True)) if vdi != NULL_REF else tuple(locks)


def _closings(db: Database, vbd: str) -> list[Act]:
    return [
        Act("volume-close", {"sr": o.sr, "vdi_uuid": o.vdi_uuid, "opening_id": o.opening_id})
        for o in all_openings(db)
        if o.vbd == vbd
    ]


@operation("VBD.plug")
def plan_plug(db: Database, vbd: str, names: Names) -> Plan:
    assert_vbd(db, vbd, "plug")
    record = db.get("VBD", vbd)
    start = _running(db, record["VM"])
    number = disk_number(record["userdevice"])
    acts, opening_id = [], ""
    if not record["empty"]:
        assert_usable(db, record["VDI"], writes=record["mode"] == "RW" and record["type"] != "CD")
        act, opening_id = open_act(db, names, record["VM"], vbd)
        acts.append(act)
    args = {
        "host": start.host,
        "vm_uuid": names.vm_uuid,
        "vbd": vbd,
        "disk": disk_shape(db, vbd, opening_id),
        "device_name": disk_name(number),
    }
    acts.append(Act("disk-plug", args))
    return Plan("VBD.plug", tuple(acts), _locks(db, vbd, "plug", record["VDI"]))


@operation("VBD.unplug")
def plan_unplug(db: Database, vbd: str, name: str = "unplug") -> Plan:
    assert_vbd(db, vbd, name)
    record = db.get("VBD", vbd)
    if not record["unpluggable"]:
        raise XenApiError("VBD_NOT_UNPLUGGABLE", [vbd])
    args = {
        "host": _running(db, record["VM"]).host,
        "vm_uuid": db.get("VM", record["VM"])["uuid"],
        "vbd": vbd,
        "device": disk_number(record["userdevice"]),
    }
    acts = (Act("disk-unplug", args), *_closings(db, vbd))
    return Plan("VBD.unplug", acts, _locks(db, vbd, name, record["VDI"]))


@operation("VBD.insert")
def plan_insert(db: Database, vbd: str, vdi: str, names: Names) -> Plan:
    assert_vbd(db, vbd, "insert")
    record = db.get("VBD", vbd)
    assert_attached(db, db.get("VDI", vdi)["SR"])
    assert_usable(db, vdi, writes=False)
    acts: list[Act] = []
    host, disk, empty = "", {}, disk_shape(db, vbd, "")
    if record["currently_attached"]:
        host = _running(db, record["VM"]).host
        act, opening_id = open_act(db, names, record["VM"], vbd, vdi)
        acts.append(act)
        disk = disk_shape(db, vbd, opening_id)
    args = {"host": host, "vm_uuid": names.vm_uuid, "vbd": vbd, "vdi": vdi, "disk": disk, "empty": empty}
    acts.append(Act("medium-insert", args))
    return Plan("VBD.insert", tuple(acts), _locks(db, vbd, "insert", vdi))


@operation("VBD.eject")
def plan_eject(db: Database, vbd: str) -> Plan:
    assert_vbd(db, vbd, "eject")
    record = db.get("VBD", vbd)
    host = _running(db, record["VM"]).host if record["currently_attached"] else ""
    args = {
        "host": host,
        "vm_uuid": db.get("VM", record["VM"])["uuid"],
        "vbd": vbd,
        "empty": disk_shape(db, vbd, ""),
    }
    acts = (Act("medium-eject", args), *_closings(db, vbd))
    return Plan("VBD.eject", acts, _locks(db, vbd, "eject", record["VDI"]))


@operation("VBD.destroy")
def plan_destroy_vbd(db: Database, vbd: str) -> Plan:
    if db.get("VBD", vbd)["currently_attached"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"VBD '{db.get('VBD', vbd)['uuid']}' still attached"])
    locks = (Lock("VBD", vbd), Lock("VM", db.get("VBD", vbd)["VM"], shared=True))
    return Plan("VBD.destroy", (Act("records-write", {"destroy": [("VBD", vbd)]}),), locks)


@operation("VIF.plug")
def plan_plug_vif(db: Database, vif: str) -> Plan:
    assert_vif(db, vif, "plug")
    record = db.get("VIF", vif)
    start, vm_uuid = _running(db, record["VM"]), db.get("VM", record["VM"])["uuid"]
    assert_reachable(db, start.host, record["network"])
    nic = nic_shape(db, vif)
    acts = (
        Act("bridge-ready", {"host": start.host, "bridge": nic["bridge"], "mtu": nic["mtu"]}),
        Act("nic-plug", {"host": start.host, "vm_uuid": vm_uuid, "vif": vif, "nic": nic}),
    )
    return Plan("VIF.plug", acts, (Lock("VIF", vif, "plug"), Lock("VM", record["VM"], shared=True)))


@operation("VIF.unplug")
def plan_unplug_vif(db: Database, vif: str) -> Plan:
    assert_vif(db, vif, "unplug")
    record = db.get("VIF", vif)
    args = {
        "host": _running(db, record["VM"]).host,
        "vm_uuid": db.get("VM", record["VM"])["uuid"],
        "vif": vif,
        "device": int(record["device"]),
    }
    locks = (Lock("VIF", vif, "unplug"), Lock("VM", record["VM"], shared=True))
    return Plan("VIF.unplug", (Act("nic-unplug", args),), locks)
