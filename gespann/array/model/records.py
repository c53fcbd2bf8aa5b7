"""What the group keeps, as plain frozen records. Sizes in bytes, percentages of the reported size."""

from datetime import datetime

import msgspec


class StoragePool(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    name: str
    capacity_bytes: int | None = None  # none: shares the file system's space with the other pools without capacity
    description: str = ""


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


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the engine is asked, removed when its answer is in the volume's row.

    ``create`` and ``clone`` are undone when found at a start; ``delete``, ``resize`` and ``thick`` are finished.
    """

    volume_id: int
    kind: str  # create, clone, delete, resize, thick
    asked_bytes: int = 0  # resize: the size to reach, as asked
    thin: bool = False  # thick: what to become


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
