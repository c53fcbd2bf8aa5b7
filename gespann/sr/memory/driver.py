"""SR type ``memory``: keeps all promises of seam 2 except that there are no blocks. Only tests and the wiring of a
fake product register it. It judges its arguments as ``equal`` does (same error numbers, same rounding), so that a pool
tested on it meets the refusals of a real array."""

import functools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar
from xml.sax.saxutils import escape

from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import (
    Changes,
    DriverInfo,
    Opening,
    SnapshotSpec,
    Sr,
    SrError,
    SrStat,
    StorageWarning,
    Volume,
    VolumeSpec,
)
from gespann.sr.memory.faults import Faults
from gespann.sr.memory.storage import MemorySr, MemoryStorage, MemoryVolume

SNAPSHOTS_TOGETHER = 8  # as many as a collection of a PS group has volumes
EXTENTS_TOGETHER = 2
SNAPSHOTS_MOST = 512  # of one volume, as a PS group has

INFO = DriverInfo(
    type="memory",
    name_label="Memory",
    name_description="A repository without storage, for tests",
    capabilities=(
        *("SR_PROBE", "SR_UPDATE", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_CLONE"),
        *("VDI_RESIZE", "VDI_RESIZE_ONLINE", "VDI_UPDATE", "VDI_SNAPSHOT", "VDI_REVERT"),
    ),
    snapshots_together=SNAPSHOTS_TOGETHER,
    configuration={
        "target": "Any address",
        "username": "User of the imaginary array",
        "password": "Password of the imaginary array",
        "storagepool": "Storage pool for the volumes",
    },
    secret_keys=frozenset({"password"}),
)

P = ParamSpec("P")
R = TypeVar("R")
Call = Callable[Concatenate["MemoryDriver", P], Coroutine[Any, Any, R]]


def _faulty(call: Call[P, R]) -> Call[P, R]:
    @functools.wraps(call)
    async def around(self: "MemoryDriver", /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.faults.reach(call.__name__, "before")
        if not self.storage.reachable:
            raise SrError(164, "Failed to connect to the array", "it is unreachable")
        result = await call(self, *args, **kwargs)
        self.faults.reach(call.__name__, "after")
        return result

    return around


class MemoryDriver:
    info = INFO

    def __init__(self, storage: MemoryStorage | None = None, faults: Faults | None = None) -> None:
        self.storage = storage or MemoryStorage()
        self.faults = faults or Faults()

    @_faulty
    async def probe(self, device_config: dict[str, str], sm_config: dict[str, str]) -> str:
        self._login(device_config)
        srs = "".join(
            f"<SR><UUID>{uuid}</UUID><Size>{self.storage.capacity_bytes}</Size>"
            f"<Aggregate>{escape(sr.storage_pool)}</Aggregate></SR>"
            for uuid, sr in sorted(self.storage.srs.items())
        )
        return f'<?xml version="1.0" ?><SRlist>{srs}{self._storage_pools()}</SRlist>'

    @_faulty
    async def create(self, sr: Sr, physical_size_bytes: int) -> dict[str, str]:
        self._login(sr.device_config)
        storage_pool = sr.device_config.get("storagepool", "")
        if not storage_pool:
            raise SrError(163, "StoragePool parameter missing in device-config", self._storage_pools_xml())
        if storage_pool not in self.storage.storage_pools:
            raise SrError(172, "The storage pool does not exist", storage_pool)
        self.storage.srs.setdefault(sr.uuid, MemorySr(sr.name_label, sr.name_description, storage_pool))
        return {"allocation": sr.sm_config.get("allocation", "thick")}

    @_faulty
    async def destroy(self, sr: Sr) -> None:
        self._login(sr.device_config)
        if sr.uuid in self.storage.srs and self.storage.srs[sr.uuid].volumes:
            raise SrError(39, "The repository still holds volumes")
        self.storage.srs.pop(sr.uuid, None)

    @_faulty
    async def attach(self, sr: Sr) -> None:
        self._held(sr)

    @_faulty
    async def detach(self, sr: Sr) -> None:
        return None

    @_faulty
    async def update(self, sr: Sr) -> None:
        held = self._held(sr)
        held.name_label, held.name_description = sr.name_label, sr.name_description

    @_faulty
    async def stat(self, sr: Sr) -> SrStat:
        held = self._held(sr)
        virtual = sum(v.volume.virtual_size_bytes for v in held.volumes.values() if not v.volume.is_a_snapshot)
        return SrStat(self.storage.capacity_bytes, self.storage.allocated_bytes(), virtual)

    @_faulty
    async def warnings(self, sr: Sr, after: int | None) -> list[StorageWarning] | None:
        self._held(sr)
        return [one for one in self.storage.warnings if after is None or one.number > after]

    @_faulty
    async def scan(self, sr: Sr) -> list[Volume]:
        return [v.volume for v in self._held(sr).volumes.values()]

    @_faulty
    async def volumes_gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        return [uuid for uuid in vdi_uuids if uuid not in self._held(sr).volumes]

    @_faulty
    async def volume_create(self, sr: Sr, spec: VolumeSpec) -> Volume:
        if spec.size_bytes <= 0:
            raise SrError(79, "Invalid size", str(spec.size_bytes))
        size_bytes = self.storage.rounded(spec.size_bytes)
        held = self._held(sr)
        there = held.volumes.get(spec.vdi_uuid)
        if there is None:
            return self._add(held, _volume(spec, size_bytes))
        if there.volume.virtual_size_bytes != size_bytes:
            raise SrError(43, "A volume of that uuid exists with another size", spec.vdi_uuid)
        return there.volume

    @_faulty
    async def volume_destroy(self, sr: Sr, vdi_uuid: str) -> None:
        self._held(sr).volumes.pop(vdi_uuid, None)

    @_faulty
    async def volume_resize(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        held = self._volume(sr, vdi_uuid)
        if held.volume.is_a_snapshot:
            raise SrError(110, "A snapshot cannot be resized", vdi_uuid)
        old, new = held.volume.virtual_size_bytes, self.storage.rounded(size_bytes)
        if new < old or size_bytes <= 0:
            raise SrError(79, "Shrinking is not supported", f"{old} to {size_bytes} bytes")
        self._assert_room(new - old)
        held.volume = replace(held.volume, virtual_size_bytes=new, utilisation_bytes=new)
        return held.volume

    @_faulty
    async def volume_clone(self, sr: Sr, source_vdi_uuid: str, spec: VolumeSpec) -> Volume:
        source = self._volume(sr, source_vdi_uuid)
        held = self._held(sr)
        if spec.vdi_uuid in held.volumes:
            return held.volumes[spec.vdi_uuid].volume
        made = self._add(held, _volume(spec, source.volume.virtual_size_bytes))
        held.volumes[spec.vdi_uuid].content = source.content
        self.storage.copy_blocks(source_vdi_uuid, spec.vdi_uuid)
        return made

    @_faulty
    async def volumes_snapshot(self, sr: Sr, snapshots: list[SnapshotSpec]) -> list[Volume]:
        held = self._held(sr)
        if len(snapshots) > SNAPSHOTS_TOGETHER:
            raise SrError(82, "A collection can have 8 volumes at most", str(len(snapshots)))
        sources = {one.spec.vdi_uuid: self._snapshot_source(sr, one.source_vdi_uuid) for one in snapshots}
        for one in snapshots:
            source = sources[one.spec.vdi_uuid]
            made = replace(_snapshot(one.spec, source.volume), snapshot_time=self.storage.now())
            if one.spec.vdi_uuid not in held.volumes:
                held.volumes[one.spec.vdi_uuid] = MemoryVolume(made, content=source.content)
                self.storage.copy_blocks(one.source_vdi_uuid, one.spec.vdi_uuid)
        return [held.volumes[one.spec.vdi_uuid].volume for one in snapshots]

    def _snapshot_source(self, sr: Sr, vdi_uuid: str) -> MemoryVolume:
        source = self._volume(sr, vdi_uuid)
        if source.volume.is_a_snapshot:
            raise SrError(168, "Cannot create Snapshot of a Snapshot VDI, operation unsupported", vdi_uuid)
        siblings = sum(one.volume.snapshot_of == vdi_uuid for one in self._held(sr).volumes.values())
        if siblings >= SNAPSHOTS_MOST:
            raise SrError(82, "The volume has 512 snapshots, which is the most that it can have", vdi_uuid)
        return source

    @_faulty
    async def volumes_snapshot_undo(self, sr: Sr, snapshots: list[SnapshotSpec]) -> None:
        for one in snapshots:
            self._held(sr).volumes.pop(one.spec.vdi_uuid, None)

    @_faulty
    async def volume_restore(self, sr: Sr, vdi_uuid: str, snapshot_vdi_uuid: str, kept: VolumeSpec) -> Volume:
        held, snapshot = self._volume(sr, vdi_uuid), self._volume(sr, snapshot_vdi_uuid)
        if snapshot.volume.snapshot_of != vdi_uuid:
            raise SrError(144, "The snapshot is not one of this volume", snapshot_vdi_uuid)
        if held.openings:
            raise SrError(24, "The VDI is in use", ", ".join(sorted(held.openings)))
        before = replace(_snapshot(kept, held.volume), snapshot_time=self.storage.now())
        if kept.vdi_uuid not in self._held(sr).volumes:
            self._held(sr).volumes[kept.vdi_uuid] = MemoryVolume(before, content=held.content)
            self.storage.copy_blocks(vdi_uuid, kept.vdi_uuid)
        self._become(held, snapshot)
        return held.volume

    @_faulty
    async def volume_restore_undo(self, sr: Sr, vdi_uuid: str, kept_vdi_uuid: str) -> None:
        kept = self._held(sr).volumes.get(kept_vdi_uuid)
        if kept is not None:
            self._become(self._volume(sr, vdi_uuid), kept)
            del self._held(sr).volumes[kept_vdi_uuid]

    def _become(self, held: MemoryVolume, snapshot: MemoryVolume) -> None:
        size_bytes = snapshot.volume.virtual_size_bytes
        held.volume = replace(held.volume, virtual_size_bytes=size_bytes, utilisation_bytes=size_bytes)
        held.content = snapshot.content
        self.storage.copy_blocks(snapshot.volume.vdi_uuid, held.volume.vdi_uuid)

    @_faulty
    async def volume_changes(self, sr: Sr, older_vdi_uuid: str, newer_vdi_uuid: str, offset: int = 0) -> Changes | None:
        """As many extents at a time as makes a test ask twice."""
        older, newer = self._volume(sr, older_vdi_uuid), self._volume(sr, newer_vdi_uuid)
        if older is newer:
            return Changes([], None)
        if self.storage.block_differences is None or _lineage(older.volume) != _lineage(newer.volume):
            return None
        found = self.storage.block_differences(older_vdi_uuid, newer_vdi_uuid, newer.volume.virtual_size_bytes)
        rest = [(start, length) for start, length in found if start >= offset]
        more = len(rest) > EXTENTS_TOGETHER
        return Changes(rest[:EXTENTS_TOGETHER], rest[EXTENTS_TOGETHER][0] if more else None)

    @_faulty
    async def volume_update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        held = self._volume(sr, spec.vdi_uuid)
        old = held.volume
        held.volume = replace(
            _volume(spec, old.virtual_size_bytes),
            utilisation_bytes=old.utilisation_bytes,
            is_a_snapshot=old.is_a_snapshot,
            snapshot_of=old.snapshot_of,
            snapshot_time=old.snapshot_time,
        )
        if old.is_a_snapshot:
            held.volume = replace(held.volume, sm_config=old.sm_config)
        return held.volume

    @_faulty
    async def open(self, sr: Sr, vdi_uuid: str, opening: Opening) -> IscsiSource | FileSource:
        held = self._volume(sr, vdi_uuid)
        others = [o for o in held.openings.values() if o.opening_id not in (opening.opening_id, opening.beside)]
        if others and (opening.mode == "RW" or any(o.mode == "RW" for o in others)):
            raise SrError(24, "The VDI is in use", ", ".join(sorted(o.opening_id for o in others)))
        if opening.beside in held.openings and opening.mode == "RW" and opening.opening_id not in held.openings:
            held.lease = opening.beside
        held.openings[opening.opening_id] = opening
        return IscsiSource(
            host="memory.invalid",
            port=3260,
            target=self.storage.target(vdi_uuid),
            initiator=opening.initiator,
            chap_user=opening.chap_user,
            chap_secret=opening.chap_secret,
        )

    @_faulty
    async def close(self, sr: Sr, vdi_uuid: str, opening_id: str) -> None:
        held = self._held(sr).volumes.get(vdi_uuid)
        if held is not None:
            held.openings.pop(opening_id, None)
            held.lease = held.lease if held.openings else ""

    @_faulty
    async def hand_over(self, sr: Sr, vdi_uuid: str, opening_id: str, to_opening_id: str) -> None:
        held = self._volume(sr, vdi_uuid)
        if to_opening_id not in held.openings:
            raise SrError(46, "The volume is not open to who is to have it", to_opening_id)
        if opening_id in held.openings and held.openings[to_opening_id].mode == "RW":
            held.lease = to_opening_id

    @_faulty
    async def openings(self, sr: Sr, vdi_uuid: str) -> list[str]:
        return sorted(self._volume(sr, vdi_uuid).openings)

    async def shut_down(self) -> None:
        self.storage.drivers_shut_down += 1

    def _login(self, device_config: dict[str, str]) -> None:
        for key, number in (("target", 160), ("username", 161), ("password", 162)):
            if not device_config.get(key):
                raise SrError(number, f"{key} parameter missing in device-config")
        given = (device_config["username"], device_config["password"])
        if given != (self.storage.username, self.storage.password):
            raise SrError(169, "Permission denied; username or password invalid")

    def _held(self, sr: Sr) -> MemorySr:
        self._login(sr.device_config)
        if sr.uuid not in self.storage.srs:
            raise SrError(47, "The repository is not on the storage", sr.uuid)
        return self.storage.srs[sr.uuid]

    def _volume(self, sr: Sr, vdi_uuid: str) -> MemoryVolume:
        held = self._held(sr).volumes.get(vdi_uuid)
        if held is None:
            raise SrError(144, "The volume is not on the storage", vdi_uuid)
        return held

    def _assert_room(self, wanted_bytes: int) -> None:
        free_bytes = self.storage.capacity_bytes - self.storage.allocated_bytes()
        if wanted_bytes > free_bytes:
            raise SrError(44, "Not enough free space", f"{wanted_bytes} bytes wanted, {free_bytes} free")

    def _add(self, held: MemorySr, volume: Volume) -> Volume:
        self._assert_room(volume.virtual_size_bytes)
        held.volumes[volume.vdi_uuid] = MemoryVolume(volume)
        return volume

    def _storage_pools_xml(self) -> str:
        return f'<?xml version="1.0" ?><StoragePools>{self._storage_pools()}</StoragePools>'

    def _storage_pools(self) -> str:
        capacity = self.storage.capacity_bytes
        free = capacity - self.storage.allocated_bytes()
        return "".join(
            f"<StoragePool><Name>{escape(name)}</Name><Default>{str(index == 0).lower()}</Default><Members>1</Members>"
            f"<Volumes>0</Volumes><Capacity>{capacity}</Capacity><Freespace>{free}</Freespace></StoragePool>"
            for index, name in enumerate(self.storage.storage_pools)
        )


def _lineage(volume: Volume) -> str:
    return volume.snapshot_of or volume.vdi_uuid


def _snapshot(spec: VolumeSpec, source: Volume) -> Volume:
    """Takes no room of its own, as long as nobody writes."""
    return replace(
        _volume(spec, source.virtual_size_bytes),
        utilisation_bytes=0,
        is_a_snapshot=True,
        snapshot_of=source.vdi_uuid,
        sm_config={"allocation": source.sm_config["allocation"], "snapshot-of": source.vdi_uuid},
    )


def _volume(spec: VolumeSpec, size_bytes: int) -> Volume:
    kept: dict[str, Any] = {"allocation": "thick", **spec.sm_config}
    return Volume(
        vdi_uuid=spec.vdi_uuid,
        location=spec.vdi_uuid,
        virtual_size_bytes=size_bytes,
        utilisation_bytes=size_bytes,
        name_label=spec.name_label,
        name_description=spec.name_description,
        vdi_type=spec.vdi_type,
        read_only=spec.read_only,
        sharable=spec.sharable,
        sm_config=kept,
    )
