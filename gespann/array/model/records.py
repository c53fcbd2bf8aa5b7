"""What the group keeps, as plain frozen records. Sizes in bytes, percentages of the reported size."""

from datetime import datetime

import msgspec


class StoragePool(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    name: str
    capacity_bytes: int | None = None  # none: shares the file system's space with the other pools without capacity
    description: str = ""
    warn_percent: int = 90  # of its capacity in use


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    id: int = 0
    name: str
    naa: str
    target_name: str
    pool_id: int
    asked_bytes: int  # what Size: shows
    size_bytes: int  # what it has: the next multiple of 15 MB
    thin: bool = False
    thin_min_reserve: int = 10
    thin_growth_warn: int = 60
    thin_growth_max: int = 100
    thin_warn_mode: str = "offline"
    snap_reserve: int = 100
    snap_warn: int = 10
    snap_depletion: str = "delete-oldest"
    description: str = ""
    alias: str = ""
    online: bool = True  # as desired; whether it is served also takes an engine that has it
    read_only: bool = False
    multihost: bool = False
    block_size: int = 512
    generation: int = 1
    created_at: str = ""
    bases: str = "[]"  # snapshots that its contents may come from; see ``model.descent``
    template: bool = False
    thin_clone_of: int | None = None  # the template it is attached to
    lease_holder: str = ""  # the initiator that may write; empty: whoever is logged in
    lease_generation: int = 0  # how often the right to write has been given
    thin_stopped: bool = False  # the group has set it offline at its maximum, and sets it online when that is raised


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Its sectors are its volume's, and so are the access records that apply to snapshots."""

    id: int = 0
    volume_id: int
    name: str
    naa: str
    target_name: str
    asked_bytes: int
    size_bytes: int
    description: str = ""
    alias: str = ""
    online: bool = False
    read_only: bool = False
    multihost: bool = False
    generation: int = 1
    created_at: str = ""
    position: int = 0
    bases: str = "[]"  # snapshots of earlier positions that its contents may come from
    added_bytes: int | None = None  # what it holds that its bases do not; none: not counted yet
    schedule_id: int | None = None
    snap_collection_id: int | None = None
    intent: str = ""  # create, delete: begun and not ended


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    id: int = 0
    name: str
    description: str = ""


class SnapCollection(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshots of a collection's volumes of one instant."""

    id: int = 0
    collection_id: int
    name: str
    description: str = ""
    created_at: str = ""
    schedule_id: int | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Of a volume or of a collection. Dates and minutes of the day are UTC."""

    id: int = 0
    volume_id: int | None = None
    collection_id: int | None = None
    name: str
    type: str  # once, hourly, daily, weekly
    start_date: str  # 2010-02-16
    start_minute: int  # of the day
    end_minute: int = 1440  # exclusive: nothing begins at it or later in the day
    every_minutes: int = 0  # within the day; 0: once a day
    max_keep: int = 10
    read_only: bool = False
    online: bool = False
    enabled: bool = True
    due_at: str = ""  # when it runs next; empty: never again
    weekdays: int = 0  # of a weekly one: bit 0 is Monday, as in the MIB (eqliscsiVolumeSched)


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the engine is asked, removed when its answer is in the volume's row.

    ``create`` and ``clone`` are undone when found at a start; ``delete``, ``resize``, ``thick`` and ``restore`` are
    finished.
    """

    volume_id: int
    kind: str  # create, clone, delete, resize, thick, restore
    asked_bytes: int = 0  # resize: the size to reach, as asked
    thin: bool = False  # thick: what to become
    snapshot_id: int | None = None  # restore: from which


class AccessRecord(msgspec.Struct, frozen=True, kw_only=True):
    volume_id: int
    number: int  # 1 to 16, what the CLI calls ID
    initiator: str = ""
    address: str = "*.*.*.*"
    auth_method: str = "none"
    chap_user: str = ""
    apply_to: str = "both"


class ChapUser(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    enabled: bool = True


class CliSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Kept per account: clients set them in one session and rely on them in the next."""

    confirmation: bool = True
    paging: bool = True
    events: bool = True
    formatoutput: bool = True
    displayinMB: bool = False  # spelled as the CLI does
    idlelogout: bool = False
    reprintBadInput: bool = True


class Account(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    read_only: bool = False
    enabled: bool = True
    description: str = ""
    public_keys: list[str] = []
    settings: CliSettings = CliSettings()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    at: datetime
    level: str  # INFO, AUDIT, WARNING, ERROR, FATAL
    code: str
    text: str
