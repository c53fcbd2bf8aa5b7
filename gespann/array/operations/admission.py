"""Whether a pool can take what is asked of it: the group's promises against the file system's numbers."""

import msgspec

from gespann.array.data_plane.link import DataPlane
from gespann.array.model.member_space import MemberSpaces
from gespann.array.model.records import StoragePool, Volume
from gespann.array.model.refusals import Conflict
from gespann.array.model.sizes import format_size
from gespann.array.model.space import STOP_SNAPSHOTS, FileSystem, PoolSpace, pool_spaces, snapshot_room
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

    def need_snapshot_room(self, disk: Disk, volumes: list[Volume]) -> None:
        """Conflict if a pool has not the room for a new snapshot of each of those volumes that stop at snapshots."""
        spaces = self.spaces(disk)
        needed: dict[int, int] = {}
        for volume in volumes:
            if volume.snap_depletion == STOP_SNAPSHOTS:
                capacity_bytes = spaces[volume.pool_id].capacity_bytes
                room_bytes = snapshot_room(disk.allocated.get(volume.naa, 0), capacity_bytes)
                needed[volume.pool_id] = needed.get(volume.pool_id, 0) + room_bytes
        for pool_id, more_bytes in needed.items():
            free_bytes, name = spaces[pool_id].free_bytes, self.pools.by_id(pool_id).name
            if more_bytes > free_bytes or free_bytes == 0:
                raise Conflict(
                    f"Storage pool {name} has not enough free space for a snapshot: "
                    f"{format_size(more_bytes, rounding='up')} needed, {format_size(free_bytes, rounding='down')} "
                    "free. Delete snapshots or volumes."
                )

    def need_shared(self, disk: Disk, more_bytes: int) -> None:
        """The same for space that a pool with a capacity is to set aside from what the others share."""
        self.need(disk, self.pools.by_id(1), more_bytes)
