"""Seam 5, about networks of a host that are more than a bridge."""

from typing import ClassVar

import msgspec

from gespann.seams.engine_socket import Empty, Request

VLAN_LOWEST, VLAN_HIGHEST = 1, 4094  # IEEE 802.1Q: 0 is no VLAN, 4095 is reserved


def vlan_interface(device: str, tag: int) -> str:
    """The name of the interface that an agent makes. At most 15 bytes, so a device's name has 9 at most."""
    return f"v{tag}.{device}"


class VlanEnds(msgspec.Struct, frozen=True, kw_only=True):
    """A VLAN: the card, or the bond, that its frames have the tag on, and the bridge where they have none."""

    device: str
    tag: int
    bridge: str
    mtu: int = 1500


class VlanEnsure(Request, frozen=True):
    """Frames of that tag on a card go to and come from a bridge. Made again, it may be at another bridge. One that had
    addresses of the pool before it was removed gets them again. BAD_STATE for a card that is a member of a bond."""

    op: ClassVar[str] = "vlan.ensure"
    reply: ClassVar[type] = Empty
    device: str
    tag: int
    bridge: str
    mtu: int = 1500


class VlanRemove(Request, frozen=True):
    """Gone already: nothing to do. The bridge stays, without the addresses that the pool has given it. ``forget``: what
    these were is forgotten as well."""

    op: ClassVar[str] = "vlan.remove"
    reply: ClassVar[type] = Empty
    device: str
    tag: int
    forget: bool = False
