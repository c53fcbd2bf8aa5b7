"""XenAPI class pool: what is more than a field to read or write."""

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.classes.context import coordinator, given, set_fields
from gespann.seams.xenapi.errors import XenApiError


@implements("pool.get_license_state")
async def get_license_state(call: Call, pool: str) -> dict[str, str]:
    """Nothing here is licensed."""
    return {"edition": "free", "expiry": "never"}


@implements("pool.is_slave")
async def is_slave(call: Call, host: str) -> bool:
    return host != coordinator(call.pool)


@implements("pool.has_extension")
async def has_extension(call: Call, pool: str, name: str) -> bool:
    return False


@implements("pool.get_guest_secureboot_readiness")
async def get_guest_secureboot_readiness(call: Call, pool: str) -> str:
    """See ``VM.get_secureboot_readiness``: it has no certificates to give to guests."""
    return "not_ready"


async def _set_sr(call: Call, pool: str, field: str, sr: str) -> None:
    if given(sr) and call.pool.db.find("SR", sr) is None:
        raise XenApiError("HANDLE_INVALID", ["SR", sr])
    set_fields(call, "pool", pool, **{field: sr})


@on_set("pool.default_SR")
async def set_default_sr(call: Call, pool: str, value: str) -> None:
    await _set_sr(call, pool, "default_SR", value)


@on_set("pool.suspend_image_SR")
async def set_suspend_image_sr(call: Call, pool: str, value: str) -> None:
    await _set_sr(call, pool, "suspend_image_SR", value)


@on_set("pool.crash_dump_SR")
async def set_crash_dump_sr(call: Call, pool: str, value: str) -> None:
    await _set_sr(call, pool, "crash_dump_SR", value)
