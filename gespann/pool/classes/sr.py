"""XenAPI class SR."""

import re
from collections.abc import Mapping
from uuid import uuid4

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, capabilities_of, set_fields, work_of
from gespann.pool.classes.pbd import with_local_name
from gespann.pool.plan import legal_moves, repository_plans
from gespann.pool.plan.storage_view import attached_hosts, is_live
from gespann.pool.reconcile.storage_scan import scan_sr, scan_when_possible
from gespann.pool.steps.storage_door import device_config_with_secrets, driver_for_type, storage_words
from gespann.seams.uuids import UUID
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import log

_UUID = re.compile(UUID, re.ASCII | re.IGNORECASE)
#: state file and redo log of a pool with high availability, as every guide of the original names it
HA_MINIMUM_BYTES = 356 * 1024 * 1024


def _hide_from_log(device_config: Mapping[str, str], secret_keys: frozenset[str]) -> None:
    for key, value in device_config.items():
        if repository_plans.is_secret(key, secret_keys):
            log.hide(value)


@implements("SR.create")
async def create(
    call: Call,
    host: str,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    sr_type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """A shared one is plugged on every host."""
    pool = call.pool
    info = driver_for_type(pool, sr_type).info
    _hide_from_log(device_config, info.secret_keys)
    device_config = with_local_name(pool, device_config, info)
    fields = {
        "name_label": name_label,
        "name_description": name_description,
        "type": sr_type,
        "content_type": content_type or "user",
        "shared": shared,
        "sm_config": sm_config,
        "physical_size": physical_size,
    }
    hosts = list(pool.db.all("host")) if shared else [host]
    sr = await work_of(pool).run(
        lambda: repository_plans.plan_create(pool.db, hosts, device_config, fields, info.secret_keys), task=call.task
    )
    await scan_when_possible(pool, sr)
    return str(sr)


@implements("SR.make")
async def make(call: Call, *params: object) -> str:
    """As in the original: ``create`` has taken its place."""
    raise XenApiError("MESSAGE_DEPRECATED", [])


def _one_spelling(uuid: str) -> str:
    """Lower case with dashes. UUID_INVALID for anything else than a uuid."""
    if not _UUID.fullmatch(uuid):
        raise XenApiError("UUID_INVALID", ["SR", uuid[:128]])
    return uuid.lower()


@implements("SR.introduce")
async def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    sr_type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """The record of a repository that is on the storage already; its PBDs are made and plugged next. However its uuid
    is spelled, it is one repository: two records of it would each give its disks away."""
    driver_for_type(call.pool, sr_type)
    uuid = _one_spelling(uuid) if uuid else str(uuid4())
    if any(record["uuid"] == uuid for record in call.pool.db.all("SR").values()):
        raise XenApiError("SR_UUID_EXISTS", [uuid])
    fields = {
        "uuid": uuid,
        "name_label": name_label,
        "name_description": name_description,
        "type": sr_type,
        "content_type": content_type or "user",
        "shared": shared,
        "sm_config": sm_config,
    }
    with call.pool.db.transaction() as tx:
        return tx.create("SR", fields)


@implements("SR.probe")
async def probe(call: Call, host: str, device_config: dict[str, str], sr_type: str, sm_config: dict[str, str]) -> str:
    driver = driver_for_type(call.pool, sr_type)
    if "SR_PROBE" not in driver.info.capabilities:
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [NULL_REF])
    _hide_from_log(device_config, driver.info.secret_keys)
    device_config = with_local_name(call.pool, device_config, driver.info)
    with storage_words(NULL_REF):
        return await driver.probe(device_config_with_secrets(call.pool.db, device_config), sm_config)


@implements("SR.get_live_hosts")
async def get_live_hosts(call: Call, sr: str) -> list[str]:
    """Those that have it plugged, and answer."""
    db = call.pool.db
    return [host for host in attached_hosts(db, sr) if is_live(db, host)]


@implements("SR.destroy")
async def destroy(call: Call, sr: str) -> None:
    pool = call.pool
    await work_of(pool).run(lambda: repository_plans.plan_destroy(pool.db, sr, capabilities_of(pool)), task=call.task)


@implements("SR.forget")
async def forget(call: Call, sr: str) -> None:
    pool = call.pool
    await work_of(pool).run(lambda: repository_plans.plan_forget(pool.db, sr, capabilities_of(pool)), task=call.task)


@implements("SR.scan")
async def scan(call: Call, sr: str) -> None:
    legal_moves.assert_sr(call.pool.db, sr, "scan", capabilities_of(call.pool))
    await scan_sr(call.pool, sr)


@implements("SR.update")
async def update(call: Call, sr: str) -> None:
    await _write(call, sr, {})


@implements("SR.set_name_label")
async def set_name_label(call: Call, sr: str, value: str) -> None:
    await _write(call, sr, {"name_label": value})


@implements("SR.set_name_description")
async def set_name_description(call: Call, sr: str, value: str) -> None:
    await _write(call, sr, {"name_description": value})


async def _write(call: Call, sr: str, fields: dict[str, str]) -> None:
    """Also to the storage, if the driver keeps it there and can be reached."""
    pool = call.pool
    can = "SR_UPDATE" in capabilities_of(pool)(pool.db.get("SR", sr)["type"])
    if can and attached_hosts(pool.db, sr):
        await work_of(pool).run(
            lambda: repository_plans.plan_update(pool.db, sr, fields, capabilities_of(pool)), task=call.task
        )
    elif fields:
        assert_free(pool, "SR", sr)
        set_fields(call, "SR", sr, **fields)


@implements("SR.set_shared")
async def set_shared(call: Call, sr: str, value: bool) -> None:
    if not value and len(call.pool.db.get("SR", sr)["PBDs"]) > 1:
        raise XenApiError("SR_HAS_MULTIPLE_PBDS", list(call.pool.db.get("SR", sr)["PBDs"]))
    set_fields(call, "SR", sr, shared=value)


@implements("SR.get_supported_types")
async def get_supported_types(call: Call) -> list[str]:
    return sorted(call.pool.drivers)


@implements("SR.assert_can_host_ha_statefile")
async def assert_can_host_ha_statefile(call: Call, sr: str) -> None:
    """A host must be able to reach the state file before there is a database: only drivers that can give such a recipe
    qualify, and ``equal`` is not one of them."""
    db = call.pool.db
    record = db.get("SR", sr)
    if not capabilities_of(call.pool)(record["type"]) & {"VDI_GENERATE_CONFIG", "VDI_ATTACH_OFFLINE"}:
        raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [sr])
    if set(attached_hosts(db, sr)) != set(db.all("host")):
        raise XenApiError("SR_HAS_NO_PBDS", [sr])
    if record["physical_size"] - record["physical_utilisation"] < HA_MINIMUM_BYTES:
        raise XenApiError("SR_SOURCE_SPACE_INSUFFICIENT", [sr])
