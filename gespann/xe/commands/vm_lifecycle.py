"""Starting, stopping and copying VMs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.commands.diagnostics import starts_on_hosts
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import Selected, for_each_vm, one_vm


async def host_called(call: Call, name: str) -> str:
    """A host by uuid or name."""
    for ref, record in (await call.tables.all("host")).items():
        if name in (record["uuid"], record["name_label"], record.get("hostname")):
            return ref
    raise CommandFailure(f"Host {name} not found")


@asynccontextmanager
async def _telling_why_no_host_can(call: Call, vm: Selected) -> AsyncIterator[None]:
    """The error says only that none can; what stands in the way is another thing on each."""
    try:
        yield
    except XenApiError as error:
        if error.code == "NO_HOSTS_AVAILABLE":
            for host, why in await starts_on_hosts(call, vm.ref):
                await call.printer.remark_on_stderr(f"{host}: {why}")
        raise


async def vm_start(call: Call) -> None:
    paused, force = call.arguments.boolean("paused"), call.arguments.boolean("force")
    on = call.arguments.get("on", None)
    host = None if on is None else await host_called(call, on)

    async def start(vm: Selected) -> None:
        if host is None:
            async with _telling_why_no_host_can(call, vm):
                await call.run_task("VM.start", vm.ref, paused, force)
        else:
            await call.run_task("VM.start_on", vm.ref, host, paused, force)

    await for_each_vm(call, start)


async def vm_resume(call: Call) -> None:
    force = call.arguments.boolean("force")
    on = call.arguments.get("on", None)
    host = None if on is None else await host_called(call, on)

    async def resume(vm: Selected) -> None:
        if host is None:
            async with _telling_why_no_host_can(call, vm):
                await call.run_task("VM.resume", vm.ref, False, force)
        else:
            await call.run_task("VM.resume_on", vm.ref, host, False, force)

    await for_each_vm(call, resume)


async def _clean_or_hard(call: Call, clean: str, hard: str) -> None:
    message = hard if call.arguments.boolean("force") else clean

    async def stop(vm: Selected) -> None:
        await call.run_task(message, vm.ref)

    await for_each_vm(call, stop)


async def vm_shutdown(call: Call) -> None:
    await _clean_or_hard(call, "VM.clean_shutdown", "VM.hard_shutdown")


async def vm_reboot(call: Call) -> None:
    await _clean_or_hard(call, "VM.clean_reboot", "VM.hard_reboot")


async def vm_reset_powerstate(call: Call) -> None:
    call.must_be_forced()

    async def reset(vm: Selected) -> None:
        await call.request("VM.power_state_reset", vm.ref)

    await for_each_vm(call, reset)


async def show_new_vm(call: Call, vm: str) -> None:
    """Describes a VM that a task made, if a description is given, and prints its uuid."""
    description = call.arguments.get("new-name-description", None)
    if description is not None:
        await call.request("VM.set_name_description", vm, description)
    await call.printer.values([await call.uuid_of("VM", vm)])


async def vm_clone(call: Call) -> None:
    vm = await one_vm_or_template(call)
    await show_new_vm(call, await call.run_task("VM.clone", vm.ref, call.arguments.required("new-name-label")))


async def vm_copy(call: Call) -> None:
    vm = await one_vm_or_template(call)
    sr_uuid = call.arguments.text("sr-uuid")
    sr = await call.ref_of("SR", sr_uuid) if sr_uuid else NULL_REF
    await show_new_vm(call, await call.run_task("VM.copy", vm.ref, call.arguments.required("new-name-label"), sr))


async def one_vm_or_template(call: Call) -> Selected:
    """Templates are copied too, when named by their uuid."""
    uuid = call.arguments.get("uuid", None)
    for ref, record in (await call.tables.all("VM")).items():
        if uuid is not None and record["uuid"] == uuid.lower() and record["is_a_template"]:
            return Selected(ref, record, call.tables)
    return await one_vm(call)


async def vm_snapshot(call: Call) -> None:
    ignored = [await call.ref_of("VDI", uuid) for uuid in call.arguments.words("ignore-vdi-uuids")]
    vm = await one_vm(call)
    more = [ignored] if ignored else []
    await show_new_vm(
        call, await call.run_task("VM.snapshot", vm.ref, call.arguments.required("new-name-label"), *more)
    )


async def vm_checkpoint(call: Call) -> None:
    vm = await one_vm(call)
    await show_new_vm(call, await call.run_task("VM.checkpoint", vm.ref, call.arguments.required("new-name-label")))


async def vm_snapshot_with_quiesce(call: Call) -> None:
    vm = await one_vm(call)
    name = call.arguments.required("new-name-label")
    await show_new_vm(call, await call.run_task("VM.snapshot_with_quiesce", vm.ref, name))


async def vm_create(call: Call) -> None:
    """An empty VM record with the memory and processors that the original gives it."""
    memory_bytes = 256 * 1024 * 1024
    record = {
        "name_label": call.arguments.required("name-label"),
        "name_description": call.arguments.text("name-description"),
        "user_version": 0,
        "is_a_template": False,
        "affinity": NULL_REF,
        "memory_static_max": memory_bytes,
        "memory_dynamic_max": memory_bytes,
        "memory_dynamic_min": memory_bytes,
        "memory_static_min": 16 * 1024 * 1024,
        "VCPUs_params": {},
        "VCPUs_max": 1,
        "VCPUs_at_startup": 1,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "platform": {},
        "PCI_bus": "",
        "other_config": {},
        "recommendations": "",
        "xenstore_data": {},
        "ha_restart_priority": "",
        "tags": [],
        "blocked_operations": {},
    }
    vm = str(await call.request("VM.create", record))
    await call.printer.values([await call.uuid_of("VM", vm)])


async def vm_is_bios_customized(call: Call) -> None:
    vm = await one_vm(call)
    strings = vm.record["bios_strings"]
    if not strings:
        await call.printer.remark("The BIOS strings of this VM have not yet been set.")
    elif strings.get("bios-vendor") == "Xen" and strings.get("system-manufacturer") == "Xen":
        await call.printer.remark("This VM is BIOS-generic.")
    else:
        await call.printer.remark("This VM is BIOS-customized.")


COMMANDS: dict[str, Handler] = {
    "vm-start": vm_start,
    "vm-resume": vm_resume,
    "vm-shutdown": vm_shutdown,
    "vm-reboot": vm_reboot,
    "vm-reset-powerstate": vm_reset_powerstate,
    "vm-clone": vm_clone,
    "vm-copy": vm_copy,
    "vm-snapshot": vm_snapshot,
    "vm-checkpoint": vm_checkpoint,
    "vm-snapshot-with-quiesce": vm_snapshot_with_quiesce,
    "vm-create": vm_create,
    "vm-is-bios-customized": vm_is_bios_customized,
}
