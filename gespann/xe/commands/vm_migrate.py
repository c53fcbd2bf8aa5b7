"""Moving VMs between the hosts of the pool, and their disks between its storage repositories."""

from gespann.xe.api import API_VERSION
from gespann.xe.call import Call, Handler
from gespann.xe.commands.vm_lifecycle import host_called
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import Selected, for_each_vm, one_vm

_OPTIONS = ("force", "live", "copy", "compress")
_REMOTE = ("remote-master", "remote-username", "remote-password", "remote-network")
_MAPS = ("vdi", "vif", "vgpu", "image-format")


async def vm_migrate(call: Call) -> None:
    arguments = call.arguments
    if any(key in arguments for key in _REMOTE) or any(arguments.mapping(name) for name in _MAPS):
        await _with_disks(call)
        return
    name = _host_name(call)
    if name is None:
        raise CommandFailure("No destination host specified")
    host = await host_called(call, name)
    options = {key: str(arguments.boolean(key)).lower() for key in _OPTIONS if key in arguments}

    async def migrate(vm: Selected) -> None:
        await call.run_task("VM.pool_migrate", vm.ref, host, options)

    await for_each_vm(call, migrate)


def _host_name(call: Call) -> str | None:
    arguments = call.arguments
    return arguments.get("host", arguments.get("host-uuid", arguments.get("host-name", None)))


async def _with_disks(call: Call) -> None:
    """Says first what goes where. A disk that is not named stays where it is."""
    arguments, vm = call.arguments, await one_vm(call)
    if "remote-master" in arguments:
        await _log_in(call)
    elif any(key in arguments for key in _REMOTE[1:3]):
        raise CommandFailure("A user and a password of another pool go with its address, remote-master=")
    for name in ("vgpu", "image-format"):
        if arguments.mapping(name):
            raise CommandFailure(f"This pool knows nothing that {name}: could name")
    host = await _destination(call, vm)
    network = await _network(call, host)
    vdis = {await call.ref_of("VDI", vdi): await call.ref_of("SR", sr) for vdi, sr in arguments.mapping("vdi").items()}
    vifs = {
        await call.ref_of("VIF", vif): await call.ref_of("network", to) for vif, to in arguments.mapping("vif").items()
    }
    host_name = await call.request("host.get_name_label", host)
    network_name = await call.request("network.get_name_label", network)
    await call.printer.remark(f"The VM goes to host {host_name} by network {network_name}, and its disks so:")
    for vdi, sr in arguments.mapping("vdi").items():
        await call.printer.remark(f"VDI {vdi} -> SR {sr}")
    options = {key: str(arguments.boolean(key)).lower() for key in ("force", "copy") if key in arguments}
    dest = await call.request("host.migrate_receive", host, network, options)
    live = arguments.boolean("live", default=True)
    moved = await call.run_task("VM.migrate_send", vm.ref, dest, live, vdis, vifs, options)
    await call.printer.values([await call.uuid_of("VM", moved)])


async def _log_in(call: Call) -> None:
    """``remote-master`` must lead to this pool, and its user must be one here, as it would have to be one there."""
    wanted, user, password = (call.arguments.required(key) for key in _REMOTE[:3])
    coordinator = await call.request("pool.get_master", await call.only_pool())
    record = (await call.tables.all("host"))[coordinator]
    if wanted not in (record["address"], record["hostname"], record["name_label"]):
        raise CommandFailure(f"{wanted} is not the coordinator of this pool: VMs do not migrate to other pools")
    session = await call.api.call("session.login_with_password", user, password, API_VERSION, "xe vm-migrate")
    await call.api.call("session.logout", session)


async def _destination(call: Call, vm: Selected) -> str:
    """As named; else where the VM runs, or the coordinator."""
    name = _host_name(call)
    if name is not None:
        return await host_called(call, name)
    resident = str(vm.record["resident_on"])
    if resident in await call.tables.all("host"):
        return resident
    return str(await call.request("pool.get_master", await call.only_pool()))


async def _network(call: Call, host: str) -> str:
    """As named, by uuid; else the one that the host is managed by."""
    uuid = call.arguments.get("remote-network", None)
    if uuid is not None:
        return await call.ref_of("network", uuid)
    return str(await call.request("PIF.get_network", await call.request("host.get_management_interface", host)))


COMMANDS: dict[str, Handler] = {"vm-migrate": vm_migrate}
