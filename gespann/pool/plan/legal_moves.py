"""The legal moves, used both to refuse an operation and to advertise it (``allowed_operations``).

What is in the tables is what this pool does today: an operation of the XenAPI that is missing here is neither
advertised nor carried out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gespann.pool.plan.storage_view import Records, attached_hosts, is_live, peek
from gespann.seams.xenapi.errors import XenApiError

HALTED, PAUSED, RUNNING, SUSPENDED = "Halted", "Paused", "Running", "Suspended"
ANY = frozenset({HALTED, PAUSED, RUNNING, SUSPENDED})

#: VM operation -> power states in which it may begin
VM_MOVES: dict[str, frozenset[str]] = {
    "clone": frozenset({HALTED}),
    "copy": frozenset({HALTED}),
    "export": frozenset({HALTED, SUSPENDED}),
    "metadata_export": ANY,
    "provision": frozenset({HALTED}),
    "start": frozenset({HALTED}),
    "start_on": frozenset({HALTED}),
    "destroy": frozenset({HALTED}),
    "make_into_template": frozenset({HALTED}),
    "changing_static_range": frozenset({HALTED}),
    "changing_memory_limits": frozenset({HALTED}),
    "changing_VCPUs": frozenset({HALTED}),
    "changing_dynamic_range": frozenset({HALTED, RUNNING}),
    "changing_memory_live": frozenset({RUNNING}),
    "awaiting_memory_live": frozenset({RUNNING}),
    "changing_VCPUs_live": frozenset({RUNNING}),
    "send_sysrq": frozenset({RUNNING}),
    "send_trigger": frozenset({RUNNING}),
    "suspend": frozenset({RUNNING}),
    "resume": frozenset({SUSPENDED}),
    "resume_on": frozenset({SUSPENDED}),
    "pause": frozenset({RUNNING}),
    "unpause": frozenset({PAUSED}),
    "clean_shutdown": frozenset({RUNNING}),
    "clean_reboot": frozenset({RUNNING}),
    "shutdown": frozenset({RUNNING, PAUSED, SUSPENDED}),
    "hard_shutdown": frozenset({RUNNING, PAUSED, SUSPENDED}),
    "hard_reboot": frozenset({RUNNING, PAUSED}),
    "pool_migrate": frozenset({RUNNING}),
    "migrate_send": frozenset({HALTED, PAUSED, RUNNING}),
    "power_state_reset": ANY,
    "snapshot": ANY,
    "snapshot_with_quiesce": frozenset({RUNNING}),
    "checkpoint": frozenset({PAUSED, RUNNING, SUSPENDED}),
    "revert": ANY,
}
#: what may be done to a template
TEMPLATE_MOVES = frozenset(
    {
        "clone",
        "copy",
        "export",
        "metadata_export",
        "provision",
        "destroy",
        "changing_static_range",
        "changing_memory_limits",
        "changing_VCPUs",
        "changing_dynamic_range",
    }
)
#: what may be done to a snapshot, and to nothing else: going back to it
SNAPSHOT_MOVES = frozenset({"clone", "copy", "destroy", "export", "metadata_export", "revert", "power_state_reset"})
#: VDI operation -> capability that its SR's driver must declare ("": none)
VDI_MOVES: dict[str, str] = {
    "clone": "VDI_CLONE",
    "snapshot": "VDI_SNAPSHOT",
    "copy": "",
    "resize": "VDI_RESIZE",
    "resize_online": "VDI_RESIZE_ONLINE",
    "destroy": "VDI_DELETE",
    "forget": "",
    "update": "VDI_UPDATE",
    "enable_cbt": "VDI_SNAPSHOT",
    "disable_cbt": "VDI_SNAPSHOT",
    "list_changed_blocks": "VDI_SNAPSHOT",
    "data_destroy": "VDI_SNAPSHOT",
    "mirror": "VDI_DELETE",
}
_NEEDS_NO_USER = frozenset({"destroy", "forget", "resize", "copy", "list_changed_blocks", "data_destroy"})
#: what a VDI is whose data has been destroyed, and what cannot be done to it then
METADATA_TYPE = "cbt_metadata"
_NEEDS_DATA = frozenset({"clone", "snapshot", "copy", "mirror", "resize", "resize_online", "enable_cbt", "disable_cbt"})
#: what cannot be done to one that its storage has lost; it can be destroyed, forgotten, and described anew
_NEEDS_VOLUME = frozenset(VDI_MOVES) - {"destroy", "forget", "update"}
#: SR operation -> capability
SR_MOVES: dict[str, str] = {
    "scan": "",
    "destroy": "",
    "forget": "",
    "plug": "",
    "unplug": "",
    "update": "SR_UPDATE",
    "vdi_create": "VDI_CREATE",
    "vdi_introduce": "",
    "vdi_destroy": "VDI_DELETE",
    "vdi_resize": "VDI_RESIZE",
    "vdi_resize_online": "VDI_RESIZE_ONLINE",
    "vdi_clone": "VDI_CLONE",
    "vdi_snapshot": "VDI_SNAPSHOT",
    "vdi_data_destroy": "VDI_SNAPSHOT",
    "vdi_copy": "",
    "vdi_update": "VDI_UPDATE",
    "vdi_forget": "",
    "pbd_create": "",
    "pbd_destroy": "",
}
_NEEDS_ATTACHED_SR = frozenset(SR_MOVES) - {"destroy", "forget", "plug", "pbd_create", "pbd_destroy", "vdi_forget"}
Capabilities = Callable[[str], frozenset[str]]  # of an SR type


def other_operation(class_name: str, ref: str, record: Mapping[str, Any], beside: frozenset[str] = frozenset()) -> None:
    """Refuses while another operation is under way, unless that is one of ``beside``."""
    for holder, doing in record["current_operations"].items():
        if doing not in beside:
            raise XenApiError("OTHER_OPERATION_IN_PROGRESS", [class_name, ref, doing, holder])


# -- VM

_INTERRUPTS = {
    "hard_shutdown": frozenset({"clean_shutdown", "clean_reboot", "shutdown", "suspend", "migrate_send"}),
    "hard_reboot": frozenset({"clean_shutdown", "clean_reboot"}),
    "power_state_reset": frozenset({"pool_migrate", "migrate_send"}),
}


#: these only read a VM, and go together
_VM_BESIDE = frozenset({"clone", "copy", "export", "metadata_export"})


def assert_vm(records: Records, vm: str, operation: str) -> None:
    """VM_BAD_POWER_STATE, VM_IS_TEMPLATE, OPERATION_BLOCKED, OTHER_OPERATION_IN_PROGRESS or OPERATION_NOT_ALLOWED."""
    record = records.get("VM", vm)
    states = VM_MOVES.get(operation)
    if states is None:
        raise XenApiError("NOT_IMPLEMENTED", [f"VM.{operation}"])
    beside = _VM_BESIDE if operation in _VM_BESIDE else _INTERRUPTS.get(operation, frozenset())
    other_operation("VM", vm, record, beside)
    if operation in record["blocked_operations"]:
        raise XenApiError("OPERATION_BLOCKED", [vm, record["blocked_operations"][operation]])
    if record["is_control_domain"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["This operation is not allowed on a control domain"])
    if operation == "revert" and not record["is_a_snapshot"]:
        raise XenApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT", [])
    if record["is_a_snapshot"] and operation not in SNAPSHOT_MOVES:
        raise XenApiError("VM_IS_SNAPSHOT", [vm, operation])
    if record["is_a_template"] and not record["is_a_snapshot"] and operation not in TEMPLATE_MOVES:
        raise XenApiError("VM_IS_TEMPLATE", [vm])
    if operation == "destroy" and record["is_default_template"]:
        raise XenApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", [vm])
    if record["power_state"] not in (ANY if record["is_a_snapshot"] else states):
        expected = ", ".join(sorted(state.lower() for state in states))
        raise XenApiError("VM_BAD_POWER_STATE", [vm, expected, record["power_state"].lower()])


def allowed_vm(records: Records, vm: str) -> list[str]:
    return [name for name in VM_MOVES if _passes(assert_vm, records, vm, name)]


# -- VDI


#: these only read a VDI, and go together
_BESIDE = frozenset({"clone", "copy", "snapshot", "list_changed_blocks"})


def vdi_in_use(records: Records, vdi: str) -> bool:
    return any(records.get("VBD", vbd)["currently_attached"] for vbd in records.get("VDI", vdi)["VBDs"])


def holds_memory(records: Records, vdi: str) -> bool:
    """It is what a suspended VM would go on from."""
    return records.get("VDI", vdi)["type"] == "suspend" and bool(records.where("VM", suspend_VDI=vdi))


def assert_vdi(records: Records, vdi: str, operation: str, capabilities: Capabilities) -> None:
    """VDI_IN_USE, SR_OPERATION_NOT_SUPPORTED, OTHER_OPERATION_IN_PROGRESS, VDI_NOT_MANAGED, SR_NOT_ATTACHED."""
    record = records.get("VDI", vdi)
    needed = VDI_MOVES.get(operation)
    if needed is None:
        raise XenApiError("NOT_IMPLEMENTED", [f"VDI.{operation}"])
    other_operation("VDI", vdi, record, _BESIDE if operation in _BESIDE else frozenset())
    sr = records.get("SR", record["SR"])
    if needed and needed not in capabilities(sr["type"]):
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [record["SR"]])
    if not record["managed"] and operation != "forget":
        raise XenApiError("VDI_NOT_MANAGED", [vdi])
    if record["missing"] and operation in _NEEDS_VOLUME:
        raise XenApiError("VDI_MISSING", [record["SR"], vdi])
    if record["type"] == METADATA_TYPE and operation in _NEEDS_DATA:
        raise XenApiError("VDI_INCOMPATIBLE_TYPE", [vdi, METADATA_TYPE])
    if operation == "data_destroy" and not record["is_a_snapshot"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"VDI is not a snapshot: {vdi}"])
    if operation == "data_destroy" and not record["cbt_enabled"]:
        raise XenApiError("VDI_NO_CBT_METADATA", [vdi])
    if operation != "forget" and not attached_hosts(records, record["SR"]):
        raise XenApiError("SR_NOT_ATTACHED" if sr["PBDs"] else "SR_HAS_NO_PBDS", [record["SR"]])
    if operation in _NEEDS_NO_USER and vdi_in_use(records, vdi):
        raise XenApiError("VDI_IN_USE", [vdi, operation])
    if operation in ("destroy", "forget", "resize", "resize_online", "mirror") and holds_memory(records, vdi):
        raise XenApiError("VDI_IN_USE", [vdi, operation])
    if operation == "mirror":
        _assert_movable(records, vdi, record)


def _assert_movable(records: Records, vdi: str, record: Mapping[str, Any]) -> None:
    """Its contents can go elsewhere: what is made of it stays comparable with it only where both are."""
    for why in ("is_a_snapshot", "sharable", "read_only"):
        if record[why]:
            raise XenApiError("OPERATION_NOT_ALLOWED", [f"A VDI that is {why.removeprefix('is_')} is not moved"])
    if record["cbt_enabled"]:
        raise XenApiError("VDI_CBT_ENABLED", [vdi])
    vbds = [records.get("VBD", vbd) for vbd in record["VBDs"]]
    for vbd in (vbd for vbd in vbds if vbd["currently_attached"]):
        vm = peek(records, "VM", vbd["VM"])
        running = vm is not None and vm["power_state"] in (RUNNING, PAUSED)
        if not running or vbd["mode"] == "RO" or vbd["type"] == "CD":
            raise XenApiError("VDI_IN_USE", [vdi, "mirror"])


def allowed_vdi(records: Records, vdi: str, capabilities: Capabilities) -> list[str]:
    return [name for name in VDI_MOVES if _passes(assert_vdi, records, vdi, name, capabilities)]


# -- VBD and VIF


def assert_vbd(records: Records, vbd: str, operation: str) -> None:
    record = records.get("VBD", vbd)
    other_operation("VBD", vbd, record)
    vm = peek(records, "VM", record["VM"])
    if vm is None:
        raise XenApiError("HANDLE_INVALID", ["VM", record["VM"]])
    if operation == "attach":
        if record["currently_attached"]:
            raise XenApiError("DEVICE_ALREADY_ATTACHED", [vbd])
        return
    if operation in ("insert", "eject"):
        if record["type"] != "CD":
            raise XenApiError("VBD_NOT_REMOVABLE_MEDIA", [vbd])
        if operation == "insert" and not record["empty"]:
            raise XenApiError("VBD_NOT_EMPTY", [vbd])
        if operation == "eject" and record["empty"]:
            raise XenApiError("VBD_IS_EMPTY", [vbd])
        if vm["power_state"] not in (HALTED, RUNNING):
            raise XenApiError("VM_BAD_POWER_STATE", [record["VM"], "halted, running", vm["power_state"].lower()])
        return
    other_operation("VM", record["VM"], vm)  # its power state is on its way
    if vm["power_state"] != RUNNING:
        raise XenApiError("VM_BAD_POWER_STATE", [record["VM"], "running", vm["power_state"].lower()])
    if operation == "plug":
        if record["currently_attached"]:
            raise XenApiError("DEVICE_ALREADY_ATTACHED", [vbd])
        if record["empty"] and record["type"] != "CD":
            raise XenApiError("VBD_IS_EMPTY", [vbd])
    elif not record["currently_attached"]:
        raise XenApiError("DEVICE_ALREADY_DETACHED", [vbd])


def allowed_vbd(records: Records, vbd: str) -> list[str]:
    names = ("attach", "eject", "insert", "plug", "unplug", "unplug_force")
    return [name for name in names if _passes(assert_vbd, records, vbd, name)]


def assert_vif(records: Records, vif: str, operation: str) -> None:
    record = records.get("VIF", vif)
    other_operation("VIF", vif, record)
    vm = peek(records, "VM", record["VM"])
    if vm is None:
        raise XenApiError("HANDLE_INVALID", ["VM", record["VM"]])
    if operation in ("plug", "unplug"):
        other_operation("VM", record["VM"], vm)
        if vm["power_state"] != RUNNING:
            raise XenApiError("VM_BAD_POWER_STATE", [record["VM"], "running", vm["power_state"].lower()])
    if operation != "unplug" and record["currently_attached"]:
        raise XenApiError("DEVICE_ALREADY_ATTACHED", [vif])
    if operation == "unplug" and not record["currently_attached"]:
        raise XenApiError("DEVICE_ALREADY_DETACHED", [vif])


def allowed_vif(records: Records, vif: str) -> list[str]:
    return [name for name in ("attach", "plug", "unplug") if _passes(assert_vif, records, vif, name)]


# -- SR, host, pool


def assert_sr(records: Records, sr: str, operation: str, capabilities: Capabilities) -> None:
    record = records.get("SR", sr)
    if operation in ("scan", "destroy", "forget", "plug", "unplug"):
        other_operation("SR", sr, record)
    needed = SR_MOVES.get(operation)
    if needed is None:
        raise XenApiError("NOT_IMPLEMENTED", [f"SR.{operation}"])
    if needed and needed not in capabilities(record["type"]):
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [sr])
    attached = attached_hosts(records, sr)
    if operation in ("destroy", "forget") and attached:
        raise XenApiError("SR_HAS_PBD", [sr])
    if operation in _NEEDS_ATTACHED_SR and not attached:
        raise XenApiError("SR_NOT_ATTACHED" if record["PBDs"] else "SR_HAS_NO_PBDS", [sr])
    if operation == "destroy" and record["other_config"].get("indestructible") == "true":
        raise XenApiError("SR_INDESTRUCTIBLE", [sr])


def allowed_sr(records: Records, sr: str, capabilities: Capabilities) -> list[str]:
    return [name for name in SR_MOVES if _passes(assert_sr, records, sr, name, capabilities)]


def allowed_host(records: Records, host: str) -> list[str]:
    record = records.get("host", host)
    live = is_live(records, host)
    if not record["enabled"]:
        return ["provision", "enable", *(["evacuate", "reboot", "shutdown"] if live else [])]
    return ["provision", *(["evacuate", "vm_migrate", "vm_resume", "vm_start"] if live else [])]


def _passes(check: Callable[..., None], *args: Any) -> bool:
    try:
        check(*args)
    except XenApiError:
        return False
    return True
