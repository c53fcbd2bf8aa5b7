"""Who has promised which bytes to whom. Pure: rows and the engine's numbers in, the space of each pool out.

A thick volume reserves all it has; a thin one its minimum reserve, or what it occupies if that is more, in steps of
15 MB. A pool with a capacity has set those bytes of the file system aside; the others share what is left.
Snapshot reserve is a limit for what snapshots may hold; it sets no space aside. Snapshots of a volume that stops at
snapshots live on the free space of its pool, and new ones are made only while there is room for what they may come to.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gespann.array.model.records import StoragePool, Volume
from gespann.array.model.sizes import real_size

#: what becomes of snapshots when space runs short: none goes, no new ones come
STOP_SNAPSHOTS = "stop-snapshots"
ROOM_PERCENT = 5  # of a pool's capacity: more need not be free for a new snapshot, however large its volume is


class FileSystem(msgspec.Struct, frozen=True, kw_only=True):
    total_bytes: int
    free_bytes: int


class PoolSpace(msgspec.Struct, frozen=True, kw_only=True):
    capacity_bytes: int
    free_bytes: int
    reserved_bytes: int
    used_bytes: int  # what its volumes and snapshots occupy
    needed_bytes: int  # that, and what is promised to its volumes but not occupied yet
    reported_bytes: int  # the sum of the sizes that its volumes show
    volumes: int


def min_reserve(volume: Volume) -> int:
    """What a thin volume reserves at least."""
    return min(volume.size_bytes, real_size(-(-volume.size_bytes * volume.thin_min_reserve // 100)))


def reserve(volume: Volume, allocated_bytes: int) -> int:
    if not volume.thin:
        return volume.size_bytes
    return max(min_reserve(volume), min(volume.size_bytes, real_size(allocated_bytes)))


def snapshot_reserve(volume: Volume, allocated_bytes: int) -> int:
    """What the volume's snapshots may hold: a share of its own reserve, so it moves with a thin volume."""
    return real_size(reserve(volume, allocated_bytes) * volume.snap_reserve // 100)


def snapshot_room(allocated_bytes: int, capacity_bytes: int) -> int:
    """What has to be free for a new snapshot: as much as it comes to if all that is there now is written anew, but no
    more than a share of the pool."""
    return min(allocated_bytes, capacity_bytes * ROOM_PERCENT // 100)


def pool_spaces(
    pools: Iterable[StoragePool],
    volumes: Iterable[Volume],
    allocated: Mapping[str, int],
    used: Mapping[str, int],
    disk: FileSystem,
) -> dict[int, PoolSpace]:
    """``allocated``: bytes by NAA, for volumes that the engine has; one that it lacks will still take its reserve.
    ``used``: bytes that the volumes and snapshots of a pool occupy, by its name; what they share counts once."""
    pools = list(pools)
    members: dict[int, list[Volume]] = {pool.id: [] for pool in pools}
    for volume in volumes:
        members[volume.pool_id].append(volume)
    shared_total, shared_free = disk.total_bytes, disk.free_bytes
    for pool in pools:
        if pool.capacity_bytes is None:
            promised = sum(_promised(volume, allocated) for volume in members[pool.id])
            shared_free -= promised
        else:
            shared_total -= pool.capacity_bytes
            shared_free -= max(0, pool.capacity_bytes - used.get(pool.name, 0))
    shared = FileSystem(total_bytes=shared_total, free_bytes=shared_free)
    return {pool.id: _space(pool, members[pool.id], allocated, used.get(pool.name, 0), shared) for pool in pools}


def _promised(volume: Volume, allocated: Mapping[str, int]) -> int:
    """Reserved, but not occupied yet: the file system still counts it as free."""
    occupied = allocated.get(volume.naa, 0)
    return max(0, reserve(volume, occupied) - occupied)


def _space(
    pool: StoragePool, volumes: list[Volume], allocated: Mapping[str, int], used: int, shared: FileSystem
) -> PoolSpace:
    reserved = sum(reserve(volume, allocated.get(volume.naa, 0)) for volume in volumes)
    promised = sum(_promised(volume, allocated) for volume in volumes)
    capacity = shared.total_bytes if pool.capacity_bytes is None else pool.capacity_bytes
    free = shared.free_bytes if pool.capacity_bytes is None else capacity - used - promised
    return PoolSpace(
        capacity_bytes=max(0, capacity),
        free_bytes=max(0, free),
        reserved_bytes=reserved,
        used_bytes=used,
        needed_bytes=used + promised,
        reported_bytes=sum(volume.asked_bytes for volume in volumes),
        volumes=len(volumes),
    )
