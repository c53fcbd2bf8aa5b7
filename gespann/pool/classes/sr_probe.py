"""XenAPI class SR: what a storage holds and offers, as records."""

from collections.abc import Mapping
from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.sr import probe
from gespann.pool.plan.probe_results import Found, found_in, without_secrets
from gespann.pool.plan.repository_plans import is_secret
from gespann.pool.steps.storage_door import StorageRefused, device_config_with_secrets, driver_for_type
from gespann.seams.sr_driver import Sr, SrDriver, SrError


@implements("SR.probe_ext")
async def probe_ext(
    call: Call, host: str, device_config: dict[str, str], sr_type: str, sm_config: dict[str, str]
) -> list[dict[str, Any]]:
    """What ``probe`` says in XML, in its answer or in the refusal that asks for the next choice. No secret comes back:
    who asked has them, and what a task answers others may read."""
    driver = driver_for_type(call.pool, sr_type)
    try:
        told = found_in(await probe(call, host, device_config, sr_type, sm_config))
    except StorageRefused as refusal:
        told = found_in(refusal.params[2]) if len(refusal.params) == 3 else None
        if told is None:
            raise
    secret = frozenset(key for key in device_config if is_secret(key, driver.info.secret_keys))
    shown = without_secrets(device_config, secret)
    known = device_config_with_secrets(call.pool.db, device_config)
    return [
        {
            "configuration": {**shown, **found.leads},
            "complete": found.complete,
            "sr": await _stat(driver, found, {**known, **found.leads}, sm_config) if found.sr_uuid else "",
            "extra_info": found.extra_info,
        }
        for found in told or ()
    ]


async def _stat(
    driver: SrDriver, found: Found, device_config: dict[str, str], sm_config: Mapping[str, str]
) -> dict[str, Any]:
    """A repository as it is on the storage now."""
    names = {"uuid": found.sr_uuid, "name_label": found.name_label, "name_description": found.name_description}
    try:
        stat = await driver.stat(Sr(found.sr_uuid, device_config, dict(sm_config)))
    except SrError:
        return {**names, "free_space": 0, "total_space": 0, "clustered": False, "health": "unavailable"}
    free = stat.physical_size_bytes - stat.physical_utilisation_bytes
    sizes = {"free_space": max(free, 0), "total_space": stat.physical_size_bytes}
    return {**names, **sizes, "clustered": False, "health": "healthy"}
