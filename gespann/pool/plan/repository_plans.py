"""Plans for storage repositories and their connections to hosts."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from gespann.pool.model.database import Database, Transaction, new_ref
from gespann.pool.plan.legal_moves import Capabilities, assert_sr
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import SECRET_ENDING, SECRET_SUFFIX
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def is_secret(key: str, secret_keys: frozenset[str]) -> bool:
    return key in secret_keys or key.endswith(SECRET_ENDING)


def hide_secrets(
    device_config: Mapping[str, str], secret_keys: frozenset[str]
) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The device-config as it is kept and shown, and the secret objects to make: (ref, uuid, value)."""
    shown: dict[str, str] = {}
    secrets: list[tuple[str, str, str]] = []
    for key, value in device_config.items():
        if is_secret(key, secret_keys) and not key.endswith(SECRET_SUFFIX):
            uuid = str(uuid4())
            secrets.append((new_ref(), uuid, value))
            shown[key + SECRET_SUFFIX] = uuid
        else:
            shown[key] = value
    return shown, secrets


def make_secrets(tx: Transaction, secrets: list[tuple[str, str, str]]) -> None:
    for ref, uuid, value in secrets:
        tx.create("secret", {"uuid": uuid, "value": value}, ref)


def with_local_name(device_config: Mapping[str, str], known_keys: Collection[str], iscsi_iqn: str) -> dict[str, str]:
    """For a driver that logs in by one name for all hosts: that of the first host, unless another is given."""
    if "localIQN" not in known_keys or device_config.get("localIQN") or not iscsi_iqn:
        return dict(device_config)
    return {**device_config, "localIQN": iscsi_iqn}


@operation("SR.create")
def plan_create(
    db: Database,
    hosts: list[str],
    device_config: Mapping[str, str],
    fields: Mapping[str, Any],
    secret_keys: frozenset[str],
) -> Plan:
    """``hosts``: all that get a connection. ``fields`` of the SR record; ``physical_size`` is passed to the driver."""
    sr, shown, secrets = new_ref(), *hide_secrets(device_config, secret_keys)
    pbds = {new_ref(): host for host in hosts}

    def prepare(tx: Transaction) -> None:
        make_secrets(tx, secrets)
        tx.create("SR", {**fields, "physical_size": 0}, sr)
        for pbd, host in pbds.items():
            tx.create("PBD", {"SR": sr, "host": host, "device_config": shown}, pbd)

    made = [("PBD", pbd) for pbd in pbds] + [("SR", sr)] + [("secret", ref) for ref, _, _ in secrets]
    acts = [
        Act("records-own", {"destroy": made}),
        Act("repository-reach", {"sr": sr}),
        Act("repository-create", {"sr": sr, "physical_size_bytes": fields.get("physical_size", 0)}),
        *(Act("repository-attach", {"sr": sr, "pbd": pbd}) for pbd in pbds),
    ]
    return Plan("SR.create", tuple(acts), (Lock("SR", sr),), prepare=prepare, result=sr)


def _records(db: Database, sr: str) -> list[tuple[str, str]]:
    record = db.get("SR", sr)
    gone = [("VBD", vbd) for vdi in record["VDIs"] for vbd in db.get("VDI", vdi)["VBDs"]]
    gone += [("VDI", vdi) for vdi in record["VDIs"]]
    for pbd in record["PBDs"]:
        gone += [*secrets_of_sr(db, sr, pbd), ("PBD", pbd)]
    return [*gone, ("SR", sr)]


def secrets_of_sr(db: Database, sr: str, pbd: str) -> list[tuple[str, str]]:
    """Secrets of the PBD that no PBD of another SR names."""
    shown = db.get("PBD", pbd)["device_config"]
    uuids = {value for key, value in shown.items() if key.endswith(SECRET_SUFFIX)}
    for other in db.all("PBD").values():
        if other["SR"] != sr:
            uuids -= set(other["device_config"].values())
    return [("secret", ref) for ref, record in db.all("secret").items() if record["uuid"] in uuids]


def _assert_destroyable(db: Database, sr: str) -> None:
    record = db.get("SR", sr)
    if not record["PBDs"]:
        raise XenApiError("SR_HAS_NO_PBDS", [sr])
    if any(db.get("VDI", vdi)["managed"] for vdi in record["VDIs"]):
        raise XenApiError("SR_NOT_EMPTY", [])


def _unset_default(db: Database, sr: str) -> list[tuple[str, str, dict[str, str]]]:
    names = ("default_SR", "suspend_image_SR", "crash_dump_SR")
    return [
        ("pool", ref, {name: NULL_REF for name in names if record[name] == sr})
        for ref, record in db.all("pool").items()
    ]


@operation("SR.destroy")
def plan_destroy(db: Database, sr: str, capabilities: Capabilities) -> Plan:
    """Off the storage, and out of the records. Refused while a PBD is plugged or a VDI is in it."""
    assert_sr(db, sr, "destroy", capabilities)
    _assert_destroyable(db, sr)
    acts = (
        Act("repository-destroy", {"sr": sr}),
        Act("records-write", {"set": _unset_default(db, sr), "destroy": _records(db, sr)}),
    )
    return Plan("SR.destroy", acts, (Lock("SR", sr, "destroy"),))


@operation("SR.forget")
def plan_forget(db: Database, sr: str, capabilities: Capabilities) -> Plan:
    """Out of the records only."""
    assert_sr(db, sr, "forget", capabilities)
    act = Act("records-write", {"set": _unset_default(db, sr), "destroy": _records(db, sr)})
    return Plan("SR.forget", (act,), (Lock("SR", sr, "forget"),))


@operation("SR.update")
def plan_update(db: Database, sr: str, fields: Mapping[str, str], capabilities: Capabilities) -> Plan:
    assert_sr(db, sr, "update", capabilities)
    record = db.get("SR", sr)
    new = {name: fields.get(name, record[name]) for name in ("name_label", "name_description")}
    old = {name: record[name] for name in new}
    act = Act("repository-update", {"sr": sr, "fields": new, "old": old})
    return Plan("SR.update", (act,), (Lock("SR", sr, "update"),))


@operation("PBD.plug")
def plan_plug(db: Database, pbd: str) -> Plan:
    record = db.get("PBD", pbd)
    act = Act("repository-attach", {"sr": record["SR"], "pbd": pbd})
    return Plan("PBD.plug", (act,), (Lock("SR", record["SR"], "plug"), Lock("PBD", pbd)))


@operation("PBD.unplug")
def plan_unplug(db: Database, pbd: str) -> Plan:
    """Refused while a VM of that host uses a disk of the SR."""
    record = db.get("PBD", pbd)
    for vdi in db.get("SR", record["SR"])["VDIs"]:
        for vbd in db.get("VDI", vdi)["VBDs"]:
            used = db.get("VBD", vbd)
            if used["currently_attached"] and db.get("VM", used["VM"])["resident_on"] == record["host"]:
                raise XenApiError("VDI_IN_USE", [vdi, "unplug"])
    act = Act("repository-detach", {"sr": record["SR"], "pbd": pbd})
    return Plan("PBD.unplug", (act,), (Lock("SR", record["SR"], "unplug"), Lock("PBD", pbd)))
