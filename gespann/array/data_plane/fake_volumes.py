"""The volumes of the fake engine: which chunk holds which content, so that sharing and its undoing can be counted.

A content is a number that no other write has ever got: two volumes with the same number at the same chunk share it.
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from gespann.seams import engine_socket as seam
from gespann.seams.json_lines import SeamError
from gespann.system.files import write_durable

CHUNK_BYTES = 64 * 1024


class FakeVolume(msgspec.Struct):
    size_bytes: int
    thick: bool = False
    origin: str | None = None
    chunks: dict[int, int] = msgspec.field(default_factory=dict)  # chunk to content

    @property
    def allocated_bytes(self) -> int:
        return self.size_bytes if self.thick else len(self.chunks) * CHUNK_BYTES


class SpaceExhausted(Exception):
    """A write that needs space has found none: DATA PROTECT 27/07 of the real engine."""


class FakeVolumes:
    """What lasts of a fake engine; in a file when it is given one."""

    def __init__(self, total_bytes: int, state_path: Path | None) -> None:
        self.total_bytes = total_bytes
        self.foreign_bytes = 0  # what others occupy on the file system
        self.by_name: dict[str, FakeVolume] = {}
        self.limit = seam.SpaceLimit()
        self.volume_limits: dict[str, int] = {}
        self.pools: dict[str, int | None] = {}  # name to capacity
        self.pool_of: dict[str, str] = {}  # volume to the name of its pool
        self._state_path = state_path
        if state_path is not None and state_path.exists():
            self.by_name = msgspec.json.decode(state_path.read_bytes(), type=dict[str, FakeVolume])
        contents = (content for volume in self.by_name.values() for content in volume.chunks.values())
        self._contents = itertools.count(max(contents, default=0) + 1)

    def save(self) -> None:
        if self._state_path is not None:
            write_durable(self._state_path, msgspec.json.encode(self.by_name), 0o600)

    def forget_limits(self) -> None:
        """They live in memory."""
        self.limit = seam.SpaceLimit()
        self.volume_limits = {}
        self.pools, self.pool_of = {}, {}

    # What initiators do ----------------------------------------------------------------------------------------------

    def write(self, name: str, offset: int, length: int) -> None:
        """Raises SpaceExhausted, and has written nothing then."""
        volume = self.find(name)
        touched = range(offset // CHUNK_BYTES, -(-(offset + length) // CHUNK_BYTES))
        users = self._users()
        fresh = sum(1 for chunk in touched if users[chunk, volume.chunks.get(chunk, 0)] != 1) * CHUNK_BYTES
        mapped = len(volume.chunks.keys() | set(touched)) * CHUNK_BYTES
        most = self.volume_limits.get(name)
        if not volume.thick and most is not None and fresh and mapped > most:
            raise SpaceExhausted(f"{name} may have {most} bytes mapped")
        if not volume.thick and fresh > self.free_bytes():
            raise SpaceExhausted("the file system or its limit is full")
        if not volume.thick and fresh > self._pool_free_bytes(name):
            raise SpaceExhausted("the storage pool is full")
        for chunk in touched:
            volume.chunks[chunk] = next(self._contents)

    def unmap(self, name: str, offset: int, length: int) -> None:
        for chunk in range(-(-offset // CHUNK_BYTES), (offset + length) // CHUNK_BYTES):
            self.find(name).chunks.pop(chunk, None)

    # What is asked of them -------------------------------------------------------------------------------------------

    def find(self, name: str) -> FakeVolume:
        if name not in self.by_name:
            raise SeamError("NOT_FOUND", f"no volume {name}")
        return self.by_name[name]

    def info(self, name: str) -> seam.VolumeInfo:
        volume = self.find(name)
        return seam.VolumeInfo(
            volume=name,
            size_bytes=volume.size_bytes,
            allocated_bytes=volume.allocated_bytes,
            thick=volume.thick,
            origin=volume.origin,
        )

    def space(self) -> seam.SpaceReply:
        used_bytes = self._used_bytes()
        return seam.SpaceReply(
            total_bytes=self.total_bytes,
            free_bytes=self.total_bytes - self.foreign_bytes - used_bytes,
            used_bytes=used_bytes,
            limit_bytes=self.limit.limit_bytes,
            reclaiming_bytes=0,
            pools=[
                seam.PoolSpace(pool=pool, used_bytes=self._pool_used_bytes(pool), capacity_bytes=capacity_bytes)
                for pool, capacity_bytes in self.pools.items()
            ],
        )

    def free_bytes(self) -> int:
        """What may still be taken, of the file system and within the limit."""
        used_bytes = self._used_bytes()
        free_bytes = self.total_bytes - self.foreign_bytes - used_bytes
        limit_bytes = self.limit.limit_bytes
        return free_bytes if limit_bytes is None else min(free_bytes, limit_bytes - used_bytes)

    def usage(self, name: str) -> seam.VolumeUsageReply:
        chunks, users = self.find(name).chunks, self._users()
        exclusive = sum(1 for place in chunks.items() if users[place] == 1)
        return seam.VolumeUsageReply(mapped_bytes=len(chunks) * CHUNK_BYTES, exclusive_bytes=exclusive * CHUNK_BYTES)

    def added(self, name: str, than: list[str]) -> seam.VolumeAddedReply:
        fresh = set(self.find(name).chunks.items())
        for other in than:
            fresh -= self.find(other).chunks.items()
        return seam.VolumeAddedReply(added_bytes=len(fresh) * CHUNK_BYTES)

    def differences(self, request: seam.VolumeDiff) -> seam.VolumeDiffReply:
        if not 1 <= request.limit <= 100_000:
            raise SeamError("BAD_REQUEST", "limit")
        older, newer = self.find(request.older).chunks, self.find(request.newer)
        last = -(-newer.size_bytes // CHUNK_BYTES)
        different = [
            chunk
            for chunk in sorted(older.keys() | newer.chunks.keys())
            if request.offset // CHUNK_BYTES <= chunk < last and older.get(chunk) != newer.chunks.get(chunk)
        ]
        runs: list[list[int]] = []
        for chunk in different:
            if runs and runs[-1][1] == chunk:
                runs[-1][1] = chunk + 1
            else:
                runs.append([chunk, chunk + 1])
        extents = []
        for first, end in runs[: request.limit]:
            offset = max(first * CHUNK_BYTES, request.offset)
            length = min(end * CHUNK_BYTES, newer.size_bytes) - offset
            extents.append(seam.DiffExtent(offset=offset, length=length))
        more = len(runs) > request.limit
        return seam.VolumeDiffReply(
            extents=extents, next_offset=extents[-1].offset + extents[-1].length if more else None
        )

    # What changes them -----------------------------------------------------------------------------------------------

    def change(self, request: Any) -> seam.VolumeInfo:
        match request:
            case seam.VolumeCreate(volume=name, size_bytes=size, thick=thick):
                self._make(name, FakeVolume(size_bytes=size, thick=thick))
            case seam.VolumeClone(source=source, volume=name, thick=thick):
                self._make(name, self._share(source, thick))
                self._join_pool_of(source, name)
            case seam.VolumeResize(volume=name, size_bytes=size):
                volume = self.find(name)
                if volume.thick:
                    self._need(size - volume.size_bytes)
                self._cut(volume, size)
            case seam.VolumeThick(volume=name, thick=thick):
                volume = self.find(name)
                if thick and not volume.thick:
                    self._need(volume.size_bytes - volume.allocated_bytes)
                volume.thick = thick
            case seam.VolumeRollback(volume=name, source=source):
                volume, origin = self.find(name), self.find(source)
                volume.size_bytes, volume.chunks = origin.size_bytes, dict(origin.chunks)
        return self.info(request.volume)

    def snapshot(self, request: seam.VolumeSnapshot) -> seam.VolumeSnapshotReply:
        names = [pair.volume for pair in request.pairs]
        if not names or len(set(names)) < len(names) or {pair.source for pair in request.pairs} & set(names):
            raise SeamError("BAD_REQUEST", "pairs")
        fresh = {pair.volume: self._share(pair.source, pair.thick) for pair in request.pairs}
        there = [name for name in names if name in self.by_name]
        if there and (there != names or any(self.find(name).origin != fresh[name].origin for name in names)):
            raise SeamError("EXISTS", f"{there[0]} exists and is no such snapshot")
        if not there:
            self._need(sum(volume.size_bytes for volume in fresh.values() if volume.thick))
            self.by_name.update(fresh)
            for pair in request.pairs:
                self._join_pool_of(pair.source, pair.volume)
        return seam.VolumeSnapshotReply(volumes=[self.info(name) for name in names], pause_us=0)

    def limit_volume(self, request: seam.VolumeLimit) -> None:
        self.find(request.volume)
        if request.max_in_use_bytes is None:
            self.volume_limits.pop(request.volume, None)
        else:
            self.volume_limits[request.volume] = request.max_in_use_bytes

    def set_pools(self, request: seam.SpacePools) -> None:
        names = [pool.pool for pool in request.pools]
        volumes = [volume for pool in request.pools for volume in pool.volumes]
        if "" in names or len(set(names)) < len(names) or len(set(volumes)) < len(volumes):
            raise SeamError("BAD_REQUEST", "a pool or a volume is named twice, or a pool has no name")
        self.pools = {pool.pool: pool.capacity_bytes for pool in request.pools}
        self.pool_of |= {volume: pool.pool for pool in request.pools for volume in pool.volumes}
        self.pool_of = {volume: pool for volume, pool in self.pool_of.items() if pool in self.pools}

    def remove(self, name: str) -> None:
        for of_volumes in (self.by_name, self.volume_limits, self.pool_of):
            of_volumes.pop(name, None)

    def _pool_used_bytes(self, pool: str) -> int:
        """What volumes share counts in the pool of the one that was made first."""
        first: dict[tuple[int, int], str] = {}
        used_bytes = 0
        for name, volume in self.by_name.items():
            if volume.thick:
                used_bytes += volume.size_bytes if self.pool_of.get(name) == pool else 0
            else:
                for place in volume.chunks.items():
                    first.setdefault(place, name)
        return used_bytes + CHUNK_BYTES * sum(1 for name in first.values() if self.pool_of.get(name) == pool)

    def _pool_free_bytes(self, name: str) -> int:
        """What the pool of the volume has left: of its capacity, or of what the others' capacities leave."""
        unused = {pool: most - self._pool_used_bytes(pool) for pool, most in self.pools.items() if most is not None}
        pool = self.pool_of.get(name, "")
        return unused.get(pool, self.free_bytes() - sum(max(0, one) for one in unused.values()))

    def _share(self, source: str, thick: bool) -> FakeVolume:
        volume = self.find(source)
        return FakeVolume(size_bytes=volume.size_bytes, thick=thick, origin=source, chunks=dict(volume.chunks))

    def _join_pool_of(self, source: str, name: str) -> None:
        if source in self.pool_of:
            self.pool_of.setdefault(name, self.pool_of[source])

    def _cut(self, volume: FakeVolume, size_bytes: int) -> None:
        volume.size_bytes = size_bytes
        volume.chunks = {chunk: content for chunk, content in volume.chunks.items() if chunk * CHUNK_BYTES < size_bytes}

    def _make(self, name: str, volume: FakeVolume) -> None:
        there = self.by_name.get(name)
        if there is not None:
            if there.size_bytes != volume.size_bytes or there.origin != volume.origin:
                raise SeamError("EXISTS", f"{name} has {there.size_bytes} bytes")
            return
        if volume.size_bytes <= 0:
            raise SeamError("BAD_REQUEST", "size_bytes")
        self._need(volume.size_bytes if volume.thick else 0)
        self.by_name[name] = volume

    def _need(self, size_bytes: int) -> None:
        if size_bytes > self.free_bytes():
            raise SeamError("NO_SPACE", "no space left on device")

    def _users(self) -> Counter[tuple[int, int]]:
        """How many volumes have each content."""
        return Counter(place for volume in self.by_name.values() for place in volume.chunks.items())

    def _used_bytes(self) -> int:
        thick = sum(volume.size_bytes for volume in self.by_name.values() if volume.thick)
        thin = {place for volume in self.by_name.values() if not volume.thick for place in volume.chunks.items()}
        return thick + len(thin) * CHUNK_BYTES
