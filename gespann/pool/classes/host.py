"""XenAPI class host."""

from datetime import datetime

from gespann.pool.api.dispatch import implemented
from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import given
from gespann.pool.classes.vm_memory import is_cooperative
from gespann.pool.classes.vm_power import migrate
from gespann.pool.plan import evacuation
from gespann.pool.plan.placement import free_memory_bytes
from gespann.pool.reconcile.host_boots import stay_disabled
from gespann.pool.reconcile.host_facts import refresh_host
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.host_membership import HostPower
from gespann.seams.xenapi.errors import XenApiError


@implements("host.enable")
async def enable(call: Call, host: str) -> None:
    with call.pool.db.transaction() as tx:
        tx.set("host", host, enabled=True)
        stay_disabled(tx, host, stays=False)


@implements("host.disable")
async def disable(call: Call, host: str, auto_enable: bool) -> None:
    """No VM starts here any more; those that run go on. ``auto_enable``: until the host starts anew."""
    with call.pool.db.transaction() as tx:
        tx.set("host", host, enabled=False)
        stay_disabled(tx, host, stays=not auto_enable)


@implements("host.get_servertime")
async def get_servertime(call: Call, host: str) -> str:
    return wire_time(call.pool.clock.now())


@implements("host.get_server_localtime")
async def get_server_localtime(call: Call, host: str) -> str:
    now: datetime = call.pool.clock.now()
    return now.astimezone().strftime("%Y%m%dT%H:%M:%S")


@implements("host.compute_free_memory")
async def compute_free_memory(call: Call, host: str) -> int:
    return max(0, free_memory_bytes(call.pool.db, host))


@implements("host.compute_memory_overhead")
async def compute_memory_overhead(call: Call, host: str) -> int:
    return int(call.pool.db.get("host", host)["memory_overhead"])


@implements("host.get_uncooperative_resident_VMs")
async def get_uncooperative_resident_vms(call: Call, host: str) -> list[str]:
    """Those that have not given back what they were asked for."""
    db = call.pool.db
    return [vm for vm in db.get("host", host)["resident_VMs"] if not is_cooperative(db, vm)]


@implements("host.get_vms_which_prevent_evacuation")
async def get_vms_which_prevent_evacuation(call: Call, host: str) -> dict[str, list[str]]:
    _, obstacles = evacuation.plan_places(call.pool.db, host)
    return {vm: [error.code, *error.params] for vm, error in obstacles.items()}


@implements("host.assert_can_evacuate")
async def assert_can_evacuate(call: Call, host: str) -> None:
    evacuation.assert_can_evacuate(call.pool.db, host)


@implements("host.evacuate")
async def evacuate(call: Call, host: str, network: str, evacuate_batch_size: int) -> None:
    """One VM after the other; those that have moved stay where they are if another one cannot. Migration has no network
    of its own here: it goes where the agents are reached."""
    db = call.pool.db
    if given(network):
        raise XenApiError("OPERATION_NOT_ALLOWED", ["Migration uses the management network"])
    evacuation.assert_can_evacuate(db, host)
    vms = evacuation.residents(db, host)
    for number, vm in enumerate(vms):
        if db.get("VM", vm)["resident_on"] == host:
            places, obstacles = evacuation.plan_places(db, host)
            if vm in obstacles:
                raise obstacles[vm]
            await migrate(call.pool, vm, places[vm], None)
        call.task.set_progress((number + 1) / len(vms))


@implements("host.reboot")
async def reboot(call: Call, host: str) -> None:
    await _power(call, host, reboot=True)


@implements("host.shutdown")
async def shutdown(call: Call, host: str) -> None:
    await _power(call, host, reboot=False)


async def _power(call: Call, host: str, *, reboot: bool) -> None:
    """Only a host that takes no VMs any more and has none."""
    db = call.pool.db
    if db.get("host", host)["enabled"]:
        raise XenApiError("HOST_NOT_DISABLED", [])
    for vm in evacuation.residents(db, host):
        raise XenApiError("HOST_IN_USE", [host, "VM", vm])
    await ask(call.pool, host, HostPower(reboot=reboot))


@implements("host.get_management_interface")
async def get_management_interface(call: Call, host: str) -> str:
    db = call.pool.db
    for pif in db.get("host", host)["PIFs"]:
        if db.get("PIF", pif)["management"]:
            return str(pif)
    raise XenApiError("HOST_HAS_NO_MANAGEMENT_IP", [])


@implements("host.sync_data")
async def sync_data(call: Call, host: str) -> None:
    await refresh_host(call.pool, host)


@implements("host.call_plugin")
async def call_plugin(call: Call, host: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    raise XenApiError("XENAPI_MISSING_PLUGIN", [plugin])


@implements("host.call_extension")
async def call_extension(call: Call, host: str, name: str) -> str:
    """There are none (``has_extension``)."""
    raise XenApiError("MESSAGE_METHOD_UNKNOWN", [name])


@implements("host.has_extension")
async def has_extension(call: Call, host: str, name: str) -> bool:
    return False


@implements("host.list_methods")
async def list_methods(call: Call) -> list[str]:
    return implemented()
