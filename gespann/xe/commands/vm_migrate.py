"""Moving running VMs between the hosts of the pool."""

from gespann.xe.call import Call, Handler
from gespann.xe.commands.vm_lifecycle import host_called
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import Selected, for_each_vm

_OPTIONS = ("force", "live", "copy", "compress")
_TO_ANOTHER_POOL = ("remote-master", "remote-username", "remote-password", "remote-network")


async def vm_migrate(call: Call) -> None:
    arguments = call.arguments
    if any(key in arguments for key in _TO_ANOTHER_POOL) or arguments.mapping("vdi"):
        raise CommandFailure("Migration to another pool or to other storage is not available in this version")
    name = arguments.get("host", arguments.get("host-uuid", arguments.get("host-name", None)))
    if name is None:
        raise CommandFailure("No destination host specified")
    host = await host_called(call, name)
    options = {key: str(arguments.boolean(key)).lower() for key in _OPTIONS if key in arguments}

    async def migrate(vm: Selected) -> None:
        await call.run_task("VM.pool_migrate", vm.ref, host, options)

    await for_each_vm(call, migrate)


COMMANDS: dict[str, Handler] = {"vm-migrate": vm_migrate}
