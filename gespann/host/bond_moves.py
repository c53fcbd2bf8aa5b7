"""Carries out what a change says of bonds, and takes it back: both are the same way, walked from one end or the other.

          before                                    after
cards, where they were         make ──►    bond of them, in its bridge
addresses at ``source``      ◄── take back  addresses at the change's device
VLANs where they were                      VLANs at the change's device
"""

import msgspec

from gespann.host.hypervisor import Hypervisor
from gespann.host.kept_network import NOTHING, BondMove, Change, Kept, KeptBond, has_addresses, moved_vlan, of_the_same
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_bonds import BondChange
from gespann.seams.host_network import VlanEnds
from gespann.seams.json_lines import SeamError


async def plan_move(hypervisor: Hypervisor, kept: Kept, request: BondChange) -> Change:
    """Looks, and refuses; changes nothing."""
    before = kept.bonds.get(request.device)
    shape = request.shape
    places = await hypervisor.bond_places(request.device, shape.members) if shape is not None else {}
    if before is not None:
        places = {**before.places, **places}
    elif shape is None:
        raise SeamError("NOT_FOUND", f"this agent has made no bond {request.device}")
    if shape is not None and not places.keys() >= set(shape.members):
        raise SeamError("BAD_STATE", f"{request.device} is there, and is no bond of the pool's")
    after = KeptBond(shape=shape, places={card: places[card] for card in shape.members}) if shape is not None else None
    move = BondMove(before=before, after=after, interfaces_before=kept.interfaces, vlans_before=kept.vlans)
    if before is not None and after is not None:
        return _change(kept, request, request.device, move, InterfaceAddresses(), InterfaceAddresses())
    if after is not None:
        source, device = after.shape.members[0], request.device
        await _assert_free(hypervisor, after, source)
    else:
        assert before is not None
        source, device = request.device, before.shape.members[0]
    now = await hypervisor.addresses_show(source)
    own = kept.interfaces.get(source)
    has = of_the_same(now, NOTHING, own)
    dns = own.dns if own is not None else None
    move = msgspec.structs.replace(move, source=source, vlans=request.vlans)
    return _change(kept, request, device, move, msgspec.structs.replace(has, dns=dns), has)


def _change(
    kept: Kept,
    request: BondChange,
    device: str,
    move: BondMove,
    wanted: InterfaceAddresses,
    before: InterfaceAddresses,
) -> Change:
    return Change(
        change_id=request.change_id,
        device=device,
        wanted=wanted,
        before=before,
        kept_before=None,
        managed_by=request.manages or kept.managed_by,
        managed_by_before=kept.managed_by,
        bond=move,
    )


async def _assert_free(hypervisor: Hypervisor, after: KeptBond, source: str) -> None:
    """Nobody's addresses are lost: only the source's go over."""
    own = await hypervisor.addresses_show(source)
    for card, place in after.places.items():
        if place.bridge == after.shape.bridge:
            raise SeamError("BAD_STATE", f"{card} is a port of {place.bridge} already")
        has = await hypervisor.addresses_show(card)
        if card != source and has_addresses(has) and has != own:  # both may be ports of one bridge
            raise SeamError("BAD_STATE", f"{card} has addresses of its own")
    try:
        there = await hypervisor.addresses_show(after.shape.bridge)
    except SeamError:
        return  # no such bridge yet
    if has_addresses(there):
        raise SeamError("BAD_STATE", f"{after.shape.bridge} has addresses of its own")


async def make(hypervisor: Hypervisor, change: Change) -> None:
    move = _move(change)
    vlans = [moved_vlan(one, change.device) for one in move.vlans]
    await _walk(hypervisor, move.source, move.vlans, (move.before, move.after))
    await _settle(hypervisor, change.device, vlans, change.wanted)


async def take_back(hypervisor: Hypervisor, change: Change) -> None:
    """Also of one that was made in part."""
    move = _move(change)
    vlans = [moved_vlan(one, change.device) for one in move.vlans]
    await _walk(hypervisor, change.device if move.source else "", vlans, (move.after, move.before))
    await _settle(hypervisor, move.source or change.device, move.vlans, change.before)


async def _walk(
    hypervisor: Hypervisor, source: str, vlans: list[VlanEnds], bonds: tuple[KeptBond | None, KeptBond | None]
) -> None:
    there, wanted = bonds
    for vlan in vlans:
        await hypervisor.vlan_remove(vlan.device, vlan.tag)
    if source:
        await _blank(hypervisor, source)
    if wanted is not None:
        await hypervisor.bond_set(wanted.shape)
    elif there is not None:
        await hypervisor.bond_remove(there.shape.device, there.places)


async def _settle(hypervisor: Hypervisor, device: str, vlans: list[VlanEnds], wanted: InterfaceAddresses) -> None:
    for vlan in vlans:
        await hypervisor.vlan_ensure(vlan.device, vlan.tag, vlan.bridge, vlan.mtu)
    await hypervisor.addresses_set(device, wanted)


async def _blank(hypervisor: Hypervisor, device: str) -> None:
    try:
        await hypervisor.addresses_set(device, NOTHING)
    except SeamError as error:
        if error.code != "NOT_FOUND":  # the bond was not made
            raise


def _move(change: Change) -> BondMove:
    assert change.bond is not None
    return change.bond


async def restore(hypervisor: Hypervisor, kept: Kept) -> list[str]:
    """The bonds, and the VLANs that have addresses, of a host that may have started anew. Gives what failed."""
    failed: list[str] = []
    for bond in kept.bonds.values():
        try:
            await _restore_bond(hypervisor, bond)
        except SeamError as error:
            failed.append(f"bond {bond.shape.device}: {error}")
    for name, vlan in kept.vlans.items():
        try:
            await hypervisor.vlan_ensure(vlan.device, vlan.tag, vlan.bridge, vlan.mtu)
        except SeamError as error:
            failed.append(f"VLAN {name}: {error}")
    return failed


async def _restore_bond(hypervisor: Hypervisor, bond: KeptBond) -> None:
    """What the host's own configuration has given the cards goes: it is the bond's, or nobody's."""
    for card in await hypervisor.bond_places(bond.shape.device, bond.shape.members):
        await hypervisor.addresses_set(card, NOTHING)
    await hypervisor.bond_set(bond.shape)
