"""Seam 2: what the pool asks of a storage repository driver.

A driver is a folder in ``gespann/sr`` and one line in ``gespann/sr/registry.py``. It keeps no state of its own that it
could not fetch again from the storage. All calls are coroutines; each may be repeated (same arguments, same result).
Everything a driver refuses or fails at is an ``SrError`` with a number of the XenAPI's SM list.

Units: bytes.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from gespann.seams.host_agent import FileSource, IscsiSource


class SrError(Exception):
    """``number`` as in SR_BACKEND_FAILURE_<number>; the API shows ["", description, detail]."""

    def __init__(self, number: int, description: str, detail: str = "") -> None:
        super().__init__(f"SR_BACKEND_FAILURE_{number}: {description} {detail}".rstrip())
        self.number = number
        self.description = description
        self.detail = detail


@dataclass(frozen=True)
class DriverInfo:
    """What the XenAPI shows of a driver as an SM record."""

    type: str
    name_label: str
    name_description: str
    capabilities: tuple[str, ...]  # SR_PROBE, VDI_CREATE, ...
    configuration: dict[str, str]  # device-config key -> its description
    secret_keys: frozenset[str] = frozenset()  # device-config keys never shown
    vendor: str = "Gespann"
    copyright: str = ""
    version: str = "0.1"
    required_api_version: str = "0.1"
    features: dict[str, int] = field(default_factory=dict)
    snapshots_together: int = 1  # how many volumes one ``volumes_snapshot`` takes


@dataclass(frozen=True)
class Sr:
    """A repository as its driver sees it."""

    uuid: str
    device_config: dict[str, str] = field(repr=False)  # with its secrets
    sm_config: dict[str, str] = field(default_factory=dict)
    name_label: str = ""
    name_description: str = ""


@dataclass(frozen=True)
class SrStat:
    physical_size_bytes: int
    physical_utilisation_bytes: int
    virtual_allocation_bytes: int


@dataclass(frozen=True)
class VolumeSpec:
    """A VDI to be made. ``vdi_uuid`` is chosen by the pool, so that a repeat finds what it made."""

    vdi_uuid: str
    size_bytes: int
    name_label: str = ""
    name_description: str = ""
    vdi_type: str = "user"
    read_only: bool = False
    sharable: bool = False
    sm_config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SnapshotSpec:
    """``source_vdi_uuid``: of what. ``spec.size_bytes`` and ``spec.sm_config`` are not used: both are the source's."""

    source_vdi_uuid: str
    spec: VolumeSpec


@dataclass(frozen=True)
class Volume:
    """A VDI as the storage has it. ``location`` is the driver's own handle."""

    vdi_uuid: str
    location: str
    virtual_size_bytes: int  # what guests see, rounded up as the storage does
    utilisation_bytes: int
    name_label: str = ""
    name_description: str = ""
    vdi_type: str = "user"
    read_only: bool = False
    sharable: bool = False
    is_a_snapshot: bool = False
    snapshot_of: str = ""  # vdi_uuid, also after that was destroyed
    snapshot_time: str = ""  # ISO 8601 as the XenAPI writes it
    sm_config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """One start of one VM, or one use of a volume by the pool itself. ``opening_id`` names it for ever: name and
    secret on the storage are made for it, and repeating ``open`` with it gives the same.

    At most 31 letters, digits, ``-``, ``.`` and ``:`` (51 for what is no snapshot). ``chap_user`` is a wish: a driver
    that finds openings again from the storage alone may use a name made of ``opening_id``. What counts is the source
    that ``open`` answers with.
    ``chap_secret``: 12 to 16 letters and digits. ``beside``: the one other opening that may stay in force meanwhile,
    of a machine that is on its way to another host. The other one keeps the right to write until ``hand_over``; before
    that this one reads, and a storage that can tell the two apart refuses its writes. Closing the other one leaves this
    one's sessions alone if it can."""

    opening_id: str
    mode: Literal["RO", "RW"]
    initiator: str
    chap_user: str
    chap_secret: str = field(repr=False)
    beside: str = ""


@dataclass(frozen=True)
class Changes:
    """Where two VDIs may differ; what is not named is the same in both."""

    extents: list[tuple[int, int]]  # (offset, length) in bytes, ascending; none is empty or overlaps the next
    next_offset: int | None  # where to ask on; none: all has been said


@dataclass(frozen=True)
class StorageWarning:
    """``number`` rises from one to the next. ``vdi_uuid_begins``: how the uuid of the VDI does that it is about; empty:
    it is about the storage as a whole."""

    number: int
    text: str
    vdi_uuid_begins: str = ""


class SrDriver(Protocol):
    """The volume half: runs on the coordinator. ``open`` answers with the datapath half: what QEMU must open."""

    info: DriverInfo

    async def probe(self, device_config: dict[str, str], sm_config: dict[str, str]) -> str:
        """The XML that SR.probe shows."""
        ...

    async def create(self, sr: Sr, physical_size_bytes: int) -> dict[str, str]:
        """Formats the repository on the storage; gives the sm_config to keep."""
        ...

    async def destroy(self, sr: Sr) -> None:
        """Takes the repository itself off the storage. Refused (SrError 39) while volumes are in it."""
        ...

    async def attach(self, sr: Sr) -> None:
        """Checks that the storage is reachable and holds this repository."""
        ...

    async def detach(self, sr: Sr) -> None:
        """Lets go of connections held for it."""
        ...

    async def update(self, sr: Sr) -> None:
        """Writes name and description of the repository to the storage."""
        ...

    async def stat(self, sr: Sr) -> SrStat: ...

    async def warnings(self, sr: Sr, after: int | None) -> list[StorageWarning] | None:
        """What the storage has warned of, as far as it concerns the repository, in order: since the one with the number
        ``after``, or (none) the last few. None: this storage does not tell."""
        ...

    async def scan(self, sr: Sr) -> list[Volume]:
        """All volumes of the repository, from the storage alone."""
        ...

    async def volumes_gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        """Which of these the storage has no more. Asked every minute, so a driver that would have to open something for
        the answer says nothing (an empty list) and leaves it to ``scan``."""
        ...

    async def volume_create(self, sr: Sr, spec: VolumeSpec) -> Volume: ...

    async def volume_destroy(self, sr: Sr, vdi_uuid: str) -> None:
        """Also closes it to everybody. Succeeds when it is gone already. Its snapshots stay usable without it."""
        ...

    async def volume_resize(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        """Grows, also while open. Shrinking is refused (SrError 79)."""
        ...

    async def volume_clone(self, sr: Sr, source_vdi_uuid: str, spec: VolumeSpec) -> Volume:
        """A writable independent copy made by the storage itself, of a volume or of a snapshot; ``spec.size_bytes`` is
        ignored."""
        ...

    async def volumes_snapshot(self, sr: Sr, snapshots: list[SnapshotSpec]) -> list[Volume]:
        """Snapshots of one instant, also of open volumes: all of them or none. They are volumes too: ``open``,
        ``volume_clone``, ``volume_update`` and ``volume_destroy`` take them, and writing to one changes nothing else.
        A snapshot of a snapshot is refused (SrError 168), and more than ``snapshots_together`` (SrError 82)."""
        ...

    async def volumes_snapshot_undo(self, sr: Sr, snapshots: list[SnapshotSpec]) -> None:
        """Takes back what ``volumes_snapshot`` with these arguments has made, wholly or in part."""
        ...

    async def volume_restore(self, sr: Sr, vdi_uuid: str, snapshot_vdi_uuid: str, kept: VolumeSpec) -> Volume:
        """Makes a volume what one of its snapshots is, its size too. What it held before stays as the snapshot
        ``kept``, which the caller destroys. Refused (SrError 24) while it is open, and (SrError 144) unless the
        snapshot is one of this volume's own."""
        ...

    async def volume_restore_undo(self, sr: Sr, vdi_uuid: str, kept_vdi_uuid: str) -> None:
        """Makes the volume what ``kept`` is and destroys that. Without ``kept`` there is nothing to undo."""
        ...

    async def volume_changes(self, sr: Sr, older_vdi_uuid: str, newer_vdi_uuid: str, offset: int = 0) -> Changes | None:
        """Where the two may differ, from ``offset`` (bytes) up to the end of the newer, as far as one answer of the
        storage goes. What the older lacks counts as zeroes. Nothing is read and nothing opened. None: this storage
        cannot tell of these two; whoever asks has to compare what they hold."""
        ...

    async def volume_update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        """Writes name, description and other metadata; ``sm_config`` keys that the storage can change take effect."""
        ...

    async def open(self, sr: Sr, vdi_uuid: str, opening: Opening) -> IscsiSource | FileSource:
        """Opens the volume to exactly this opening. Refused (SrError 24) while another has it, unless both are RO."""
        ...

    async def close(self, sr: Sr, vdi_uuid: str, opening_id: str) -> None:
        """Ends an opening: its record and secret are gone, its sessions dropped. Gone already: succeeds."""
        ...

    async def hand_over(self, sr: Sr, vdi_uuid: str, opening_id: str, to_opening_id: str) -> None:
        """The right to write goes from one opening to the one that was opened beside it. After it nothing that the
        first has sent, or still sends, can land; it may be logged in and read until it is closed. A storage without
        such a right closes the first. Repeated: succeeds."""
        ...

    async def openings(self, sr: Sr, vdi_uuid: str) -> list[str]:
        """The opening ids in force on the storage, for reconciling after a crash."""
        ...

    async def shut_down(self) -> None:
        """The process ends: gives back what is held on the storage for its sake, such as sessions. Volumes that are
        open stay so."""
        ...
