"""XenAPI class host."""

from datetime import datetime

from gespann.pool.api.dispatch import implemented
from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import set_fields
from gespann.pool.plan.placement import free_memory_bytes
from gespann.pool.reconcile.host_facts import refresh_host
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.xenapi.errors import XenApiError


@implements("host.enable")
async def enable(call: Call, host: str) -> None:
    set_fields(call, "host", host, enabled=True)


@implements("host.disable")
async def disable(call: Call, host: str, auto_enable: bool) -> None:
    """No VM starts here any more; those that run go on."""
    set_fields(call, "host", host, enabled=False)


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
    """None: no VM here is asked to give memory back, so none can fail to."""
    return []


@implements("host.get_vms_which_prevent_evacuation")
async def get_vms_which_prevent_evacuation(call: Call, host: str) -> dict[str, list[str]]:
    """All that run: this pool does not migrate yet."""
    db = call.pool.db
    return {vm: ["VM_IS_IMMOBILE", vm] for vm in db.get("host", host)["resident_VMs"]}


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


@implements("host.has_extension")
async def has_extension(call: Call, host: str, name: str) -> bool:
    return False


@implements("host.list_methods")
async def list_methods(call: Call) -> list[str]:
    return implemented()
