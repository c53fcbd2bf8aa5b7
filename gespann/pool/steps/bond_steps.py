"""Steps on bonds: ``plan/bond_plans.py`` says how they go together."""

from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.address_steps import (
    AddressesAreChanged,
    AddressesAreKept,
    pif_fields,
    show_management,
)
from gespann.pool.steps.registry import Run, step
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_bonds import BondChange, BondShape
from gespann.seams.host_network import VlanEnds
from gespann.seams.xenapi.datamodel import NULL_REF

_NO_ADDRESSES = {
    "ip_configuration_mode": "None",
    "IP": "",
    "netmask": "",
    "gateway": "",
    "DNS": "",
    "ipv6_configuration_mode": "None",
    "IPv6": [],
    "ipv6_gateway": "",
}


@step
class BondIsChanged(AddressesAreChanged):
    """args: host, device (the bond), shape (none: it is taken apart), vlans [{vlan, pif, ends}], manages (the interface
    by which the host is managed then, "": another), managing (its PIF), address_before, own, others, keep_within_s
    as in ``addresses-change``; pif (named in a refusal), bond, master, members, primary (of a bond that is taken
    apart), fields (of one that is changed)"""

    name = "bond-change"

    def request(self, run: Run) -> BondChange:
        args = run.args
        return BondChange(
            change_id=run.operation_id,
            device=args["device"],
            shape=msgspec.convert(args["shape"], BondShape) if args["shape"] is not None else None,
            vlans=[VlanEnds(**one["ends"]) for one in args["vlans"] if one["ends"] is not None],
            manages=args["manages"],
            answer_first=bool(args["manages"]) and not args["own"],
            keep_within_s=args["keep_within_s"],
        )


@step
class BondIsKept(AddressesAreKept):
    """args: as ``bond-change``"""

    name = "bond-keep"

    def way(self, run: Run) -> str:
        """The address goes over with the others."""
        return str(run.args["address_before"])

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        if not tx.exists("Bond", args["bond"]):
            return
        now = msgspec.convert(run.notes["now"], InterfaceAddresses)
        if "fields" in args:
            tx.set("Bond", args["bond"], **args["fields"])
        elif args["shape"] is not None:
            self._show_made(tx, args, pif_fields(now))
        else:
            self._show_gone(tx, args, pif_fields(now))
        if args["managing"] and tx.exists("host", args["host"]):
            show_management(tx, args["host"], args["managing"], self.way(run))

    def _show_made(self, tx: Transaction, args: dict[str, Any], fields: dict[str, Any]) -> None:
        for pif in args["members"]:
            if tx.exists("PIF", pif):
                tx.set("PIF", pif, currently_attached=False, **_NO_ADDRESSES)
        tx.set("PIF", args["master"], currently_attached=True, **fields)
        tx.set("Bond", args["bond"], links_up=len(args["members"]))
        _move_vlans(tx, args, args["master"])

    def _show_gone(self, tx: Transaction, args: dict[str, Any], fields: dict[str, Any]) -> None:
        for pif in args["members"]:
            if tx.exists("PIF", pif):
                tx.set("PIF", pif, currently_attached=True, bond_slave_of=NULL_REF)
        if tx.exists("PIF", args["primary"]):
            tx.set("PIF", args["primary"], **fields)
        _move_vlans(tx, args, args["primary"])
        tx.destroy("PIF_metrics", tx.get("PIF", args["master"])["metrics"])
        tx.destroy("PIF", args["master"])
        tx.destroy("Bond", args["bond"])


def _move_vlans(tx: Transaction, args: dict[str, Any], pif: str) -> None:
    record = tx.get("PIF", pif)
    for one in args["vlans"]:
        if tx.exists("VLAN", one["vlan"]):
            tx.set("VLAN", one["vlan"], tagged_PIF=pif)
            tx.set("PIF", one["pif"], device=record["device"], MAC=record["MAC"])
