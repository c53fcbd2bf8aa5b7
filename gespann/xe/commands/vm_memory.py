"""Working out how much memory a VM may have."""

from gespann.xe.call import Call, Handler
from gespann.xe.selectors import Selected, for_each_vm


async def vm_compute_maximum_memory(call: Call) -> None:
    """The most guest memory that fits into ``total`` bytes of a host once overheads are paid."""
    total_bytes = call.arguments.size("total")
    approximate = call.arguments.boolean("approximate")

    async def show(vm: Selected) -> None:
        most_bytes = await call.request("VM.maximise_memory", vm.ref, total_bytes, approximate)
        await call.printer.values([str(most_bytes)])

    await for_each_vm(call, show)


COMMANDS: dict[str, Handler] = {"vm-compute-maximum-memory": vm_compute_maximum_memory}
