"""Bonds by `ip`: the kernel's own bonding of cards, as a port of a bridge. Its module is loaded by the first one.

What the kernel can change only while a bond has no members (its mode) is changed that way for all: the bond is down
for a moment, the interfaces on it and its bridge stay."""

import json
from typing import Any

import msgspec

from gespann.host.bridges import bridge_ensure
from gespann.seams.host_bonds import BondShape
from gespann.seams.json_lines import SeamError
from gespann.system import processes

LINK_LOOKED_AT_EVERY_MS = 100
#: which link a frame takes. Linux's layer2 hashes the destination too; vlan+srcmac is what Open vSwitch calls src_mac
HASHES = {"src_mac": "vlan+srcmac", "tcpudp_ports": "layer3+4"}


class CardPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a card was before it was a member: "" for no bridge."""

    bridge: str = ""
    mtu: int = 1500


async def bond_places(device: str, members: list[str]) -> dict[str, CardPlace]:
    """Those of cards that are not in that bond already. NOT_FOUND; BAD_STATE for one of another bond, and if something
    else is called like the bond."""
    own = await _link(device)
    if own is not None and _info(own, "info_kind") != "bond":
        raise SeamError("BAD_STATE", f"{device} is there, and is no bond")
    places: dict[str, CardPlace] = {}
    for card in members:
        link = await _needed(card)
        kind, master = _info(link, "info_slave_kind"), str(link.get("master", ""))
        if kind == "bond" and master == device:
            continue
        if kind not in ("", "bridge"):
            raise SeamError("BAD_STATE", f"{card} is a port of {master} already")
        places[card] = CardPlace(bridge=master, mtu=int(link["mtu"]))
    return places


async def bond_set(shape: BondShape) -> None:
    """NOT_FOUND; HYPERVISOR with the kernel's words. As it is to be already: only its bridge is looked after."""
    await bond_places(shape.device, shape.members)
    try:
        if not await _is_as_wanted(shape):
            await _make(shape)
        await bridge_ensure(shape.bridge, shape.mtu)
        await _ip("link", "set", shape.device, "mtu", str(shape.mtu), "master", shape.bridge, "up")
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error


async def bond_remove(device: str, places: dict[str, CardPlace]) -> None:
    """The cards are where they were. Gone already: they are put there all the same."""
    try:
        there = await _link(device)
        if there is not None and _info(there, "info_kind") == "bond":
            await _ip("link", "del", device)  # the kernel lets its members go, with their own MAC addresses
        for card, place in places.items():
            if await _link(card) is None:  # a card that was taken out
                continue
            await _ip("link", "set", card, "mtu", str(place.mtu), "up")
            if place.bridge:
                await bridge_ensure(place.bridge, place.mtu)
                await _ip("link", "set", card, "master", place.bridge)
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error


async def _make(shape: BondShape) -> None:
    there = await _link(shape.device)
    if there is None:
        await _ip("link", "add", shape.device, "type", "bond", *_options(shape))
    else:
        await _ip("link", "set", shape.device, "down")
        for card in await _members(shape.device):
            await _ip("link", "set", card, "nomaster")
        await _ip("link", "set", shape.device, "type", "bond", *_options(shape))
    await _ip("link", "set", shape.device, "address", shape.mac)
    for card in shape.members:
        await _ip("link", "set", card, "nomaster", "down")
        await _ip("link", "set", card, "master", shape.device)


def _options(shape: BondShape) -> list[str]:
    if shape.mode == "active-backup":
        return ["mode", "active-backup", "miimon", str(LINK_LOOKED_AT_EVERY_MS)]
    asks = "fast" if shape.fast else "slow"
    words = ["mode", "802.3ad", "miimon", str(LINK_LOOKED_AT_EVERY_MS), "lacp_rate", asks]
    return [*words, "xmit_hash_policy", HASHES[shape.hashing], "ad_user_port_key", str(shape.key)]


async def _is_as_wanted(shape: BondShape) -> bool:
    link = await _link(shape.device)
    if link is None or sorted(await _members(shape.device)) != sorted(shape.members):
        return False
    if str(link["address"]).lower() != shape.mac.lower():
        return False
    has: dict[str, Any] = link.get("linkinfo", {}).get("info_data", {})
    words = _options(shape)
    named = {"lacp_rate": "ad_lacp_rate"}  # as `ip` shows what it takes
    wanted = dict(zip(words[::2], words[1::2], strict=True))
    return all(str(has.get(named.get(name, name), "")) == value for name, value in wanted.items())


async def _members(device: str) -> list[str]:
    shown = await processes.run_async(["ip", "-j", "link", "show", "master", device])
    return [str(link["ifname"]) for link in json.loads(shown.stdout or "[]") if link]


async def _needed(name: str) -> dict[str, Any]:
    link = await _link(name)
    if link is None:
        raise SeamError("NOT_FOUND", f"this host has no interface {name}")
    return link


async def _link(name: str) -> dict[str, Any] | None:
    shown = await processes.run_async(["ip", "-j", "-d", "link", "show", "dev", name], check=False)
    if shown.exit_code:
        return None
    links = [link for link in json.loads(shown.stdout or "[]") if link]
    return links[0] if links else None


def _info(link: dict[str, Any], name: str) -> str:
    return str(link.get("linkinfo", {}).get(name, ""))


async def _ip(*words: str) -> None:
    await processes.run_async(["ip", *words])
