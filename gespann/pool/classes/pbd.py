"""XenAPI class PBD: a connection of a host to an SR. Secrets of a device-config are secret objects, never shown."""

from collections.abc import Collection
from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, work_of
from gespann.pool.model.database import Transaction
from gespann.pool.plan import repository_plans
from gespann.pool.pool import Pool
from gespann.pool.reconcile.storage_scan import scan_when_possible
from gespann.pool.steps.storage_door import driver_for_type
from gespann.seams.sr_driver import DriverInfo
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import log


def _hidden(call: Call, sr: str, device_config: dict[str, str]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    keys = driver_for_type(call.pool, call.pool.db.get("SR", sr)["type"]).info.secret_keys
    shown, secrets = repository_plans.hide_secrets(device_config, keys)
    for _, _, value in secrets:
        log.hide(value)
    return shown, secrets


def with_local_name(pool: Pool, device_config: dict[str, str], info: DriverInfo, sr: str = "") -> dict[str, str]:
    """How the hosts log in, where all of them have to do it by one name: that of the repository's other PBDs, if it has
    any."""
    master = next((record["master"] for record in pool.db.all("pool").values()), NULL_REF)
    host = pool.db.find("host", master)
    pbds = pool.db.get("SR", sr)["PBDs"] if sr else []
    names = [pool.db.get("PBD", pbd)["device_config"].get("localIQN", "") for pbd in pbds]
    names.append(str(host["iscsi_iqn"]) if host is not None else "")
    return repository_plans.with_local_name(device_config, info.configuration.keys(), next(filter(None, names), ""))


@implements("PBD.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    db, sr, host = call.pool.db, args["SR"], args["host"]
    for ref in db.get("SR", sr)["PBDs"]:
        if db.get("PBD", ref)["host"] == host:
            raise XenApiError("PBD_EXISTS", [sr, host, ref])
    info = driver_for_type(call.pool, db.get("SR", sr)["type"]).info
    shown, secrets = _hidden(call, sr, with_local_name(call.pool, args["device_config"], info, sr))
    with db.transaction() as tx:
        repository_plans.make_secrets(tx, secrets)
        fields = {"SR": sr, "host": host, "device_config": shown, "other_config": args.get("other_config", {})}
        return tx.create("PBD", fields)


@implements("PBD.destroy")
async def destroy(call: Call, pbd: str) -> None:
    db = call.pool.db
    record = db.get("PBD", pbd)
    if record["currently_attached"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["PBD.destroy: the PBD is plugged"])
    assert_free(call.pool, "SR", record["SR"])
    with db.transaction() as tx:
        _drop_secrets(tx, call, pbd, frozenset())
        tx.destroy("PBD", pbd)


def _drop_secrets(tx: Transaction, call: Call, pbd: str, still_named: Collection[str]) -> None:
    """Those of a PBD that nobody names any more. ``still_named``: by what it is given next."""
    db, sr = call.pool.db, call.pool.db.get("PBD", pbd)["SR"]
    left = [ref for ref in db.get("SR", sr)["PBDs"] if ref != pbd]
    kept = {value for ref in left for value in db.get("PBD", ref)["device_config"].values()} | set(still_named)
    for class_name, ref in repository_plans.secrets_of_sr(db, sr, pbd):
        if db.get(class_name, ref)["uuid"] not in kept:
            tx.destroy(class_name, ref)


@implements("PBD.plug")
async def plug(call: Call, pbd: str) -> None:
    """Plugged already: nothing to do."""
    record = call.pool.db.get("PBD", pbd)
    if record["currently_attached"]:
        return
    await work_of(call.pool).run(lambda: repository_plans.plan_plug(call.pool.db, pbd), task=call.task)
    await scan_when_possible(call.pool, record["SR"])


@implements("PBD.unplug")
async def unplug(call: Call, pbd: str) -> None:
    """Unplugged already: nothing to do."""
    if not call.pool.db.get("PBD", pbd)["currently_attached"]:
        return
    await work_of(call.pool).run(lambda: repository_plans.plan_unplug(call.pool.db, pbd), task=call.task)


@implements("PBD.set_device_config")
async def set_device_config(call: Call, pbd: str, value: dict[str, str]) -> None:
    """For the next plug. A key that is shown as a secret keeps it if it comes back as it was shown."""
    db = call.pool.db
    record = db.get("PBD", pbd)
    if record["currently_attached"]:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["PBD.set_device_config: the PBD is plugged"])
    assert_free(call.pool, "SR", record["SR"])
    info = driver_for_type(call.pool, db.get("SR", record["SR"])["type"]).info
    shown, secrets = _hidden(call, record["SR"], with_local_name(call.pool, value, info, record["SR"]))
    with db.transaction() as tx:
        repository_plans.make_secrets(tx, secrets)
        _drop_secrets(tx, call, pbd, shown.values())
        tx.set("PBD", pbd, device_config=shown)
