"""Seam 4: what group control says to the engine, and what the engine answers.

Transport: ``seams.json_lines`` over a Unix socket of mode 0600. Each request class below is one ``op``; its fields
are the ``args``; the class named in ``reply`` gives the fields of ``ok``. Golden lines of every message, read by the
Rust and the Python tests alike, are in ``tests/seams/engine_socket/``.

Promises of the engine:
* Until the first ``configure`` after its start is answered nobody can log in (login status 0x0301) and discovery is
  empty.
* What is answered is durable (volume files) or in force (targets, secrets: these live in memory and are pushed again).
* Every request may be repeated: creating what is there with the same size, or deleting what is gone, succeeds.
* ``session.drop`` answers when no command of the dropped sessions can be admitted any more; ``volume.drain`` when all
  that were admitted have finished, so that after drop and drain no old write can still land.

Units: bytes, milliseconds. A volume's identity is its NAA identifier, 32 lower-case hex digits.
"""

from typing import ClassVar

import msgspec

PROTOCOL = "gespann-engine"
VERSION = 1

ERROR_CODES = frozenset(
    {
        "BAD_REQUEST",  # malformed, unknown op, value out of range: the caller's mistake
        "BAD_VERSION",  # hello with a version this engine does not speak
        "NOT_FOUND",  # no such volume
        "EXISTS",  # there already, and different from what was asked
        "BUSY",  # refused in this state: sessions or commands in the way
        "NO_SPACE",  # the file system is full, or a thick volume does not fit
        "IO",  # the file system failed; message has the system's words
        "TIMEOUT",  # drain did not finish in time; nothing was undone
    }
)


class Empty(msgspec.Struct, frozen=True):
    """Nothing to say but yes."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all requests."""

    op: ClassVar[str]
    reply: ClassVar[type]


class HelloReply(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str
    version: int
    engine_version: str
    boot_id: str  # new at each start of the engine: counters and sessions of another boot say nothing
    configured: bool
    pid: int


class Hello(Request, frozen=True):
    """First request on each connection."""

    op: ClassVar[str] = "hello"
    reply: ClassVar[type] = HelloReply
    version: int


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """One access record: an initiator must match all its fields. Empty or "*" matches any initiator, no user means no
    CHAP, each octet of the address may be "*"."""

    initiator: str = ""
    chap_user: str = ""
    address: str = "*.*.*.*"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One volume as an iSCSI target, LUN 0.

    ``generation``: sessions carry the generation in force at their login; commands of any other are refused, so raising
    it shuts every older session out at once. Removing a record drops nobody (a PS group behaves the same).
    ``writer``: the initiator that has the right to change blocks, if it is not everybody's who is logged in. What
    others send is answered with RESERVATION CONFLICT; reading is open to all. When it changes, the old one's changes
    are refused from that instant on, and the new one's admitted (BUSY until then) when all under way have finished.
    ``online`` false: logins are refused (status 0x0203, not found) and sessions dropped.
    """

    volume: str
    name: str  # iqn
    alias: str = ""
    online: bool = False
    read_only: bool = False
    multihost: bool = False  # false: only one initiator name at a time
    generation: int = 1
    access: list[Access] = []
    writer: str = ""
    vendor: str = "GESPANN"  # 8 bytes at most, T10 vendor identification
    product: str = "VOLUME"  # 16 bytes at most
    revision: str = "1.0"  # 4 bytes at most
    naa: str = ""  # as VPD page 0x83 shows it; empty: the volume's own identity
    block_size: int = 512  # 512 or 4096
    physical_block_size: int = 0  # what the disk says of its physical blocks, 512 or 4096; 0: the same as block_size


class ChapUser(msgspec.Struct, frozen=True, kw_only=True):
    user: str
    secret: str


class Configure(Request, frozen=True):
    """The whole policy at once; what is not in it is gone, and its sessions are dropped. Ends the closed state."""

    op: ClassVar[str] = "configure"
    reply: ClassVar[type] = Empty
    targets: list[Target]
    chap_users: list[ChapUser]
    mutual: ChapUser | None = None  # how the group proves itself when an initiator asks
    portal_address: str = ""  # "host:port" that SendTargets names; empty: the address the initiator used


class TargetPut(Request, frozen=True):
    """Makes or changes one target."""

    op: ClassVar[str] = "target.put"
    reply: ClassVar[type] = Empty
    target: Target


class TargetRemove(Request, frozen=True):
    """Takes a target away and drops its sessions. The volume's data stays."""

    op: ClassVar[str] = "target.remove"
    reply: ClassVar[type] = Empty
    volume: str


class ChapPut(Request, frozen=True):
    op: ClassVar[str] = "chap.put"
    reply: ClassVar[type] = Empty
    user: str
    secret: str


class ChapRemove(Request, frozen=True):
    op: ClassVar[str] = "chap.remove"
    reply: ClassVar[type] = Empty
    user: str


class ChapMutual(Request, frozen=True):
    """Sets (or, with none, clears) how the group proves itself."""

    op: ClassVar[str] = "chap.mutual"
    reply: ClassVar[type] = Empty
    credential: ChapUser | None = None


class VolumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    volume: str
    size_bytes: int
    allocated_bytes: int  # what of it is mapped now, shared or its own; of a thick volume also what is reserved
    thick: bool
    origin: str | None = None  # what it was made from by snapshot or clone; may be gone since; a rollback leaves it


class VolumeCreate(Request, frozen=True):
    """Makes a volume that reads as zeroes. Thick: its space is reserved now (NO_SPACE if it is not there)."""

    op: ClassVar[str] = "volume.create"
    reply: ClassVar[type] = VolumeInfo
    volume: str
    size_bytes: int
    thick: bool = False


class VolumeDelete(Request, frozen=True):
    """BUSY while a target serves it."""

    op: ClassVar[str] = "volume.delete"
    reply: ClassVar[type] = Empty
    volume: str


class VolumeResize(Request, frozen=True):
    """Grows, or shrinks (what lies behind the new end is gone). Sessions see it: unit attention 2A/09."""

    op: ClassVar[str] = "volume.resize"
    reply: ClassVar[type] = VolumeInfo
    volume: str
    size_bytes: int


class VolumeClone(Request, frozen=True):
    """A new independent volume with the contents that ``source`` has at this instant. Writes to the source wait at
    most for the part of the clone that needs them to. Atomic: after a crash the clone is whole or absent."""

    op: ClassVar[str] = "volume.clone"
    reply: ClassVar[type] = VolumeInfo
    source: str
    volume: str
    thick: bool = False


class SharePair(msgspec.Struct, frozen=True, kw_only=True):
    """A volume to be made with the contents of another."""

    source: str
    volume: str
    thick: bool = False


class VolumeSnapshotReply(msgspec.Struct, frozen=True, kw_only=True):
    volumes: list[VolumeInfo]  # in the order of the request
    pause_us: int  # how long writes to the sources had to wait; 0 if all was so already


class VolumeSnapshot(Request, frozen=True):
    """Makes new volumes with the contents that all the sources have at one instant: no write answered before this
    request is missing. Each is writable, and independent of its source at once: a snapshot and a clone are the same to
    the engine, both share the source's map. Atomic: after a crash all of them are there or none. Repeated: if all are
    there with these origins it succeeds; if only some, or with another origin, EXISTS. At most 1,024 pairs, no volume
    named as both."""

    op: ClassVar[str] = "volume.snapshot"
    reply: ClassVar[type] = VolumeSnapshotReply
    pairs: list[SharePair]


class VolumeRollback(Request, frozen=True):
    """``volume`` gets the contents and the size that ``source`` has now (any volume, usually a snapshot of it). BUSY
    while its target is online or sessions of it exist. Atomic."""

    op: ClassVar[str] = "volume.rollback"
    reply: ClassVar[type] = VolumeInfo
    volume: str
    source: str


class DiffExtent(msgspec.Struct, frozen=True, kw_only=True):
    offset: int  # bytes
    length: int  # bytes


class VolumeDiffReply(msgspec.Struct, frozen=True, kw_only=True):
    extents: list[DiffExtent]  # ascending; none is empty or touches the next
    next_offset: int | None  # where to go on; none: all has been said


class VolumeDiff(Request, frozen=True):
    """Where two volumes may differ, to the engine's chunk, from ``offset`` up to the end of ``newer``; what ``older``
    lacks counts as zeroes. At most ``limit`` extents (1 to 100,000)."""

    op: ClassVar[str] = "volume.diff"
    reply: ClassVar[type] = VolumeDiffReply
    older: str
    newer: str
    offset: int = 0
    limit: int = 10_000


class VolumeUsageReply(msgspec.Struct, frozen=True, kw_only=True):
    mapped_bytes: int  # what the volume references, shared or not
    exclusive_bytes: int  # what deleting it alone would give back


class VolumeUsage(Request, frozen=True):
    op: ClassVar[str] = "volume.usage"
    reply: ClassVar[type] = VolumeUsageReply
    volume: str


class VolumeAddedReply(msgspec.Struct, frozen=True, kw_only=True):
    added_bytes: int


class VolumeAdded(Request, frozen=True):
    """How much ``volume`` references that none of ``than`` does in the same place with the same contents; without any
    all that it references."""

    op: ClassVar[str] = "volume.added"
    reply: ClassVar[type] = VolumeAddedReply
    volume: str
    than: list[str] = []


class VolumeLimit(Request, frozen=True):
    """How much a thin volume may have mapped: beyond it a write that allocates is answered with the space-exhausted
    sense (DATA PROTECT 27/07). Lives in memory, like the policy: it is pushed again after each start."""

    op: ClassVar[str] = "volume.limit"
    reply: ClassVar[type] = Empty
    volume: str
    max_in_use_bytes: int | None = None


class VolumeThick(Request, frozen=True):
    """Reserves (thick) or stops reserving (thin) the space of a volume."""

    op: ClassVar[str] = "volume.thick"
    reply: ClassVar[type] = VolumeInfo
    volume: str
    thick: bool


class VolumeListReply(msgspec.Struct, frozen=True, kw_only=True):
    volumes: list[VolumeInfo]


class VolumeList(Request, frozen=True):
    """All volumes there are, or the one named (NOT_FOUND if it is not there)."""

    op: ClassVar[str] = "volume.list"
    reply: ClassVar[type] = VolumeListReply
    volume: str | None = None


class PoolSpace(msgspec.Struct, frozen=True, kw_only=True):
    pool: str
    used_bytes: int  # what its volumes occupy; what volumes share counts once, in the pool of the one that has the file
    capacity_bytes: int | None  # as set by ``space.pools``


class SpaceReply(msgspec.Struct, frozen=True, kw_only=True):
    total_bytes: int  # of the file system with the data directory
    free_bytes: int  # what of it could still be taken, whatever the limit
    used_bytes: int  # what the volumes occupy; what they share counts once
    limit_bytes: int | None  # as set by ``space.limit``
    reclaiming_bytes: int  # of deleted and rolled-back volumes: still in used_bytes, being given back; about so much
    pools: list[PoolSpace]  # those of ``space.pools``


class Space(Request, frozen=True):
    op: ClassVar[str] = "space"
    reply: ClassVar[type] = SpaceReply


class SpaceLimit(Request, frozen=True):
    """How much all volumes together may occupy (none: what the file system has): beyond it a write that allocates is
    answered with the space-exhausted sense. Past ``warn_percent`` (1 to 100, 100: never) of it initiators are warned
    (unit attention 38/07). Lives in memory, like the policy: it is pushed again after each start."""

    op: ClassVar[str] = "space.limit"
    reply: ClassVar[type] = Empty
    limit_bytes: int | None = None
    warn_percent: int = 100


class SpacePool(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity_bytes``: so much is set aside for the volumes of the pool, and they may occupy no more; none: they
    share what the pools with a capacity leave. ``volumes`` need not be there yet."""

    pool: str
    capacity_bytes: int | None = None
    volumes: list[str] = []


class SpacePools(Request, frozen=True):
    """These are all the storage pools from now on, and these volumes are in them. A volume that is not named stays in
    its pool (in none if that is gone; it shares then); a new one is in the pool of the one it is made from. In a full
    pool a write that allocates is answered with the space-exhausted sense, as beyond any limit. Lives in memory, like
    the policy: it is pushed again after each start. BAD_REQUEST if a pool or a volume is named twice."""

    op: ClassVar[str] = "space.pools"
    reply: ClassVar[type] = Empty
    pools: list[SpacePool]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    session: int  # unique within one boot of the engine
    volume: str
    initiator: str
    chap_user: str
    address: str  # of the initiator, without port
    generation: int
    connected_ms: int
    idle_ms: int  # since the last PDU
    in_flight: int
    read_bytes: int
    written_bytes: int


class SessionListReply(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[Session]


class SessionList(Request, frozen=True):
    op: ClassVar[str] = "session.list"
    reply: ClassVar[type] = SessionListReply
    volume: str | None = None


class SessionDropReply(msgspec.Struct, frozen=True, kw_only=True):
    dropped: int


class SessionDrop(Request, frozen=True):
    """Drops the sessions of a volume: all, only one initiator's, or only those older than a generation."""

    op: ClassVar[str] = "session.drop"
    reply: ClassVar[type] = SessionDropReply
    volume: str
    initiator: str | None = None
    below_generation: int | None = None


class VolumeDrain(Request, frozen=True):
    """Answers when every command admitted before this request has finished; TIMEOUT if that takes longer."""

    op: ClassVar[str] = "volume.drain"
    reply: ClassVar[type] = Empty
    volume: str
    timeout_ms: int = 30_000


REQUESTS: tuple[type[Request], ...] = (
    Hello,
    Configure,
    TargetPut,
    TargetRemove,
    ChapPut,
    ChapRemove,
    ChapMutual,
    VolumeCreate,
    VolumeDelete,
    VolumeResize,
    VolumeClone,
    VolumeThick,
    VolumeSnapshot,
    VolumeRollback,
    VolumeDiff,
    VolumeUsage,
    VolumeAdded,
    VolumeLimit,
    VolumeList,
    Space,
    SpaceLimit,
    SpacePools,
    SessionList,
    SessionDrop,
    VolumeDrain,
)
