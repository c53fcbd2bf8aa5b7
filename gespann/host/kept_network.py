"""What the pool has made of this host's network, as DATA/addresses.json keeps it, and what a change of it is. Pure, but
for the file."""

from pathlib import Path

import msgspec

from gespann.host.bonds import CardPlace
from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.host_bonds import BondShape
from gespann.seams.host_network import VlanEnds, vlan_interface
from gespann.system.files import write_durable

FILE = "addresses.json"
NOTHING = InterfaceAddresses(ipv4=Addressing(mode="none"), ipv6=Addressing(mode="none"))


class KeptBond(msgspec.Struct, frozen=True, kw_only=True):
    """``places``: where its cards were before, and go back to."""

    shape: BondShape
    places: dict[str, CardPlace]


class BondMove(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a change that makes, changes or ends a bond. ``source``: whose addresses go over to the change's
    device ("": none do). ``vlans``: by where they were."""

    before: KeptBond | None
    after: KeptBond | None
    source: str = ""
    vlans: list[VlanEnds] = []
    interfaces_before: dict[str, InterfaceAddresses] = {}
    vlans_before: dict[str, VlanEnds] = {}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """``before``: what the interface had, whoever gave it (with a bond: what its source had); ``kept_before``: what of
    it was the pool's."""

    change_id: str
    device: str
    wanted: InterfaceAddresses
    before: InterfaceAddresses
    kept_before: InterfaceAddresses | None
    managed_by: str
    managed_by_before: str
    pending: bool = True
    vlan: VlanEnds | None = None
    bond: BondMove | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """``managed_by``: an interface; "": the host is managed as its processes were told at their start. ``vlans``: by
    interface, those that have addresses."""

    interfaces: dict[str, InterfaceAddresses] = {}
    managed_by: str = ""
    last: Change | None = None
    vlans: dict[str, VlanEnds] = {}
    bonds: dict[str, KeptBond] = {}


def read(path: Path | None) -> Kept:
    if path is None or not path.exists():
        return Kept()
    return msgspec.json.decode(path.read_bytes(), type=Kept)


def write(path: Path, kept: Kept) -> None:
    write_durable(path, msgspec.json.encode(kept), 0o600)


# -- what is kept after a change, and after one that was taken back


def with_change(kept: Kept, change: Change) -> Kept:
    """The change is done and stays."""
    done = msgspec.structs.replace(change, pending=False)
    interfaces, vlans, bonds = dict(kept.interfaces), dict(kept.vlans), dict(kept.bonds)
    if change.vlan is not None:
        vlans[change.device] = change.vlan
    if (move := change.bond) is not None:
        for one in (move.before, move.after):
            for card in one.shape.members if one is not None else []:
                interfaces.pop(card, None)
        if move.source:
            interfaces.pop(move.source, None)
        for old, new in moved_vlans(change).items():
            if old in interfaces:
                interfaces[new] = interfaces.pop(old)
            if old in vlans:
                vlans[new] = moved_vlan(vlans.pop(old), change.device)
        if move.before is not None:
            bonds.pop(move.before.shape.device, None)
        if move.after is not None:
            bonds[move.after.shape.device] = move.after
    if change.wanted != InterfaceAddresses():
        interfaces[change.device] = joined(change.kept_before, change.wanted)
    return Kept(interfaces=interfaces, managed_by=change.managed_by, last=done, vlans=vlans, bonds=bonds)


def without_change(kept: Kept, change: Change) -> Kept:
    """It has been taken back, kept before or not."""
    bonds, vlans = dict(kept.bonds), dict(kept.vlans)
    if (move := change.bond) is not None:
        if move.after is not None:
            bonds.pop(move.after.shape.device, None)
        if move.before is not None:
            bonds[move.before.shape.device] = move.before
        interfaces, vlans = dict(move.interfaces_before), dict(move.vlans_before)
    else:
        interfaces = {name: has for name, has in kept.interfaces.items() if name != change.device}
        if change.kept_before is not None:
            interfaces[change.device] = change.kept_before
        elif change.vlan is not None:
            vlans.pop(change.device, None)
    return Kept(interfaces=interfaces, managed_by=change.managed_by_before, vlans=vlans, bonds=bonds)


def moved_vlan(vlan: VlanEnds, device: str) -> VlanEnds:
    return msgspec.structs.replace(vlan, device=device)


def moved_vlans(change: Change) -> dict[str, str]:
    """Names of the interfaces of VLANs, before and after."""
    vlans = change.bond.vlans if change.bond is not None else []
    return {vlan_interface(one.device, one.tag): vlan_interface(change.device, one.tag) for one in vlans}


# -- addresses


def of_the_same(
    now: InterfaceAddresses, wanted: InterfaceAddresses, kept: InterfaceAddresses | None
) -> InterfaceAddresses:
    """What is there now of what is to be changed. An interface that had a lease gets one again."""
    leased = kept is not None and kept.ipv4 is not None and kept.ipv4.mode == "dhcp"
    return InterfaceAddresses(
        ipv4=None if wanted.ipv4 is None else kept.ipv4 if leased and kept is not None else now.ipv4,
        ipv6=None if wanted.ipv6 is None else now.ipv6,
        dns=None if wanted.dns is None else now.dns,
    )


def joined(kept: InterfaceAddresses | None, wanted: InterfaceAddresses) -> InterfaceAddresses:
    """A family that the change has left as it was stays the pool's if it was the pool's."""
    before = kept or InterfaceAddresses()
    return InterfaceAddresses(
        ipv4=wanted.ipv4 or before.ipv4,
        ipv6=wanted.ipv6 or before.ipv6,
        dns=wanted.dns if wanted.dns is not None else before.dns,
    )


def for_a_new_lease(kept: InterfaceAddresses) -> InterfaceAddresses:
    """What the lease said once may be another's by now."""
    if kept.ipv4 is None or kept.ipv4.mode != "dhcp":
        return kept
    return msgspec.structs.replace(kept, ipv4=Addressing(mode="dhcp"))


def has_addresses(has: InterfaceAddresses) -> bool:
    return any(family is not None and family.addresses for family in (has.ipv4, has.ipv6))
