"""Seam 5, about the addresses of a host's own interfaces, and the door by which its agent is reached.

A change is made, and then it must be kept (``addresses.keep``) within a time; else the agent takes it back by itself:
so a change by which nobody reaches the host any more lasts no longer than that. A change that is not kept yet does not
outlive the agent either. What is kept is in force again whenever the agent starts, so also when the host has.
"""

from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_network import VlanEnds

KEEP_WITHIN_LOWEST_S, KEEP_WITHIN_HIGHEST_S = 5.0, 600.0


class Addressing(msgspec.Struct, frozen=True, kw_only=True):
    """Of one family (IPv4 or IPv6) on one interface. ``dhcp``: the addresses are those of the lease (in a request:
    none)."""

    mode: Literal["none", "dhcp", "static"]
    addresses: list[str] = []  # "10.0.0.5/24"
    gateway: str = ""


class InterfaceAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """None: that family, or the name servers of the host, are left as they are."""

    ipv4: Addressing | None = None
    ipv6: Addressing | None = None
    dns: list[str] | None = None


class AddressesChangeReply(msgspec.Struct, frozen=True, kw_only=True):
    now: InterfaceAddresses  # as asked for; with DHCP what the lease says


class AddressesChange(Request, frozen=True):
    """The addresses of a card; if it is a port of a bridge, then the bridge has them. REFUSED, and nothing is changed,
    if there is no DHCP lease to be had. A change under way that is another one is taken back first.

    ``vlan``: of which the device is the interface; the agent makes it again when the host has started anew.
    ``manages``: the host is managed by this interface from then on, and the agent's door is at every address of it.
    ``answer_first``: the change is made after the answer, which could not leave by an address that goes."""

    op: ClassVar[str] = "addresses.change"
    reply: ClassVar[type] = AddressesChangeReply
    change_id: str
    device: str
    wanted: InterfaceAddresses
    vlan: VlanEnds | None = None
    manages: bool = False
    answer_first: bool = False
    keep_within_s: float = 60.0


class AddressesMade(Request, frozen=True):
    """Answered only when the change has been made: who is answered reaches the host also with it. BAD_STATE until then;
    NOT_FOUND if it has been taken back, or was never asked for."""

    op: ClassVar[str] = "addresses.made"
    reply: ClassVar[type] = Empty
    change_id: str


class AddressesKeep(Request, frozen=True):
    """NOT_FOUND if the change has been taken back, or was never asked for; BAD_STATE if it has not been made yet. Kept
    already: nothing to do."""

    op: ClassVar[str] = "addresses.keep"
    reply: ClassVar[type] = Empty
    change_id: str


class AddressesUndo(Request, frozen=True):
    """Takes the last change back if it is that one, kept or not; else there is nothing to do."""

    op: ClassVar[str] = "addresses.undo"
    reply: ClassVar[type] = Empty
    change_id: str


class HostnameSet(Request, frozen=True):
    """The host's own name, now and after it has started anew."""

    op: ClassVar[str] = "hostname.set"
    reply: ClassVar[type] = Empty
    hostname: str
