"""XenAPI class VM: made, copied, sized, taken away."""

from typing import Any
from uuid import uuid4

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.classes.context import capabilities_of, set_fields, work_of
from gespann.pool.plan import device_numbers, legal_moves, machine_plans, vm_limits
from gespann.seams.xenapi.errors import XenApiError

#: what a constructor may say; anything else of a VM record follows from what happens to it
_GIVEN = frozenset(
    {
        *("name_label", "name_description", "user_version", "is_a_template", "affinity", "memory_static_max"),
        *("memory_dynamic_max", "memory_dynamic_min", "memory_static_min", "VCPUs_params", "VCPUs_max"),
        *("VCPUs_at_startup", "actions_after_softreboot", "actions_after_shutdown", "actions_after_reboot"),
        *("actions_after_crash", "PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args"),
        *("PV_legacy_args", "HVM_boot_policy", "HVM_boot_params", "HVM_shadow_multiplier", "platform", "PCI_bus"),
        *("other_config", "recommendations", "xenstore_data", "ha_always_run", "ha_restart_priority", "tags"),
        *("blocked_operations", "start_delay", "shutdown_delay", "order", "suspend_SR", "version", "generation_id"),
        *("hardware_platform_version", "has_vendor_device", "reference_label", "domain_type", "NVRAM"),
    }
)


@implements("VM.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    fields = {name: value for name, value in args.items() if name in _GIVEN}
    vm_limits.assert_vcpus(fields["VCPUs_at_startup"], fields["VCPUs_max"])
    vm_limits.assert_memory(*(fields[name] for name in vm_limits.MEMORY_FIELDS))
    fields["other_config"] = {"mac_seed": str(uuid4()), **fields.get("other_config", {})}
    if fields.get("domain_type", "unspecified") == "unspecified":
        fields["domain_type"] = "hvm"
    with call.pool.db.transaction() as tx:
        return tx.create("VM", {**fields, "domid": -1})


@implements("VM.clone")
async def clone(call: Call, vm: str, new_name: str) -> str:
    pool = call.pool
    return str(
        await work_of(pool).run(
            lambda: machine_plans.plan_clone(pool.db, vm, new_name, capabilities_of(pool)), task=call.task
        )
    )


@implements("VM.copy")
async def copy(call: Call, vm: str, new_name: str, sr: str) -> str:
    pool = call.pool
    return str(
        await work_of(pool).run(
            lambda: machine_plans.plan_copy(pool.db, vm, new_name, sr, capabilities_of(pool), pool.iscsi_prefix),
            task=call.task,
        )
    )


@implements("VM.provision")
async def provision(call: Call, vm: str) -> None:
    pool = call.pool
    await work_of(pool).run(lambda: machine_plans.plan_provision(pool.db, vm, capabilities_of(pool)), task=call.task)


@implements("VM.destroy")
async def destroy(call: Call, vm: str) -> None:
    await work_of(call.pool).run(lambda: machine_plans.plan_destroy(call.pool.db, vm), task=call.task)


@implements("VM.get_allowed_VBD_devices")
async def get_allowed_vbd_devices(call: Call, vm: str) -> list[str]:
    return [str(number) for number in device_numbers.free_disk_numbers(call.pool.db, vm)]


@implements("VM.get_allowed_VIF_devices")
async def get_allowed_vif_devices(call: Call, vm: str) -> list[str]:
    return [str(number) for number in device_numbers.free_nic_numbers(call.pool.db, vm)]


@implements("VM.get_boot_record")
async def get_boot_record(call: Call, vm: str) -> Any:
    """What it would boot as: its record, since nothing is kept back from a running machine."""
    return call.pool.db.get("VM", vm)


# -- virtual CPUs


def _set_vcpus(call: Call, vm: str, at_startup: int, highest: int) -> None:
    legal_moves.assert_vm(call.pool.db, vm, "changing_VCPUs")
    vm_limits.assert_vcpus(at_startup, highest)
    set_fields(call, "VM", vm, VCPUs_at_startup=at_startup, VCPUs_max=highest)


@implements("VM.set_VCPUs_max")
async def set_vcpus_max(call: Call, vm: str, value: int) -> None:
    _set_vcpus(call, vm, call.pool.db.get("VM", vm)["VCPUs_at_startup"], value)


@implements("VM.set_VCPUs_at_startup")
async def set_vcpus_at_startup(call: Call, vm: str, value: int) -> None:
    _set_vcpus(call, vm, value, call.pool.db.get("VM", vm)["VCPUs_max"])


@implements("VM.set_is_default_template")
async def set_is_default_template(call: Call, vm: str, value: bool) -> None:
    if not call.pool.db.get("VM", vm)["is_a_template"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["Only a template can be a default template"])
    set_fields(call, "VM", vm, is_default_template=value)


@implements("VM.set_domain_type")
async def set_domain_type(call: Call, vm: str, value: str) -> None:
    """Machines here are whole ones; guests that need a hypervisor of another kind do not run."""
    legal_moves.assert_vm(call.pool.db, vm, "changing_static_range")
    if value != "hvm":
        raise XenApiError("VALUE_NOT_SUPPORTED", ["domain_type", value, "this pool runs only hvm"])
    set_fields(call, "VM", vm, domain_type=value)


@implements("VM.set_HVM_shadow_multiplier")
async def set_hvm_shadow_multiplier(call: Call, vm: str, value: float) -> None:
    """Kept for those who ask for it; these hosts have no shadow memory to multiply."""
    legal_moves.assert_vm(call.pool.db, vm, "changing_static_range")
    if value < 1.0:
        raise XenApiError("INVALID_VALUE", ["multiplier", str(value)])
    set_fields(call, "VM", vm, HVM_shadow_multiplier=value)


@implements("VM.call_plugin")
async def call_plugin(call: Call, vm: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    """There are no plugins on these hosts."""
    raise XenApiError("XENAPI_MISSING_PLUGIN", [plugin])


@implements("VM.call_host_plugin")
async def call_host_plugin(call: Call, vm: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    raise XenApiError("XENAPI_MISSING_PLUGIN", [plugin])


@on_set("VM.is_a_template")
async def set_is_a_template(call: Call, vm: str, value: bool) -> None:
    if value and not call.pool.db.get("VM", vm)["is_a_template"]:
        legal_moves.assert_vm(call.pool.db, vm, "make_into_template")
    fields = {"is_a_template": value} if value else {"is_a_template": False, "is_default_template": False}
    set_fields(call, "VM", vm, **fields)
