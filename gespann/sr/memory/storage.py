"""What the memory driver's imaginary array holds. It outlives the driver, as an array outlives a coordinator."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import Opening, StorageWarning, Volume

MIB = 1024 * 1024


@dataclass
class MemoryVolume:
    """``content``: in place of blocks, what a test says was written."""

    volume: Volume
    openings: dict[str, Opening] = field(default_factory=dict)
    lease: str = ""  # the opening that may write; empty: any
    content: str = ""


@dataclass
class MemorySr:
    name_label: str
    name_description: str
    storage_pool: str
    volumes: dict[str, MemoryVolume] = field(default_factory=dict)


@dataclass
class MemoryStorage:
    """``username``/``password``: what device-config must say. ``reachable`` false: every call is refused with 164.
    ``block_differences``: who keeps the blocks, if anybody does, tells where two volumes differ up to a size."""

    capacity_bytes: int = 1024 * 1024 * MIB
    page_bytes: int = 15 * MIB
    storage_pools: tuple[str, ...] = ("default",)
    username: str = "grpadmin"
    password: str = field(default="grpadmin", repr=False)
    reachable: bool = True
    drivers_shut_down: int = 0  # how often a driver said good-bye
    warnings: list[StorageWarning] = field(default_factory=list)
    srs: dict[str, MemorySr] = field(default_factory=dict)
    block_differences: Callable[[str, str, int], list[tuple[int, int]]] | None = field(default=None, repr=False)
    block_copies: list[Callable[[str, str], None]] = field(default_factory=list, repr=False)

    def now(self) -> str:
        """Its own clock, which stands still."""
        return "20260101T00:00:00Z"

    def copy_blocks(self, source_uuid: str, target_uuid: str) -> None:
        """One volume now holds what another does: for fakes that keep blocks of their own."""
        for copy in self.block_copies:
            copy(source_uuid, target_uuid)

    def allocated_bytes(self) -> int:
        volumes = [held.volume for sr in self.srs.values() for held in sr.volumes.values()]
        return sum(volume.virtual_size_bytes for volume in volumes if not volume.is_a_snapshot)

    def rounded(self, size_bytes: int) -> int:
        return -(-size_bytes // self.page_bytes) * self.page_bytes

    def find(self, vdi_uuid: str) -> MemoryVolume | None:
        return next((sr.volumes[vdi_uuid] for sr in self.srs.values() if vdi_uuid in sr.volumes), None)

    def target(self, vdi_uuid: str) -> str:
        return f"iqn.2001-05.com.equallogic:memory-{vdi_uuid}"

    def admits(self, source: IscsiSource | FileSource) -> bool:
        """Would the storage let this source in now? For fake hosts, which can so refuse what a real array refuses."""
        if not isinstance(source, IscsiSource):
            return False
        for sr in self.srs.values():
            for vdi_uuid, held in sr.volumes.items():
                if self.target(vdi_uuid) == source.target:
                    wanted = (source.initiator, source.chap_user, source.chap_secret)
                    return any((o.initiator, o.chap_user, o.chap_secret) == wanted for o in held.openings.values())
        return False

    def lets_write(self, source: IscsiSource | FileSource) -> bool:
        """Would a write of who is logged in so be admitted now?"""
        if not self.admits(source) or not isinstance(source, IscsiSource):
            return False
        volumes = {self.target(uuid): held for sr in self.srs.values() for uuid, held in sr.volumes.items()}
        held = volumes[source.target]
        return held.lease in ("", *(o.opening_id for o in held.openings.values() if o.initiator == source.initiator))

    def leftovers(self) -> list[str]:
        """Everything a test that has undone all its doings must not find here."""
        found = [f"sr {uuid}" for uuid in self.srs]
        for sr in self.srs.values():
            for vdi_uuid, held in sr.volumes.items():
                found.append(f"volume {vdi_uuid}")
                found += [f"opening {opening_id} of {vdi_uuid}" for opening_id in held.openings]
        return found
