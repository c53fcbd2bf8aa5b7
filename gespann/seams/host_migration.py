"""Seam 5, about machines that move while they run.

        destination                              source
    MigrateReceive: knows its disks' secrets,
      lets the source in by a ticket
                                             MigrateSend: memory goes over; there the machine ends
    (it stands still, and writes nothing,
     until it is unpaused)
    MigrateEnd: the ticket is void           MigrateEnd: nothing of it is under way any more

After ``MigrateEnd`` on both sides the machine is in one place, and which one it is ``domain.list`` says. It arrives
paused whatever it was: only who knows that the source's right to write has ended, may let it go on.
"""

from typing import ClassVar

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import DomainSpec


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machine's sockets and its serial log will be, on the host that it goes to."""

    serial_socket: str
    serial_log: str
    vnc_socket: str


class MigrateReceive(Request, frozen=True):
    """``spec``: as for a start, with the start's new id and the disks as this host opens them. ``certificate``: of the
    source's agent, PEM."""

    op: ClassVar[str] = "migrate.receive"
    reply: ClassVar[type] = Landing
    spec: DomainSpec
    ticket: str
    certificate: str


class MovedDisk(msgspec.Struct, frozen=True, kw_only=True):
    """An iSCSI disk as the destination opens it; the secret it has already."""

    device: int
    host: str
    port: int
    initiator: str
    chap_user: str


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """``stood_still_s``: from when the machine stopped here until it was known to have arrived, by this host's clock;
    none: nobody saw it stop."""

    stood_still_s: float | None = None


class MigrateSend(Request, frozen=True):
    """Answers when the machine has arrived and nothing of it is left here. Any refusal: it runs on here, or the answer
    is not known; ``MigrateEnd`` makes it known. Repeated while it is under way: waits for the same."""

    op: ClassVar[str] = "migrate.send"
    reply: ClassVar[type] = Sent
    uuid: str
    start_id: str
    new_start_id: str
    disks: list[MovedDisk]
    landing: Landing
    ticket: str
    address: str  # of the destination's door
    port: int
    certificate: str  # of the destination's agent, PEM


class MigrateProgressReply(msgspec.Struct, frozen=True, kw_only=True):
    fraction: float  # of the memory that has gone over; 0.0 too where nothing is under way


class MigrateProgress(Request, frozen=True):
    """At the source: how far ``migrate.send`` is. Never waits for it."""

    op: ClassVar[str] = "migrate.progress"
    reply: ClassVar[type] = MigrateProgressReply
    uuid: str


class MigrateEnd(Request, frozen=True):
    """On either side: ends what is under way by this ticket, and answers when it has ended."""

    op: ClassVar[str] = "migrate.end"
    reply: ClassVar[type] = Empty
    uuid: str
    ticket: str
