"""The plans for VDIs that move to other SRs.

One that no VM runs with is copied whole, then its users are given the copy, then the old one goes:

    volume made ► opened ► bytes copied ► closed ═► VBDs name the copy ► old volume gone
                                          (point of no return)

While a VM runs with it, its host copies it, and what the guest writes meanwhile too (``steps/mirror_steps.py``).
Several disks of one VM go together: all have been copied before the guest gets the first of the new volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.device_numbers import disk_number
from gespann.pool.plan.disk_plans import KEPT_BY_COPY, NewDisk, new_disk, streamed_disk
from gespann.pool.plan.domain_spec import Names, open_act
from gespann.pool.plan.legal_moves import PAUSED, RUNNING, Capabilities, assert_sr, assert_vdi, assert_vm, vdi_in_use
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.steps.openings import OpenVolume, Start, openings_of_vm, start_of
from gespann.seams.xenapi.errors import XenApiError

#: what the XenAPI calls a VDI's moving, and its VM's meanwhile, in their current_operations
DOING, VM_DOING = "mirror", "migrate_send"


def runs_with(db: Database, vdi: str) -> str | None:
    """The VM that runs, or is paused, with this VDI plugged; none if there is no such VM."""
    for ref in db.get("VDI", vdi)["VBDs"]:
        vbd = db.get("VBD", ref)
        if vbd["currently_attached"] and db.get("VM", vbd["VM"])["power_state"] in (RUNNING, PAUSED):
            return str(vbd["VM"])
    return None


def _assert_moves(db: Database, vdi: str, sr: str, capabilities: Capabilities) -> None:
    record = db.get("VDI", vdi)
    if db.get("SR", sr) and sr == record["SR"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["The VDI is on that SR already"])
    assert_vdi(db, vdi, DOING, capabilities)
    assert_sr(db, record["SR"], "vdi_destroy", capabilities)
    assert_sr(db, sr, "vdi_create", capabilities)


def _locks(db: Database, vdi: str, sr: str) -> tuple[Lock, ...]:
    return (
        Lock("VDI", vdi, DOING),
        Lock("SR", db.get("VDI", vdi)["SR"], "vdi_destroy", shared=True),
        Lock("SR", sr, "vdi_create", shared=True),
    )


@operation("VDI.pool_migrate")
def plan_move(db: Database, vdi: str, sr: str, capabilities: Capabilities, prefix: str) -> Plan:
    """Of a VDI that nobody has plugged. Its snapshots stay where they are."""
    _assert_moves(db, vdi, sr, capabilities)
    if vdi_in_use(db, vdi):
        raise XenApiError("VDI_IN_USE", [vdi, DOING])
    record = db.get("VDI", vdi)
    disk = streamed_disk(db, vdi, sr, capabilities, prefix)
    old = {"sr": record["SR"], "vdi": vdi, "vdi_uuid": record["uuid"]}
    acts = (*disk.acts, Act("vdi-switch", {"vdi": vdi, "new": disk.record}), Act("volume-destroy", old))
    return Plan("VDI.pool_migrate", acts, _locks(db, vdi, sr), result=disk.ref)


@operation("VDI.pool_migrate")
def plan_move_live(db: Database, vdi: str, sr: str, capabilities: Capabilities, vm: str, names: Names) -> Plan:
    """Of a VDI that this VM runs with."""
    return _live(db, "VDI.pool_migrate", vm, {vdi: sr}, capabilities, names)


@operation("VM.migrate_send")
def plan_move_disks(db: Database, vm: str, wanted: Mapping[str, str], capabilities: Capabilities, names: Names) -> Plan:
    """``wanted``: VDI -> SR, of disks that this VM runs with."""
    return _live(db, "VM.migrate_send", vm, wanted, capabilities, names)


@dataclass(frozen=True)
class _Moving:
    """``acts`` make and open the new volume; ``move`` as the steps take it."""

    acts: tuple[Act, ...]
    move: dict[str, Any]


def _live(
    db: Database, name: str, vm: str, wanted: Mapping[str, str], capabilities: Capabilities, names: Names
) -> Plan:
    assert_vm(db, vm, VM_DOING)
    start = start_of(db, vm)
    if start is None:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", db.get("VM", vm)["power_state"].lower()])
    opened = {opening.vbd: opening for opening in openings_of_vm(db, vm)}
    moving = [_moving(db, vm, start, vdi, sr, capabilities, names, opened) for vdi, sr in sorted(wanted.items())]
    machine = {"host": start.host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"]}
    meant = {**machine, "start_id": start.start_id}
    moves = [one.move for one in moving]
    runs = {"runs": db.get("VM", vm)["power_state"] == RUNNING}
    acts = [act for one in moving for act in one.acts]
    for move in moves:
        mirrored = {"device": move["device"], "vdi": move["vdi"], "opening_id": move["new_opening_id"]}
        mirrored["new_uuid"] = move["new_uuid"]
        acts.append(Act("disk-mirror", {**meant, **mirrored}))
    acts += [
        Act("disk-hold", {**machine, **runs}),
        Act("disk-pivot", {**meant, "moves": moves}),
        Act("disk-go-on", {**machine, **runs, "moves": moves}),
        *(Act("volume-settle", {**machine, **move}) for move in moves),
    ]
    locks = [Lock("VM", vm, VM_DOING), *(lock for vdi, sr in wanted.items() for lock in _locks(db, vdi, sr))]
    result = moves[0]["new"][1] if name.startswith("VDI.") else vm
    return Plan(name, tuple(acts), tuple(locks), result=result)


def _moving(
    db: Database,
    vm: str,
    start: Start,
    vdi: str,
    sr: str,
    capabilities: Capabilities,
    names: Names,
    opened: Mapping[str, OpenVolume],
) -> _Moving:
    _assert_moves(db, vdi, sr, capabilities)
    vbd = next((ref for ref in db.get("VM", vm)["VBDs"] if db.get("VBD", ref)["VDI"] == vdi and ref in opened), None)
    if vbd is None or runs_with(db, vdi) != vm:
        raise XenApiError("VDI_IN_USE", [vdi, DOING])
    if start.host not in attached_hosts(db, sr):
        raise XenApiError("HOST_CANNOT_SEE_SR", [start.host, sr])
    record, disk = db.get("VDI", vdi), _copy_of(db, vdi, sr)
    act, opening_id = open_act(db, names, vm, vbd)
    opening = Act(act.step, {**act.args, "sr": sr, "vdi": disk.ref, "vdi_uuid": disk.uuid})
    old = opened[vbd]
    move = {
        **{"vdi": vdi, "vdi_uuid": record["uuid"], "sr": old.sr, "opening_id": old.opening_id},
        **{"new": disk.record, "new_uuid": disk.uuid, "new_sr": sr, "new_opening_id": opening_id},
        **{"device": disk_number(db.get("VBD", vbd)["userdevice"]), "vbd": vbd, "size_bytes": record["virtual_size"]},
    }
    return _Moving((*disk.acts, opening, Act("disk-mirror-name", {"opening_id": opening_id})), move)


def _copy_of(db: Database, vdi: str, sr: str) -> NewDisk:
    source = db.get("VDI", vdi)
    sm_config = {key: value for key, value in source["sm_config"].items() if key == "allocation"}
    kept = {name: source[name] for name in KEPT_BY_COPY}
    size_bytes = source["virtual_size"]
    return new_disk(
        sr, {**kept, "virtual_size": size_bytes, "sharable": False, "read_only": False, "sm_config": sm_config}
    )
