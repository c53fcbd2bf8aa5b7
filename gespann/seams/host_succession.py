"""Seam 5, about who leads the pool: which coordinator a host obeys next, and the copy of the pool to lead it by.

Each coordinator leads by an *epoch*, a number that only rises. An agent obeys the highest epoch that it has durably
seen: at its door (``Open.epoch``) it refuses a lower one, and tells who leads now (``Refusal``). Shown a higher one by
whoever has the pool's key, it obeys that, also if its own machine's coordinator led before.

A copy of the pool (its database with its keys, compressed; what is in it is the coordinator's business) is sent in
parts. It replaces the one before only when it is whole, checked and durable.

``PoolTake`` is the moment of decision when a pool changes hands: from the durable answer on, that machine's coordinator
leads.
"""

import secrets
from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_membership import AllegianceReply

PART_BYTES = 4 * 1024 * 1024
COPY_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
_CHANCE_BITS = 32


def next_epoch(epoch: int) -> int:
    """Higher, and never the same for two that take over at once: the one by chance higher wins, everywhere."""
    return ((epoch >> _CHANCE_BITS) + 1) << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The door's line for whoever is not let in. ``epoch`` not 0: that one leads now, from ``coordinator_address``."""

    error: str
    epoch: int = 0
    coordinator_address: str = ""


class PoolLead(Request, frozen=True):
    """From the coordinator of the same machine: it leads this pool. BAD_STATE if this host obeys another, or has seen
    a higher epoch. ``certificate``: by which the pool's next coordinator would be known."""

    op: ClassVar[str] = "pool.lead"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str
    epoch: int
    certificate: str


class PoolFollow(Request, frozen=True):
    """From the coordinator of the same machine, which gives way: this host is a member from here on. BAD_STATE for an
    epoch lower than one seen."""

    op: ClassVar[str] = "pool.follow"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str
    epoch: int
    certificate: str
    coordinator_address: str


class PoolMoved(Request, frozen=True):
    """From the administrator of a member: the same coordinator has another address."""

    op: ClassVar[str] = "pool.moved"
    reply: ClassVar[type] = AllegianceReply
    coordinator_address: str


class CopyAbout(msgspec.Struct, frozen=True, kw_only=True):
    """``copy_id``: SHA-256 of its bytes, in hex. ``taken_at``: when the database looked so (XenAPI time)."""

    copy_id: str
    size_bytes: int
    pool_uuid: str
    epoch: int
    taken_at: str


class CopyShowReply(msgspec.Struct, frozen=True, kw_only=True):
    about: CopyAbout | None
    path: str = ""  # on that machine


class CopyShow(Request, frozen=True):
    op: ClassVar[str] = "copy.show"
    reply: ClassVar[type] = CopyShowReply


class CopyPart(Request, frozen=True):
    """Bytes of a copy from ``offset_bytes`` on. Offset 0 begins it anew; BAD_STATE if parts before it are missing."""

    op: ClassVar[str] = "copy.part"
    reply: ClassVar[type] = Empty
    copy_id: str
    offset_bytes: int
    data: bytes

    def __repr__(self) -> str:  # keys are in it
        return f"CopyPart({self.copy_id[:12]} at {self.offset_bytes}, {len(self.data)} bytes)"


class CopyKeep(Request, frozen=True):
    """All parts were sent: checked and made durable in place of the copy before. BAD_STATE if they do not make what
    ``about`` says, or this host is no member of that pool."""

    op: ClassVar[str] = "copy.keep"
    reply: ClassVar[type] = CopyShowReply
    about: CopyAbout


class PoolTake(Request, frozen=True):
    """The decision: this machine's coordinator leads by ``epoch``, from this copy. BAD_STATE: no such copy here, it was
    withdrawn, or this host has seen a higher epoch. ``how`` is for the record."""

    op: ClassVar[str] = "pool.take"
    reply: ClassVar[type] = AllegianceReply
    pool_uuid: str
    epoch: int
    copy_id: str
    how: Literal["handover", "emergency"] = "handover"


class PoolTakeWithdraw(Request, frozen=True):
    """No ``PoolTake`` with this copy will be obeyed any more. The answer says whether one has been: ``epoch``."""

    op: ClassVar[str] = "pool.take_withdraw"
    reply: ClassVar[type] = AllegianceReply
    copy_id: str
