"""Bonds and VLANs among what a host's agent says of its interfaces."""

from collections.abc import Callable
from typing import Any

from gespann.pool.model.database import Transaction
from gespann.seams.host_agent import FactsReply, HostInterface
from gespann.seams.host_bonds import BondShape
from gespann.seams.host_network import vlan_interface

PifFields = Callable[[HostInterface, str], dict[str, Any]]


def member_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Of a card, those that hold while it is a member of a bond: it keeps its network, and is not plugged."""
    return {name: fields[name] for name in ("device", "MAC", "MTU")} | {
        "currently_attached": False,
        "management": False,
        "IP": "",
        "netmask": "",
        "gateway": "",
        "IPv6": [],
        "ipv6_gateway": "",
        "ip_configuration_mode": "None",
        "ipv6_configuration_mode": "None",
    }


def show_vlans(tx: Transaction, host: str, facts: FactsReply, pif_fields: PifFields) -> None:
    """Only addresses: whether a VLAN is plugged is what the pool has said."""
    address = tx.get("host", host)["address"]
    there = {interface.device: interface for interface in facts.vlans}
    for pif in tx.get("host", host)["PIFs"]:
        record = tx.get("PIF", pif)
        if record["VLAN"] == -1:
            continue
        found = there.get(vlan_interface(record["device"], record["VLAN"]))
        if found is None:
            tx.set("PIF", pif, IP="", netmask="", gateway="", IPv6=[], ipv6_gateway="", management=False)
            continue
        fields = pif_fields(found, address)
        for name in ("device", "MAC", "MTU", "currently_attached", "managed"):
            del fields[name]
        tx.set("PIF", pif, **fields)
        tx.set("PIF_metrics", record["metrics"], carrier=found.carrier)


def show_bonds(tx: Transaction, host: str, facts: FactsReply, strangers: set[str]) -> None:
    """``strangers``: cards without a record before this look. A bond of such cards is one that another pool has made of
    this host: it is taken over as it is."""
    records = {pif: tx.get("PIF", pif) for pif in tx.get("host", host)["PIFs"]}
    cards = {record["device"]: pif for pif, record in records.items() if record["VLAN"] == -1}
    up = {interface.device for interface in facts.interfaces if interface.carrier}
    for shape in facts.bonds:
        master = cards.get(shape.device)
        if master is None:
            continue
        links_up = len(up & set(shape.members))
        bonds = tx.get("PIF", master)["bond_master_of"]
        if bonds:
            tx.set("Bond", bonds[0], links_up=links_up)
        elif set(shape.members) <= strangers & cards.keys():
            _take_over(tx, shape, cards, links_up)


def _take_over(tx: Transaction, shape: BondShape, cards: dict[str, str], links_up: int) -> None:
    properties = {}
    if shape.mode == "lacp":
        properties = {"hashing_algorithm": shape.hashing, "lacp-time": "fast" if shape.fast else "slow"}
        properties |= {"lacp-fallback-ab": "true"} | ({"lacp-aggregation-key": str(shape.key)} if shape.key else {})
    fields = {"master": cards[shape.device], "primary_slave": cards[shape.members[0]], "mode": shape.mode}
    bond = tx.create("Bond", {**fields, "properties": properties, "links_up": links_up})
    for card in shape.members:
        tx.set("PIF", cards[card], bond_slave_of=bond)
