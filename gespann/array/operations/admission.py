"""Whether a pool can take what is asked of it: the group's promises against the file system's numbers."""

import msgspec

from gespann.array.data_plane.link import DataPlane
from gespann.array.model.member_space import MemberSpaces
from gespann.array.model.records import StoragePool
from gespann.array.model.refusals import Conflict
from gespann.array.model.sizes import format_size
from gespann.array.model.space import FileSystem, PoolSpace, pool_spaces
from gespann.array.model.storage_pools import StoragePools
from gespann.array.model.volumes import Volumes


class Disk(msgspec.Struct, frozen=True):
    """The engine's numbers at one instant. Rows added since count with their whole reserve, so that two requests side
    by side never get the same space."""

    file_system: FileSystem
    allocated: dict[str, int]
    used: dict[str, int]  # by storage pool


class Admission:
    def __init__(
        self, pools: StoragePools, volumes: Volumes, data_plane: DataPlane, member_spaces: MemberSpaces
    ) -> None:
        self.pools = pools
        self._volumes = volumes
        self._data_plane = data_plane
        self._member_spaces = member_spaces

    async def look(self) -> Disk:
        """SeamLost if the engine does not answer."""
        inventory = await self._data_plane.inventory()
        space = await self._data_plane.space()
        return Disk(
            self._member_spaces.get().left_of(space),
            {naa: info.allocated_bytes for naa, info in inventory.items()},
            {pool.pool: pool.used_bytes for pool in space.pools},
        )

    def spaces(self, disk: Disk) -> dict[int, PoolSpace]:
        return pool_spaces(self.pools.all(), self._volumes.rows(), disk.allocated, disk.used, disk.file_system)

    def need(self, disk: Disk, pool: StoragePool, more_bytes: int) -> None:
        """Conflict if the pool cannot promise ``more_bytes``."""
        free_bytes = self.spaces(disk)[pool.id].free_bytes
        if more_bytes > free_bytes:
            raise Conflict(
                f"Storage pool {pool.name} has not enough free space: "
                f"{format_size(more_bytes, rounding='up')} needed, {format_size(free_bytes, rounding='down')} free."
            )

    def need_shared(self, disk: Disk, more_bytes: int) -> None:
        """The same for space that a pool with a capacity is to set aside from what the others share."""
        self.need(disk, self.pools.by_id(1), more_bytes)
