"""Seam 5, about disks that move to other volumes while their machine runs.

    DiskMirror: the volume is opened, and gets all that the disk holds and all that the guest writes meanwhile
    (in step: both hold the same, and stay so)
    DiskPivot: the guest has the volume, and the old one is closed        DiskMirrorStop: the volume is closed again

Who asks for the pivot has paused the guest before, and lets it go on only when it is known which of the two volumes it
has. So until then both hold what the guest has written, and whichever answer is lost, neither is worse than the other.
"""

from typing import ClassVar

import msgspec

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import IscsiSource


class MirrorTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Which opening of which volume, without its secret."""

    target: str
    lun: int
    offset_bytes: int
    initiator: str


def opening_meant(source: IscsiSource) -> MirrorTarget:
    return MirrorTarget(
        target=source.target, lun=source.lun, offset_bytes=source.offset_bytes, initiator=source.initiator
    )


class DiskMirror(Request, frozen=True):
    """Answers when the two are in step. Repeated while it is under way, or when it is in step: the same. NOT_FOUND no
    such start or disk; BAD_STATE the disk is being mirrored to something else; STORAGE the volume could not be opened
    or written, as when it is full or too small: nothing is left of it then, and the guest has noticed nothing.

    ``volume_bytes``: what the volume holds. Of a larger one the guest keeps the size that it knows until its next
    start, and cannot be told another one by ``disk.resize`` before."""

    op: ClassVar[str] = "disk.mirror"
    reply: ClassVar[type] = Empty
    uuid: str
    start_id: str
    device: int
    source: IscsiSource
    volume_bytes: int


class DiskMirrorProgressReply(msgspec.Struct, frozen=True, kw_only=True):
    fraction: float  # 0.0 too where nothing is under way


class DiskMirrorProgress(Request, frozen=True):
    """How far ``disk.mirror`` is. Never waits for it."""

    op: ClassVar[str] = "disk.mirror_progress"
    reply: ClassVar[type] = DiskMirrorProgressReply
    uuid: str
    device: int


class DiskMirrorStop(Request, frozen=True):
    """Ends what is under way to that volume, or is in step, and answers when it is closed; nothing under way, or no
    such machine: succeeds. BAD_STATE if the guest has the volume already: it is not to be taken away then."""

    op: ClassVar[str] = "disk.mirror_stop"
    reply: ClassVar[type] = Empty
    uuid: str
    device: int
    to: MirrorTarget


class DiskPivot(Request, frozen=True):
    """Answers when the guest has the volume and the old one is closed; repeated: succeeds. BAD_STATE if they are not in
    step, or could not be exchanged; NOT_FOUND no such start or disk: in both cases the guest does not have the volume.
    After any other error nobody knows; asked again, it is known."""

    op: ClassVar[str] = "disk.pivot"
    reply: ClassVar[type] = Empty
    uuid: str
    start_id: str
    device: int
    to: MirrorTarget
