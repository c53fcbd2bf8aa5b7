"""Seam 5, about the agent itself: which coordinator it obeys, and the door for one that is on another machine.

alone ──JoinOffer──► joining ──JoinAdopt──► member
  ▲                     │ JoinWithdraw         │ JoinRelease
  └─────────────────────┴──────────────────────┘

The agent's state is the only home of this answer: the coordinators on both sides ask it. It is durable before it is
answered. ``alone``: the coordinator on the same machine, by the Unix socket, of a pool of one or of many. ``joining``:
still that one; the offered one may connect and adopt. ``member``: the adopted one, over mutual TLS with both
certificates pinned. Who leads the pool may change: ``seams.host_succession``.

On the TLS door the first line of a connection says what it is for (``Open``, as JSON); the answer is one line,
``{"ok": true}`` or a ``host_succession.Refusal``; then come the bytes of what was opened.
"""

from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import Event

DOOR_PORT = 4434
FIRST_LINE_BYTES = 4096

AllegianceState = Literal["alone", "joining", "member"]


class AllegianceReply(msgspec.Struct, frozen=True, kw_only=True):
    state: AllegianceState
    certificate: str  # the agent's own, PEM
    door_port: int  # 0: this agent has no door
    coordinator_address: str = ""  # where the pool's API is, of a member
    pool_uuid: str = ""
    epoch: int = 0  # the highest that it has seen (``seams.host_succession``)
    taken_copy: str = ""  # this machine's coordinator leads by that epoch from this copy
    taken_how: str = ""
    silent_s: float = 0.0  # of a member: since when no coordinator is connected


class Allegiance(Request, frozen=True):
    op: ClassVar[str] = "allegiance"
    reply: ClassVar[type] = AllegianceReply


class JoinOffer(Request, frozen=True):
    """From the coordinator of the same machine. BAD_STATE for a member of another pool."""

    op: ClassVar[str] = "join.offer"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str
    coordinator_certificate: str
    coordinator_address: str
    epoch: int = 0


class JoinWithdraw(Request, frozen=True):
    """Takes the offer back; a member stays one. The answer says which of the two it is now."""

    op: ClassVar[str] = "join.withdraw"
    reply: ClassVar[type] = AllegianceReply


class JoinAdopt(Request, frozen=True):
    """From the offered coordinator. BAD_STATE if there is no offer of that pool (any more)."""

    op: ClassVar[str] = "join.adopt"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str


class JoinRelease(Request, frozen=True):
    """Ends a membership of that pool, or an offer. Of no such pool: nothing to do. The connection on which this came
    may end before the answer does."""

    op: ClassVar[str] = "join.release"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str


class HostPower(Request, frozen=True):
    """Shuts the machine down, or starts it anew. Answers when the machine has been told."""

    op: ClassVar[str] = "host.power"
    reply: ClassVar[type] = Empty
    reboot: bool


class AllegianceChanged(Event, frozen=True):
    event: ClassVar[str] = "allegiance.changed"
    allegiance: AllegianceReply


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """``agent``: the lines of seam 5. ``socket``: a Unix socket of this host, of a console or an image, by its path.
    ``libvirt``: of a machine that is to arrive here, by its ticket. A coordinator says which epoch it leads by, and
    where its clients find it."""

    what: Literal["agent", "socket", "libvirt"]
    path: str = ""
    ticket: str = ""
    epoch: int = 0
    coordinator_address: str = ""
