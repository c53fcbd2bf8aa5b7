"""Seam 5, about bonds: several cards of a host that act as one interface, a port of a bridge.

A bond is made, changed or taken apart as addresses are changed (``host_addresses``): the change must be kept
(``addresses.keep``, with the same ``change_id``) within a time, or the agent takes it back. What is kept is in force
again whenever the agent starts.
"""

from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_addresses import AddressesChangeReply
from gespann.seams.host_network import VlanEnds

MEMBERS_LOWEST, MEMBERS_HIGHEST = 2, 8
KEY_HIGHEST = 1023  # of Linux's bonding: the upper ten bits of a port's key (IEEE 802.1AX: 16 bits)


class BondShape(msgspec.Struct, frozen=True, kw_only=True):
    """``members``: cards; the addresses of the bond are, or were, those of the first. ``mac``: of all members while
    they are in it. What ``lacp`` alone knows: how partners are asked for their word (``fast``: every second), by what
    of a frame its way is chosen, and the key that tells which of a switch's ports belong together."""

    device: str
    members: list[str]
    mode: Literal["active-backup", "lacp"]
    mac: str
    bridge: str
    mtu: int = 1500
    fast: bool = False
    hashing: Literal["src_mac", "tcpudp_ports"] = "tcpudp_ports"
    key: int = 0


class BondChange(Request, frozen=True):
    """There is such a bond from then on; ``shape`` none: it is taken apart. The first member's addresses, and those
    ``vlans`` that are on a member, go over to a new bond; back to the first member from one that is taken apart. The
    reply says what addresses have gone over. A bond that is there already gets the shape, and keeps its own.

    BAD_STATE, and nothing is changed, if another member has addresses, if the bridge has, or if a card is a port of a
    bond that is not this one. ``manages``: the interface by which the host is managed when the change is made ("": none
    of those that change). ``answer_first``, ``keep_within_s``: as in ``addresses.change``."""

    op: ClassVar[str] = "bond.change"
    reply: ClassVar[type] = AddressesChangeReply
    change_id: str
    device: str
    shape: BondShape | None
    vlans: list[VlanEnds] = msgspec.field(default_factory=list)
    manages: str = ""
    answer_first: bool = False
    keep_within_s: float = 60.0


class CardProperty(Request, frozen=True):
    """``gro``: whether received segments are joined before anyone looks at them (generic receive offload)."""

    op: ClassVar[str] = "card.property"
    reply: ClassVar[type] = Empty
    device: str
    gro: bool
