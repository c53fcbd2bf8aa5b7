"""Plans for bonds: several cards of a host that act as one, on a network of their own.

PIF (card) ── bond_slave_of ──► Bond ── master ──► PIF (bond0, not physical) ──► network (bridge)

The addresses of one member (the primary) go over to the bond, and so do VLANs on members and what VMs have on their
networks. If the host is managed by any of these, the change is one that the agent takes back unless it is told to keep
it, as with addresses (``address_plans``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gespann.pool.model.database import Database, Transaction, new_ref
from gespann.pool.plan.address_plans import KEEP_WITHIN_S, coordinator_of
from gespann.pool.plan.bond_vifs import moved_networks
from gespann.pool.plan.mac_addresses import checked_mac
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import is_live
from gespann.seams.host_bonds import KEY_HIGHEST, MEMBERS_HIGHEST, MEMBERS_LOWEST, BondShape
from gespann.seams.host_network import vlan_interface
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

Pif = Mapping[str, Any]


# -- modes and their properties


def checked_mode(mode: str) -> str:
    if mode == "balance-slb":
        why = "a Linux bond has nothing like it: active-backup and lacp are there"
        raise XenApiError("VALUE_NOT_SUPPORTED", ["mode", mode, why])
    return mode


@dataclass(frozen=True)
class Property:
    default: str | None
    is_valid: Callable[[str], bool]


#: of the mode lacp; other modes have none
PROPERTIES = {
    "hashing_algorithm": Property("tcpudp_ports", lambda text: text in ("src_mac", "tcpudp_ports")),
    "lacp-time": Property("slow", lambda text: text in ("fast", "slow")),
    "lacp-fallback-ab": Property("true", lambda text: text in ("true", "false")),
    "lacp-aggregation-key": Property(None, lambda text: text.isascii() and text.isdigit() and len(text) < 8),
}


def checked_properties(mode: str, given: Mapping[str, str]) -> dict[str, str]:
    """With the defaults of the mode. INVALID_VALUE names the property."""
    known = PROPERTIES if mode == "lacp" else {}
    for name, value in given.items():
        if name not in known or not known[name].is_valid(value):
            raise XenApiError("INVALID_VALUE", [name, value])
    if given.get("lacp-fallback-ab") == "false":
        why = "a Linux bond goes on by one link while nobody speaks LACP"
        raise XenApiError("VALUE_NOT_SUPPORTED", ["lacp-fallback-ab", "false", why])
    if int(given.get("lacp-aggregation-key", "0")) > KEY_HIGHEST:
        why = f"a Linux bond has keys up to {KEY_HIGHEST}"
        raise XenApiError("VALUE_NOT_SUPPORTED", ["lacp-aggregation-key", given["lacp-aggregation-key"], why])
    defaults = {name: known[name].default for name in known}
    return {name: value for name, value in {**defaults, **given}.items() if value is not None}


def _shape(device: str, cards: list[str], mac: str, mode: str, properties: Mapping[str, str], net: Pif) -> BondShape:
    """``net``: the record of the bond's network."""
    return BondShape(
        device=device,
        members=cards,
        mode="lacp" if mode == "lacp" else "active-backup",
        mac=mac.lower(),
        bridge=net["bridge"],
        mtu=net["MTU"],
        fast=properties.get("lacp-time") == "fast",
        hashing="src_mac" if properties.get("hashing_algorithm") == "src_mac" else "tcpudp_ports",
        key=int(properties.get("lacp-aggregation-key", "0")),
    )


# -- what may be bonded


def _assert_bondable(db: Database, members: list[str]) -> str:
    """The host of the members."""
    if len(set(members)) < MEMBERS_LOWEST:
        raise XenApiError("PIF_BOND_NEEDS_MORE_MEMBERS", [])
    for pif in members:
        record = db.get("PIF", pif)
        if record["bond_slave_of"] != NULL_REF or record["bond_master_of"]:
            raise XenApiError("PIF_ALREADY_BONDED", [pif])
        if record["VLAN"] != -1:
            raise XenApiError("PIF_IS_VLAN", [pif])
        if not record["physical"]:
            raise XenApiError("PIF_IS_NOT_PHYSICAL", [pif])
        if not record["currently_attached"]:
            raise XenApiError("REQUIRED_PIF_IS_UNPLUGGED", [pif])
    records = [db.get("PIF", pif) for pif in members]
    if len({record["host"] for record in records}) > 1:
        raise XenApiError("PIF_CANNOT_BOND_CROSS_HOST", [])
    if len(set(members)) > MEMBERS_HIGHEST:
        raise XenApiError("PIF_CONFIGURATION_ERROR", [members[-1], f"a bond has {MEMBERS_HIGHEST} members at most"])
    _assert_alike(db, records)
    return str(records[0]["host"])


def _assert_alike(db: Database, records: list[Pif]) -> None:
    if any(record["properties"] != records[0]["properties"] for record in records):
        raise XenApiError("INCOMPATIBLE_PIF_PROPERTIES", [])
    if sum(_has_address(record) for record in records) > 1:
        raise XenApiError("PIF_BOND_MORE_THAN_ONE_IP", [])
    tags = [db.get("VLAN", vlan)["tag"] for record in records for vlan in record["VLAN_slave_of"]]
    if len(set(tags)) < len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise XenApiError("VLAN_IN_USE", [records[0]["device"], str(twice)])


def _has_address(record: Pif) -> bool:
    return bool(record["ip_configuration_mode"] != "None" or record["ipv6_configuration_mode"] != "None")


def _assert_network(db: Database, host: str, network: str) -> Pif:
    record = db.get("network", network)
    if not record["managed"]:
        raise XenApiError("NETWORK_UNMANAGED", [network])
    for pif in record["PIFs"]:
        if db.get("PIF", pif)["host"] == host:
            raise XenApiError("NETWORK_ALREADY_CONNECTED", [host, pif])
    return record


def _primary(db: Database, members: list[str]) -> str:
    """By which the host is managed; else the one that has an address; else the first."""
    records = {pif: db.get("PIF", pif) for pif in members}
    chosen = next((pif for pif, record in records.items() if record["management"]), "")
    return chosen or next((pif for pif, record in records.items() if _has_address(record)), members[0])


def _free_device(db: Database, host: str) -> str:
    taken = {db.get("PIF", pif)["device"] for pif in db.get("host", host)["PIFs"]}
    return next(name for name in (f"bond{number}" for number in range(len(taken) + 1)) if name not in taken)


# -- what goes over


def _vlans_on(db: Database, pifs: list[str]) -> list[dict[str, Any]]:
    """Of VLANs: their own PIFs, and what the agent is told of those that are plugged."""
    found = []
    for pif in pifs:
        for vlan in db.get("PIF", pif)["VLAN_slave_of"]:
            own = db.get("VLAN", vlan)["untagged_PIF"]
            record = db.get("PIF", own)
            network = db.get("network", record["network"])
            ends = {
                "device": record["device"],
                "tag": record["VLAN"],
                "bridge": network["bridge"],
                "mtu": network["MTU"],
            }
            found.append({"vlan": vlan, "pif": own, "ends": ends if record["currently_attached"] else None})
    return found


def _managing(db: Database, pifs: list[str], vlans: list[dict[str, Any]]) -> str:
    """That of the PIFs, and those of the VLANs, by which the host is managed; "": by none of them."""
    every = [*pifs, *(one["pif"] for one in vlans)]
    return next((pif for pif in every if db.get("PIF", pif)["management"]), "")


def _change_args(db: Database, host: str, device: str, shape: BondShape | None) -> dict[str, Any]:
    return {
        "host": host,
        "device": device,
        "shape": msgspec.to_builtins(shape) if shape is not None else None,
        "vlans": [],
        "manages": "",
        "managing": "",
        "address_before": db.get("host", host)["address"],
        "own": host == coordinator_of(db),
        "others": [ref for ref in db.all("host") if ref != host and is_live(db, ref)],
        "keep_within_s": KEEP_WITHIN_S,
    }


def _with_management(
    db: Database, args: dict[str, Any], pifs: list[str], vlans: list[dict[str, Any]], carrier: str, device: str
) -> dict[str, Any]:
    """``carrier``, ``device``: the PIF to which all goes over."""
    managing = _managing(db, pifs, vlans)
    if managing and next(iter(db.all("pool").values()))["ha_enabled"]:
        raise XenApiError("HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE", [])
    args = {**args, "vlans": vlans}
    if not managing:
        return args
    if managing in pifs:
        return {**args, "managing": carrier, "manages": device}
    tag = db.get("PIF", managing)["VLAN"]
    return {**args, "managing": managing, "manages": vlan_interface(device, tag)}


def _locks(db: Database, args: Mapping[str, Any], pifs: list[str], networks: list[str]) -> tuple[Lock, ...]:
    held = [*pifs, *(one["pif"] for one in args["vlans"])]
    locks = [Lock("PIF", pif) for pif in dict.fromkeys(held)]
    locks += [Lock("network", network, shared=True) for network in dict.fromkeys(networks)]
    if args["manages"]:  # one at a time: each of them needs the ways to the others
        locks.append(Lock("pool", next(iter(db.all("pool")))))
    return tuple(locks)


# -- plans


@operation("Bond.create")
def plan_create(
    db: Database, network: str, members: list[str], mac: str, mode: str, properties: Mapping[str, str]
) -> Plan:
    """The result is the bond; its PIF is plugged."""
    members = list(dict.fromkeys(members))
    wanted = checked_properties(checked_mode(mode), properties)
    host = _assert_bondable(db, members)
    net = _assert_network(db, host, network)
    primary = _primary(db, members)
    members = [primary, *(pif for pif in members if pif != primary)]
    first, device = db.get("PIF", primary), _free_device(db, host)
    own_mac = checked_mac(mac) if mac else str(first["MAC"])
    bond, master, metrics = new_ref(), new_ref(), new_ref()
    cards = [db.get("PIF", pif)["device"] for pif in members]
    shape = _shape(device, cards, own_mac, mode, wanted, net)
    args = _change_args(db, host, device, shape) | {"pif": primary, "bond": bond, "master": master, "members": members}
    args = _with_management(db, args, members, _vlans_on(db, members), master, device)

    fields = {"device": device, "MAC": own_mac, "host": host, "network": network, "MTU": net["MTU"], "VLAN": -1}
    fields |= {"metrics": metrics, "managed": True, "currently_attached": False, "properties": first["properties"]}
    fields |= {"disallow_unplug": any(db.get("PIF", pif)["disallow_unplug"] for pif in members)}
    own = {"master": master, "primary_slave": primary, "mode": mode, "properties": wanted}

    def prepare(tx: Transaction) -> None:
        tx.create("PIF_metrics", {"carrier": True}, metrics)
        tx.create("PIF", fields, master)
        tx.create("Bond", {**own, "auto_update_mac": not mac}, bond)
        for pif in members:
            tx.set("PIF", pif, bond_slave_of=bond)

    networks = [db.get("PIF", pif)["network"] for pif in members]
    moves, later = moved_networks(db, host, networks, network)
    acts = (
        Act("records-own", {"destroy": [("Bond", bond), ("PIF", master), ("PIF_metrics", metrics)]}),
        *moves,
        Act("bond-change", args),
        Act("bond-keep", args),
        *later,
    )
    return Plan("Bond.create", acts, _locks(db, args, members, [network, *networks]), prepare=prepare, result=bond)


@operation("Bond.destroy")
def plan_destroy(db: Database, bond: str) -> Plan:
    """All goes back to the primary."""
    record = db.get("Bond", bond)
    master, primary, members = record["master"], record["primary_slave"], list(record["slaves"])
    own = db.get("PIF", master)
    host, device = own["host"], db.get("PIF", primary)["device"]
    args = _change_args(db, host, own["device"], None)
    args |= {"pif": master, "bond": bond, "master": master, "primary": primary, "members": members}
    args = _with_management(db, args, [master], _vlans_on(db, [master]), primary, device)
    back = _network_to_return_to(db, [primary, *members])
    moves, later = moved_networks(db, host, [own["network"]], back)
    acts = (*moves, Act("bond-change", args), Act("bond-keep", args), *later)
    return Plan("Bond.destroy", acts, _locks(db, args, [master, *members], [own["network"], back]))


def _network_to_return_to(db: Database, members: list[str]) -> str:
    """Of the primary, unless nothing can be plugged in there and another member has a network where it can."""
    networks = [str(db.get("PIF", pif)["network"]) for pif in members]
    return next((network for network in networks if db.get("network", network)["managed"]), networks[0])


@operation("Bond.set")
def plan_set(db: Database, bond: str, mode: str, properties: Mapping[str, str]) -> Plan:
    """The bond is down while it changes."""
    record = db.get("Bond", bond)
    wanted = checked_properties(checked_mode(mode), properties)
    master, members = record["master"], list(record["slaves"])
    primary = record["primary_slave"]
    own, net = db.get("PIF", master), db.get("network", db.get("PIF", master)["network"])
    cards = [db.get("PIF", pif)["device"] for pif in (primary, *(pif for pif in members if pif != primary))]
    shape = _shape(own["device"], cards, own["MAC"], mode, wanted, net)
    args = _change_args(db, own["host"], own["device"], shape)
    args |= {"pif": master, "bond": bond, "master": master, "members": members}
    args = _with_management(db, args, [master], _vlans_on(db, [master]), master, own["device"])
    args |= {"fields": {"mode": mode, "properties": wanted}}
    acts = (Act("bond-change", args), Act("bond-keep", args))
    return Plan("Bond.set", acts, _locks(db, args, [master, *members], [own["network"]]))


def plan_set_property(db: Database, bond: str, name: str, value: str) -> Plan:
    record = db.get("Bond", bond)
    return plan_set(db, bond, record["mode"], {**record["properties"], name: value})
