"""Plans for VLANs: frames of one tag on a host's card, as a network that VMs can use.

PIF (card, VLAN -1) ◄── tagged_PIF ── VLAN ── untagged_PIF ──► PIF (same card, VLAN tag) ──► network (bridge)
"""

from collections.abc import Mapping
from typing import Any

from gespann.pool.model.database import Database, Transaction, new_ref
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import peek
from gespann.seams.host_network import VLAN_HIGHEST, VLAN_LOWEST
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

DEVICE_CHARS = 9  # a longer one leaves no room for the tag in the name of the VLAN's interface


def assert_card(db: Database, pif: str) -> None:
    record = db.get("PIF", pif)
    if record["VLAN"] != -1:
        raise XenApiError("PIF_IS_VLAN", [pif])
    if record["bond_slave_of"] != NULL_REF:
        raise XenApiError("CANNOT_ADD_VLAN_TO_BOND_SLAVE", [pif])
    if not record["physical"] and not record["bond_master_of"]:
        raise XenApiError("PIF_IS_NOT_PHYSICAL", [pif])
    if len(record["device"]) > DEVICE_CHARS:
        raise XenApiError("PIF_CONFIGURATION_ERROR", [pif, "its device has too long a name for VLANs"])


def assert_free(db: Database, pif: str, tag: int, network: str) -> None:
    """VLAN_TAG_INVALID, PIF_VLAN_EXISTS, NETWORK_ALREADY_CONNECTED."""
    card = db.get("PIF", pif)
    if not VLAN_LOWEST <= tag <= VLAN_HIGHEST:
        raise XenApiError("VLAN_TAG_INVALID", [str(tag)])
    for ref in db.get("host", card["host"])["PIFs"]:
        other = db.get("PIF", ref)
        if other["device"] == card["device"] and other["VLAN"] == tag:
            raise XenApiError("PIF_VLAN_EXISTS", [pif])
        if other["network"] == network:
            raise XenApiError("NETWORK_ALREADY_CONNECTED", [card["host"], ref])
    if not db.get("network", network)["managed"]:
        raise XenApiError("NETWORK_INCOMPATIBLE_WITH_VLAN_ON_BRIDGE", [network])


def _ends(db: Database, pif: str) -> dict[str, Any]:
    """Of a VLAN's own PIF: what the agent is told."""
    record = db.get("PIF", pif)
    network = db.get("network", record["network"])
    return {
        "host": record["host"],
        "device": record["device"],
        "tag": record["VLAN"],
        "bridge": network["bridge"],
        "mtu": network["MTU"],
    }


@operation("VLAN.create")
def plan_create(db: Database, card: str, tag: int, network: str) -> Plan:
    """The result is the VLAN; its PIF is plugged."""
    assert_card(db, card)
    assert_free(db, card, tag, network)
    record, shown = db.get("PIF", card), db.get("network", network)
    vlan, pif, metrics = new_ref(), new_ref(), new_ref()
    fields = {
        **{name: record[name] for name in ("device", "MAC", "host", "properties")},
        "network": network,
        "MTU": shown["MTU"],
        "VLAN": tag,
        "metrics": metrics,
        "managed": True,
        "VLAN_master_of": vlan,
    }

    def prepare(tx: Transaction) -> None:
        tx.create("PIF_metrics", {"carrier": True}, metrics)
        tx.create("PIF", fields, pif)
        tx.create("VLAN", {"tagged_PIF": card, "untagged_PIF": pif, "tag": tag}, vlan)

    ends = {"host": record["host"], "device": record["device"], "tag": tag}
    acts = (
        Act("records-own", {"destroy": [("VLAN", vlan), ("PIF", pif), ("PIF_metrics", metrics)]}),
        Act("vlan-plug", {**ends, "bridge": shown["bridge"], "mtu": shown["MTU"], "pif": pif}),
    )
    locks = (Lock("PIF", card), Lock("network", network, shared=True))
    return Plan("VLAN.create", acts, locks, prepare=prepare, result=vlan)


def _assert_unused(db: Database, pif: str) -> Mapping[str, Any]:
    """VIF_IN_USE while a VM of that host uses the network."""
    record = db.get("PIF", pif)
    for vif in db.get("network", record["network"])["VIFs"]:
        shown = db.get("VIF", vif)
        if shown["currently_attached"] and db.get("VM", shown["VM"])["resident_on"] == record["host"]:
            raise XenApiError("VIF_IN_USE", [record["network"], vif])
    return record


@operation("VLAN.destroy")
def plan_destroy(db: Database, vlan: str) -> Plan:
    pif = db.get("VLAN", vlan)["untagged_PIF"]
    record = _assert_unused(db, pif)
    _assert_not_managing(db, pif)
    gone = [("VLAN", vlan), ("PIF", pif), ("PIF_metrics", record["metrics"])]
    ends = {**_ends(db, pif), "pif": pif}
    acts = (Act("vlan-unplug", ends), Act("vlan-forget", ends), Act("records-write", {"destroy": gone}))
    return Plan("VLAN.destroy", acts, (Lock("PIF", pif), Lock("network", record["network"], shared=True)))


def _assert_not_managing(db: Database, pif: str) -> None:
    if db.get("PIF", pif)["management"]:
        raise XenApiError("PIF_IS_MANAGEMENT_INTERFACE", [pif])


def _assert_pluggable(db: Database, pif: str) -> None:
    """A card is the host's own affair: taking it into a bridge or out of one can cut the host off."""
    record = db.get("PIF", pif)
    if record["bond_slave_of"] != NULL_REF:
        raise XenApiError("CANNOT_PLUG_BOND_SLAVE", [pif])
    if record["VLAN"] == -1:
        code = "PIF_IS_MANAGEMENT_INTERFACE" if record["management"] else "PIF_IS_PHYSICAL"
        raise XenApiError(code, [pif])


@operation("PIF.plug")
def plan_plug(db: Database, pif: str) -> Plan:
    _assert_pluggable(db, pif)
    act = Act("vlan-plug", {**_ends(db, pif), "pif": pif})
    return Plan("PIF.plug", (act,), (Lock("PIF", pif),))


@operation("PIF.unplug")
def plan_unplug(db: Database, pif: str) -> Plan:
    _assert_pluggable(db, pif)
    if db.get("PIF", pif)["disallow_unplug"]:
        raise XenApiError("PIF_DOES_NOT_ALLOW_UNPLUG", [pif])
    _assert_unused(db, pif)
    _assert_not_managing(db, pif)
    act = Act("vlan-unplug", {**_ends(db, pif), "pif": pif})
    return Plan("PIF.unplug", (act,), (Lock("PIF", pif),))


def attached_vlans(db: Database, host: str) -> list[dict[str, Any]]:
    """What the host must have, also after it has started anew."""
    pifs = [(pif, db.get("PIF", pif)) for pif in db.get("host", host)["PIFs"]]
    return [
        _ends(db, pif)
        for pif, record in pifs
        if record["VLAN"] != -1 and record["currently_attached"] and peek(db, "network", record["network"])
    ]


def card_like(db: Database, host: str, device: str) -> str:
    """That host's card of the name; PIF_DEVICE_NOT_FOUND."""
    for pif in db.get("host", host)["PIFs"]:
        record = db.get("PIF", pif)
        if record["device"] == device and record["VLAN"] == -1:
            return str(pif)
    raise XenApiError("PIF_DEVICE_NOT_FOUND", [])


def assert_forgettable(db: Database, pif: str) -> None:
    """Only a card that is gone from its host, or that nobody uses."""
    record = db.get("PIF", pif)
    if record["management"]:
        raise XenApiError("PIF_IS_MANAGEMENT_INTERFACE", [pif])
    if record["VLAN"] != -1:
        raise XenApiError("PIF_IS_VLAN", [pif])
    if record["bond_slave_of"] != NULL_REF or record["bond_master_of"]:
        raise XenApiError("PIF_ALREADY_BONDED", [pif])
    if record["VLAN_slave_of"]:
        raise XenApiError("PIF_VLAN_STILL_EXISTS", [pif])
    if record["network"] != NULL_REF:
        _assert_unused(db, pif)
