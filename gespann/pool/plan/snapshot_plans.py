"""Plans for snapshots: of one VDI, of a whole VM at one instant, and back to it.

What is consistent: volumes of one SR go together in one call of its driver, as many as it takes. Where that is not
enough (more disks, several SRs), the machine is paused from the first call to the last, so that no later write can be
in one snapshot while an earlier one is missing in another. A quiet guest is held instead; it writes nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from gespann.pool.model.database import Database, new_ref
from gespann.pool.plan.disk_plans import KEPT_BY_COPY, NewDisk, cloned_disk, spec_of
from gespann.pool.plan.legal_moves import (
    HALTED,
    METADATA_TYPE,
    RUNNING,
    Capabilities,
    assert_vdi,
    assert_vm,
    other_operation,
)
from gespann.pool.plan.lineage import SOURCE_KEY
from gespann.pool.plan.machine_plans import copied_devices, copy_of_vm, restored_fields
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import disks_of, peek
from gespann.pool.plan.suspend_plans import KeptMemory, kept_memory, memory_back
from gespann.pool.steps.openings import start_of
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

Together = Callable[[str], int]  # SR type -> how many volumes its driver takes at one instant
Records = list[tuple[str, str, dict[str, Any]]]


@dataclass
class SnapshotDisks:
    """The snapshots to be, per VDI of the source; ``acts`` make them."""

    disks: dict[str, NewDisk] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    srs: set[str] = field(default_factory=set)


def snapshot_disks(
    db: Database, vdis: Sequence[str], capabilities: Capabilities, together: Together, now: str
) -> SnapshotDisks:
    """``now``: as the XenAPI writes times. The plan's lock on each VDI is its caller's."""
    made = SnapshotDisks()
    by_sr: dict[str, list[dict[str, Any]]] = {}
    for vdi in dict.fromkeys(vdis):
        assert_vdi(db, vdi, "snapshot", capabilities)
        source = db.get("VDI", vdi)
        uuid, ref = str(uuid4()), new_ref()
        kept = {name: source[name] for name in KEPT_BY_COPY}
        record = {
            **kept,
            **{name: source[name] for name in ("SR", "sharable", "read_only", "managed", "cbt_enabled")},
            **{"uuid": uuid, "volume": uuid, "is_a_snapshot": True, "snapshot_of": vdi, "snapshot_time": now},
        }
        spec = spec_of({**source, "uuid": uuid})
        by_sr.setdefault(source["SR"], []).append({"source_vdi_uuid": source["uuid"], "vdi": vdi, "spec": spec})
        made.disks[vdi] = NewDisk(ref, uuid, (), ("VDI", ref, record))
    for sr, wanted in by_sr.items():
        most = max(1, together(db.get("SR", sr)["type"]))
        made.srs.add(sr)
        for first in range(0, len(wanted), most):
            chunk = [{key: one[key] for key in ("source_vdi_uuid", "spec")} for one in wanted[first : first + most]]
            made.acts.append(Act("volume-snapshots", {"sr": sr, "vdi": wanted[first]["vdi"], "snapshots": chunk}))
    return made


def locks_of(disks: SnapshotDisks) -> list[Lock]:
    locks = [Lock("VDI", vdi, "snapshot", shared=True) for vdi in sorted(disks.disks)]
    return locks + [Lock("SR", sr, "vdi_snapshot", shared=True) for sr in sorted(disks.srs)]


@operation("VDI.snapshot")
def plan_vdi_snapshot(db: Database, vdi: str, capabilities: Capabilities, now: str) -> Plan:
    made = snapshot_disks(db, [vdi], capabilities, lambda sr_type: 1, now)
    disk = made.disks[vdi]
    acts = (*made.acts, Act("records-write", {"create": [disk.record]}))
    return Plan("VDI.snapshot", acts, tuple(locks_of(made)), result=disk.ref)


@operation("VM.snapshot")
def plan_snapshot(
    db: Database,
    vm: str,
    new_name: str,
    capabilities: Capabilities,
    together: Together,
    now: str,
    *,
    ignored: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> Plan:
    """``ignored``: VDIs left out, with their VBDs. ``fields``: more of its record. That of a suspended VM has
    its memory, and is suspended, too."""
    assert_vm(db, vm, "snapshot")
    made = snapshot_disks(db, disks_to_snapshot(db, vm, ignored), capabilities, together, now)
    memory = kept_memory(db, vm, capabilities)
    acts = made.acts
    if len(acts) > 1 and db.get("VM", vm)["power_state"] == RUNNING:
        acts = [Act("domain-pause", _domain(db, vm)), *acts, Act("domain-unpause", _domain(db, vm))]
    return _finish(db, vm, "snapshot", new_name, acts, made, now, ignored, dict(fields or {}), memory)


@operation("VM.snapshot_with_quiesce")
def plan_quiet_snapshot(
    db: Database,
    vm: str,
    new_name: str,
    capabilities: Capabilities,
    together: Together,
    now: str,
    *,
    fields: Mapping[str, Any] | None = None,
) -> Plan:
    assert_vm(db, vm, "snapshot_with_quiesce")
    made = snapshot_disks(db, disks_to_snapshot(db, vm), capabilities, together, now)
    acts = [Act("guest-freeze", _domain(db, vm)), *made.acts, Act("guest-thaw", _domain(db, vm))]
    return _finish(db, vm, "snapshot_with_quiesce", new_name, acts, made, now, (), dict(fields or {}))


def disks_to_snapshot(db: Database, vm: str, ignored: Sequence[str] = ()) -> list[str]:
    vbds = [vbd for _, vbd in disks_of(db, vm) if vbd["type"] == "Disk" and vbd["VDI"] != NULL_REF]
    return [vbd["VDI"] for vbd in vbds if vbd["VDI"] not in ignored]


def _domain(db: Database, vm: str) -> dict[str, Any]:
    start = start_of(db, vm)
    if start is None:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", db.get("VM", vm)["power_state"].lower()])
    return {"host": start.host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"]}


def _finish(
    db: Database,
    vm: str,
    name: str,
    new_name: str,
    acts: list[Act],
    made: SnapshotDisks,
    now: str,
    ignored: Sequence[str],
    fields: dict[str, Any],
    memory: KeptMemory | None = None,
) -> Plan:
    kept = memory or KeptMemory({}, [])
    quiet = name == "snapshot_with_quiesce"
    fields = {**fields, **kept.fields}
    ref, records = snapshot_of_vm(db, vm, new_name, made.disks, now, ignored, quiet=quiet, fields=fields)
    write = Act("records-write", {"create": [*kept.records, *records], "set": [("VM", vm, {"parent": ref})]})
    locks = (Lock("VM", vm, name), *locks_of(made), *kept.locks)
    return Plan(f"VM.{name}", (*acts, *kept.acts, write), locks, result=ref)


def snapshot_of_vm(
    db: Database,
    vm: str,
    new_name: str,
    disks: Mapping[str, NewDisk],
    now: str,
    ignored: Sequence[str] = (),
    *,
    quiet: bool = False,
    fields: Mapping[str, Any] | None = None,
) -> tuple[str, Records]:
    """The snapshot's records: those of a copy that is a template, keeps its network addresses, and remembers what it is
    of. ``disks``: VDI -> its snapshot."""
    source = db.get("VM", vm)
    by_vbd = {vbd: disks[rec["VDI"]] for vbd, rec in disks_of(db, vm) if rec["type"] == "Disk" and rec["VDI"] in disks}
    left_out = [vbd for vbd, rec in disks_of(db, vm) if rec["VDI"] in ignored]
    ref, records = copy_of_vm(db, vm, new_name, by_vbd, keep_macs=True, left_out=left_out)
    own = {
        "is_a_template": True,
        "is_a_snapshot": True,
        "snapshot_of": vm,
        "snapshot_time": now,
        "parent": source["parent"],
        "snapshot_info": {
            "power-state-at-snapshot": source["power_state"],
            "disk-snapshot-type": "quiesced" if quiet else "crash_consistent",
        },
        "snapshot_metadata": json.dumps(restored_fields(source), sort_keys=True),
        "other_config": source["other_config"],
        **(fields or {}),
    }
    return ref, [(cls, at, {**rec, **own} if at == ref else rec) for cls, at, rec in records]


# -- back


@operation("VM.revert")
def plan_revert(db: Database, snapshot: str, capabilities: Capabilities) -> Plan:
    """The VM must be halted. Disks that the snapshot knows become what they were, in place where the storage can, else
    as copies; disks that it does not know stay, plugged nowhere."""
    assert_vm(db, snapshot, "revert")
    record = db.get("VM", snapshot)
    vm = record["snapshot_of"]
    if peek(db, "VM", vm) is None:
        raise XenApiError("VM_REVERT_FAILED", [vm, snapshot])
    assert_halted(db, vm)
    way = _Way(db, {vbd["VDI"] for _, vbd in disks_of(db, vm)}, capabilities)
    for _, vbd in disks_of(db, snapshot):
        if vbd["type"] == "Disk" and vbd["VDI"] != NULL_REF:
            way.take_back(vbd["VDI"])
    memory = memory_back(db, record, copied_devices(db, snapshot, vm, way.disks), capabilities)
    change = {
        "create": [*way.create, *memory.records],
        "set": [*way.changed, ("VM", vm, {**_metadata(record), **memory.fields, "parent": snapshot})],
        "destroy": [(cls, ref) for cls in ("VBD", "VIF") for ref in db.get("VM", vm)[f"{cls}s"]],
    }
    acts = (*way.acts, *memory.acts, Act("records-for-good", change), *way.afterwards)
    locks = [Lock("VM", vm, "reverting"), Lock("VM", snapshot, "revert"), *memory.locks]
    locks += [Lock("VDI", vdi) for vdi in way.held]
    locks += [Lock("SR", sr, "vdi_snapshot", shared=True) for sr in sorted(way.srs)]
    return Plan("VM.revert", acts, tuple(locks))


@operation("VDI.revert")
def plan_vdi_revert(db: Database, snapshot: str, capabilities: Capabilities) -> Plan:
    """One disk, in place, while nobody has it plugged. UNIMPLEMENTED_IN_SM_BACKEND where the storage cannot."""
    record = db.get("VDI", snapshot)
    if not record["is_a_snapshot"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"VDI is not a snapshot: {snapshot}"])
    current = record["snapshot_of"]
    db.get("VDI", current)
    if "VDI_REVERT" not in capabilities(db.get("SR", record["SR"])["type"]) or not is_own(db, snapshot, current):
        raise XenApiError("UNIMPLEMENTED_IN_SM_BACKEND", [record["SR"]])
    for side in (snapshot, current):
        other_operation("VDI", side, db.get("VDI", side))
    if record["type"] == METADATA_TYPE:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [snapshot, METADATA_TYPE])
    assert_writable_alone(db, current)
    way = _Way(db, {current}, capabilities)
    way.take_back(snapshot)
    acts = (*way.acts, Act("records-for-good", {"set": way.changed}), *way.afterwards)
    locks = [Lock("VDI", vdi) for vdi in way.held]
    locks += [Lock("SR", sr, "vdi_snapshot", shared=True) for sr in sorted(way.srs)]
    return Plan("VDI.revert", acts, tuple(locks))


def assert_writable_alone(db: Database, vdi: str) -> None:
    """VDI_IN_USE: also by a machine that is suspended, which counts on what its disks held."""
    record = db.get("VDI", vdi)
    if record["read_only"]:
        raise XenApiError("VDI_READONLY", [vdi])
    for vbd in record["VBDs"]:
        user = db.get("VBD", vbd)
        if user["currently_attached"] or db.get("VM", user["VM"])["power_state"] != HALTED:
            raise XenApiError("VDI_IN_USE", [vdi, "revert"])


def is_own(db: Database, snapshot: str, current: str) -> bool:
    """The storage made it of this very volume, and not of one that it is a copy of."""
    return bool(db.get("VDI", current)["uuid"] == db.get("VDI", snapshot)["sm_config"].get(SOURCE_KEY))


def assert_halted(db: Database, vm: str) -> None:
    record = db.get("VM", vm)
    other_operation("VM", vm, record)
    if record["power_state"] != HALTED:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "halted", record["power_state"].lower()])


def _metadata(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(snapshot["snapshot_metadata"])) if snapshot["snapshot_metadata"] else {}


class _Way:
    """Collects what has to be done for each disk of a snapshot. ``mine``: what may go back in place. ``disks``: VDI of
    the snapshot -> of the VM."""

    def __init__(self, db: Database, mine: set[str], capabilities: Capabilities) -> None:
        self.db, self.mine, self.capabilities = db, mine, capabilities
        self.acts: list[Act] = []
        self.afterwards: list[Act] = []
        self.create: Records = []
        self.changed: Records = []
        self.disks: dict[str, str] = {}
        self.held: list[str] = []
        self.srs: set[str] = set()

    def take_back(self, snapshot: str) -> None:
        record = self.db.get("VDI", snapshot)
        if record["missing"]:
            raise XenApiError("VDI_MISSING", [record["SR"], snapshot])
        current = record["snapshot_of"] if record["snapshot_of"] in self.mine else NULL_REF
        self.srs.add(record["SR"])
        self.held.append(snapshot)
        if current != NULL_REF:
            self.held.append(current)
            assert_vdi(self.db, current, "destroy", self.capabilities)  # nobody else has it plugged
        can = self.capabilities(self.db.get("SR", record["SR"])["type"])
        if current != NULL_REF and is_own(self.db, snapshot, current) and "VDI_REVERT" in can:
            self._in_place(snapshot, current)
        else:
            self._by_copy(snapshot, current)

    def _in_place(self, snapshot: str, current: str) -> None:
        vdi = self.db.get("VDI", current)
        kept = str(uuid4())
        place = {"sr": vdi["SR"], "vdi": current, "vdi_uuid": vdi["uuid"]}
        spec = spec_of({**vdi, "uuid": kept})
        args = {**place, "snapshot_uuid": self.db.get("VDI", snapshot)["uuid"], "spec": spec}
        self.acts.append(Act("volume-restore", args))
        self.afterwards.append(Act("volume-destroy", {"sr": vdi["SR"], "vdi": "", "vdi_uuid": kept}))
        self.changed.append(("VDI", current, {"volume": vdi["uuid"]}))
        self.disks[snapshot] = current

    def _by_copy(self, snapshot: str, current: str) -> None:
        """The other snapshots of the same disk are then snapshots of the copy, as far as the pool is concerned."""
        disk = cloned_disk(self.db, snapshot, self.capabilities, "clone")
        self.acts += disk.acts
        self.create.append(disk.record)
        self.disks[snapshot] = disk.ref
        source = self.db.get("VDI", snapshot)["sm_config"].get(SOURCE_KEY)
        for ref, record in self.db.all("VDI").items():
            if record["is_a_snapshot"] and source and record["sm_config"].get(SOURCE_KEY) == source:
                self.changed.append(("VDI", ref, {"snapshot_of": disk.ref}))
        if current != NULL_REF:
            vdi = self.db.get("VDI", current)
            self.afterwards.append(Act("volume-destroy", {"sr": vdi["SR"], "vdi": current, "vdi_uuid": vdi["uuid"]}))
