"""Plans for the power states of a VM.

          start                    pause
Halted ──────────► Running ◄──────────────► Paused
   ▲                  │       unpause          │
   └── clean_shutdown ┴──────── hard_shutdown ─┘        power_state_reset: from anything to Halted

Suspended: ``suspend_plans``.
"""

from gespann.pool.model.database import Database
from gespann.pool.plan.cpu_tuning import assert_known, assert_params, tuning_of
from gespann.pool.plan.device_numbers import disk_name
from gespann.pool.plan.domain_spec import Names, disk_shape, domain_shape, nic_shape, open_act
from gespann.pool.plan.legal_moves import PAUSED, SUSPENDED, assert_vm
from gespann.pool.plan.migrate_plans import given_up
from gespann.pool.plan.placement import assert_usable, choose_host
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import disks_of, peek
from gespann.pool.plan.suspend_plans import discard_acts
from gespann.pool.plan.vm_limits import assert_vcpus
from gespann.pool.steps.openings import openings_of_vm, start_of
from gespann.seams.xenapi.datamodel import NULL_REF

CLEAN = frozenset({"VM.clean_shutdown", "VM.clean_reboot"})
MOVING_DISKS = frozenset({"VDI.pool_migrate", "VM.migrate_send"})
CUT_SHORT = CLEAN | MOVING_DISKS | {"VM.suspend"}


def _locks(db: Database, vm: str, name: str) -> list[Lock]:
    vdis = {vbd["VDI"] for _, vbd in disks_of(db, vm)} - {NULL_REF}
    return [Lock("VM", vm, name), *(Lock("VDI", vdi, shared=True) for vdi in sorted(vdis))]


@operation("VM.start")
def plan_start(
    db: Database, vm: str, names: Names, *, host: str = NULL_REF, paused: bool = False, force: bool = False
) -> Plan:
    """``force``: start a VM whose operation is blocked by nothing but advice; storage is never forced."""
    name = "start" if host == NULL_REF else "start_on"
    assert_vm(db, vm, name)
    record = db.get("VM", vm)
    chosen = choose_host(db, vm, host)
    acts = [Act("vm-claim", {"vm": vm})]
    disks, vbds = [], {}
    for vbd, vbd_record in disks_of(db, vm):
        opening_id = ""
        if not vbd_record["empty"] and vbd_record["VDI"] != NULL_REF:
            assert_usable(db, vbd_record["VDI"], writes=vbd_record["mode"] == "RW" and vbd_record["type"] != "CD")
            act, opening_id = open_act(db, names, vm, vbd)
            acts.append(act)
        elif vbd_record["type"] != "CD":
            continue
        shape = disk_shape(db, vbd, opening_id)
        disks.append(shape)
        vbds[vbd] = disk_name(shape["device"])
    vifs = sorted(record["VIFs"])
    nics = [nic_shape(db, vif) for vif in vifs]
    for bridge, mtu in sorted({nic["bridge"]: nic["mtu"] for nic in nics}.items()):
        acts.insert(1, Act("bridge-ready", {"host": chosen, "bridge": bridge, "mtu": mtu}))
    spec = domain_shape(record, names, disks, nics, paused=paused)
    acts.append(Act("domain-start", {"host": chosen, "vm": vm, "spec": spec, "vbds": vbds, "vifs": vifs}))
    return Plan(
        "VM.start",
        tuple(acts),
        (*_locks(db, vm, name), Lock("host", chosen, "vm_start", shared=True)),
        prepare=lambda tx: tx.set("VM", vm, scheduled_to_be_resident_on=chosen),
    )


def _closings(db: Database, vm: str) -> list[Act]:
    return [
        Act("volume-close", {"sr": o.sr, "vdi_uuid": o.vdi_uuid, "opening_id": o.opening_id})
        for o in openings_of_vm(db, vm)
    ]


def _host_and_start(db: Database, vm: str) -> tuple[str, str | None]:
    start = start_of(db, vm)
    return (start.host, start.start_id) if start else (db.get("VM", vm)["resident_on"], None)


@operation("VM.hard_shutdown")
def plan_hard_shutdown(db: Database, vm: str) -> Plan:
    assert_vm(db, vm, "hard_shutdown")
    if db.get("VM", vm)["power_state"] == SUSPENDED:
        return _plan_discard(db, vm)
    host, start_id = _host_and_start(db, vm)
    stop = Act("domain-stop", {"host": host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"], "start_id": start_id})
    return Plan(
        "VM.hard_shutdown",
        (stop, *_closings(db, vm)),
        tuple(_locks(db, vm, "hard_shutdown")),
        interrupts=CUT_SHORT,
    )


def _image_of(db: Database, vm: str) -> tuple[list[Act], list[Lock]]:
    """What takes a suspended VM's memory away."""
    record = db.get("VM", vm)
    image = peek(db, "VDI", record["suspend_VDI"])
    return discard_acts(record, image), [Lock("VDI", record["suspend_VDI"], "destroy")] if image is not None else []


def _plan_discard(db: Database, vm: str) -> Plan:
    """The image first: as long as the storage does not give it up, the VM can still be resumed."""
    acts, locks = _image_of(db, vm)
    return Plan(
        "VM.hard_shutdown",
        (*acts, Act("domain-forget", {"vm": vm})),
        (*_locks(db, vm, "hard_shutdown"), *locks),
    )


@operation("VM.clean_shutdown")
def plan_clean_shutdown(db: Database, vm: str) -> Plan:
    assert_vm(db, vm, "clean_shutdown")
    host, start_id = _host_and_start(db, vm)
    uuid = db.get("VM", vm)["uuid"]
    acts = (
        Act("guest-shutdown", {"host": host, "vm": vm, "vm_uuid": uuid, "reboot": False}),
        Act("domain-stop", {"host": host, "vm": vm, "vm_uuid": uuid, "start_id": start_id}),
        *_closings(db, vm),
    )
    return Plan("VM.clean_shutdown", acts, tuple(_locks(db, vm, "clean_shutdown")))


@operation("VM.clean_reboot")
def plan_clean_reboot(db: Database, vm: str) -> Plan:
    assert_vm(db, vm, "clean_reboot")
    host, _ = _host_and_start(db, vm)
    act = Act("guest-shutdown", {"host": host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"], "reboot": True})
    return Plan("VM.clean_reboot", (act,), (Lock("VM", vm, "clean_reboot"),))


@operation("VM.hard_reboot")
def plan_hard_reboot(db: Database, vm: str) -> Plan:
    assert_vm(db, vm, "hard_reboot")
    host, _ = _host_and_start(db, vm)
    record = db.get("VM", vm)
    acts = [Act("domain-restart", {"host": host, "vm_uuid": record["uuid"]})]
    if record["power_state"] == PAUSED:  # what is switched on again runs
        acts.append(Act("domain-unpause", {"host": host, "vm": vm, "vm_uuid": record["uuid"]}))
    return Plan("VM.hard_reboot", tuple(acts), (Lock("VM", vm, "hard_reboot"),), interrupts=CLEAN)


@operation("VM.pause")
def plan_pause(db: Database, vm: str) -> Plan:
    return _pause_or_not(db, vm, "pause")


@operation("VM.unpause")
def plan_unpause(db: Database, vm: str) -> Plan:
    return _pause_or_not(db, vm, "unpause")


def _pause_or_not(db: Database, vm: str, name: str) -> Plan:
    assert_vm(db, vm, name)
    host, _ = _host_and_start(db, vm)
    act = Act(f"domain-{name}", {"host": host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"]})
    return Plan(f"VM.{name}", (act,), (Lock("VM", vm, name),))


@operation("VM.set_VCPUs_number_live")
def plan_vcpus(db: Database, vm: str, vcpus: int) -> Plan:
    """Also what it starts with from now on, as in the original."""
    assert_vm(db, vm, "changing_VCPUs_live")
    record = db.get("VM", vm)
    assert_vcpus(vcpus, record["VCPUs_max"])
    metrics = peek(db, "VM_metrics", record["metrics"])
    host, _ = _host_and_start(db, vm)
    before = metrics["VCPUs_number"] if metrics is not None else record["VCPUs_at_startup"]
    held = {"host": host, "vm": vm, "vm_uuid": record["uuid"]}
    act = Act("vcpus-set", {**held, "vcpus": vcpus, "before": before})
    return Plan("VM.set_VCPUs_number_live", (act,), (Lock("VM", vm, "changing_VCPUs_live"),))


@operation("VM.add_to_VCPUs_params_live")
def plan_tune(db: Database, vm: str, key: str, value: str) -> Plan:
    """Takes the place of what the key had."""
    assert_known(key)
    assert_params({key: value})
    assert_vm(db, vm, "changing_VCPUs_live")
    record = db.get("VM", vm)
    params = {**record["VCPUs_params"], key: value}
    host, _ = _host_and_start(db, vm)
    tunings = {"tuning": tuning_of(params), "before": tuning_of(record["VCPUs_params"])}
    args = {"host": host, "vm": vm, "vm_uuid": record["uuid"], "params": params, **tunings}
    return Plan("VM.add_to_VCPUs_params_live", (Act("cpu-tune", args),), (Lock("VM", vm, "changing_VCPUs_live"),))


@operation("VM.power_state_reset")
def plan_power_state_reset(db: Database, vm: str) -> Plan:
    """The host is not asked: it may be gone for good. Its domain, if it runs after all, loses its disks. A migration is
    cancelled, or given up where one of its hosts is silent; so is the moving of a disk."""
    assert_vm(db, vm, "power_state_reset")
    discards, locks = _image_of(db, vm)
    acts = (Act("domain-forget", {"vm": vm}), *_closings(db, vm), *discards)
    return Plan(
        "VM.power_state_reset",
        acts,
        (*_locks(db, vm, "power_state_reset"), *locks),
        interrupts=MOVING_DISKS | {"VM.pool_migrate"},
        supersedes={"VM.pool_migrate": given_up},
    )


@operation("VM.stopped")
def plan_stopped(db: Database, vm: str) -> Plan:
    """The domain has stopped by itself: what is left of it goes, its volumes are closed."""
    host, start_id = _host_and_start(db, vm)
    known = peek(db, "host", host) is not None
    args = {"host": host, "vm": vm, "vm_uuid": db.get("VM", vm)["uuid"], "start_id": start_id}
    first = Act("domain-stop", args) if known else Act("domain-forget", {"vm": vm})
    return Plan("VM.stopped", (first, *_closings(db, vm)), tuple(_locks(db, vm, "")))
