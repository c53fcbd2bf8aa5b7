"""SR type ``equal``: a volume per VDI on a PS-compatible group, driven over its CLI.

Keeps nothing that the array does not hold, but for connections and the order of calls: two calls about one volume never
run at the same time. Refusals of the group become SrErrors here, at the edge, with the number of what was being done.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import (
    Changes,
    Opening,
    SnapshotSpec,
    Sr,
    SrError,
    SrStat,
    StorageWarning,
    Volume,
    VolumeSpec,
)
from gespann.sr.equal import errors, names, settings
from gespann.sr.equal.connection import Address, GroupConnection, Timing
from gespann.sr.equal.group import ArrayVolume, Group
from gespann.sr.equal.host_key import KnownGroups
from gespann.sr.equal.info import INFO
from gespann.sr.equal.openings import ISCSI_PORT, Openings
from gespann.sr.equal.repository import Repository
from gespann.sr.equal.snapshots import Known, Snapshots, refuse_missing
from gespann.sr.equal.volumes import Volumes
from gespann.sr.equal.words import Door
from gespann.system.clock import Clock, SystemClock


def warning_of(sr: Sr, number: int, text: str) -> StorageWarning | None:
    named = names.mentioned(text)
    ours = [vdi for of, vdi in named if of == names.canonical_uuid(sr.uuid)]
    if ours:
        return StorageWarning(number, text, ours[0])
    return StorageWarning(number, text) if not named and " space" in text and "olume " not in text else None


class EqualDriver:
    info = INFO

    def __init__(self, clock: Clock | None = None, timing: Timing | None = None, iscsi_port: int = ISCSI_PORT) -> None:
        self._clock = clock or SystemClock()
        self._timing = timing or Timing()
        self._iscsi_port = iscsi_port
        self._known = KnownGroups()
        self._connections: dict[Address, GroupConnection] = {}
        self._data_addresses: dict[Address, str] = {}  # asked once and again at each attach
        self._snapshots_known: dict[Address, Known] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def probe(self, device_config: dict[str, str], sm_config: dict[str, str]) -> str:
        """The repositories found (``SR``) and the storage pools to choose from (``StoragePool``)."""
        settings.refuse_unknown_keys(device_config)
        group = self._group_of(settings.address(device_config, sm_config))
        with errors.refused_as(errors.GENERAL):
            return await Repository(group).probe(device_config.get("storagepool", ""))

    async def create(self, sr: Sr, physical_size_bytes: int) -> dict[str, str]:
        """``physical_size_bytes`` means nothing here: a repository has the space of its storage pool."""
        settings.refuse_unknown_keys(sr.device_config)
        settings.new_volume_snap_policy({}, sr.sm_config)
        group = self._group(sr)
        async with self._alone(names.management_volume(sr.uuid)):
            with errors.refused_as(errors.VDI_CREATE):
                place = await Repository(group).create(sr)
        address = group.connection.address
        host_key = self._known.fingerprint(address.host, address.port)
        return {**sr.sm_config, "allocation": place.allocation, "host-key": host_key}

    async def destroy(self, sr: Sr) -> None:
        async with self._alone(names.management_volume(sr.uuid)):
            with errors.refused_as(errors.VDI_DELETE):
                await Repository(self._group(sr)).destroy(sr)

    async def attach(self, sr: Sr) -> None:
        group = self._group(sr)
        with errors.refused_as(errors.SR_UNAVAILABLE):
            repository = Repository(group)
            await repository.refuse_old_firmware()
            await repository.place(sr)
            self._data_addresses[group.connection.address] = await group.data_address()
        group.connection.attached.add(sr.uuid)

    async def detach(self, sr: Sr) -> None:
        """Sessions in use for something else stay; the keep-alive closes them when they have been idle for a while."""
        for address, connection in list(self._connections.items()):
            if sr.uuid in connection.attached:
                connection.attached.discard(sr.uuid)
                if connection.unused:
                    del self._connections[address]
                    await connection.close()

    async def update(self, sr: Sr) -> None:
        async with self._alone(names.management_volume(sr.uuid)):
            with errors.refused_as(errors.GENERAL):
                await Repository(self._group(sr)).update(sr)

    async def stat(self, sr: Sr) -> SrStat:
        with errors.refused_as(errors.GENERAL):
            return await Repository(self._group(sr)).stat(sr)

    async def warnings(self, sr: Sr, after: int | None) -> list[StorageWarning] | None:
        """Events of the group, from warnings on, that name a volume of the repository; and those that name no volume
        and tell of space, which all repositories of the group share."""
        with errors.refused_as(errors.GENERAL):
            found = await self._group(sr).warnings(after)
        return None if found is None else [one for event in found if (one := warning_of(sr, *event)) is not None]

    async def scan(self, sr: Sr) -> list[Volume]:
        group = self._group(sr)
        with errors.refused_as(errors.GENERAL):
            await Repository(group).place(sr)
            found = await self._volumes(group).list(sr)
            return found + await self._snapshots(group).all(sr)

    async def volumes_gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        group = self._group(sr)
        with errors.refused_as(errors.GENERAL):
            await Repository(group).place(sr)
            return await self._snapshots(group).gone(sr, vdi_uuids)

    async def volume_create(self, sr: Sr, spec: VolumeSpec) -> Volume:
        group = self._group(sr)
        async with self._alone(names.vdi_volume(sr.uuid, spec.vdi_uuid)):
            with errors.refused_as(errors.VDI_CREATE):
                place = await Repository(group).place(sr)
                return await self._volumes(group).create(sr, place, spec)

    async def volume_destroy(self, sr: Sr, vdi_uuid: str) -> None:
        group = self._group(sr)
        async with self._at(sr, vdi_uuid, errors.VDI_DELETE) as (door, volume):
            if volume is not None:
                await self._snapshots(group).destroy_volume(sr, volume, vdi_uuid)
            elif door is not None:
                await self._snapshots(group).destroy(sr, door)

    async def volume_resize(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        async with self._at(sr, vdi_uuid, errors.VDI_RESIZE) as (door, volume):
            if refuse_missing(door, volume, vdi_uuid).snapshot:
                raise SrError(errors.VDI_RESIZE, "A snapshot cannot be resized", vdi_uuid)
            return await self._volumes(self._group(sr)).grow(sr, vdi_uuid, size_bytes)

    async def volume_clone(self, sr: Sr, source_vdi_uuid: str, spec: VolumeSpec) -> Volume:
        group = self._group(sr)
        async with self._alone(names.vdi_volume(sr.uuid, spec.vdi_uuid)):
            with errors.refused_as(errors.VDI_CLONE):
                source, seen = await self._snapshots(group).present(sr, source_vdi_uuid)
                return await self._volumes(group).clone(sr, source, seen, spec)

    async def volumes_snapshot(self, sr: Sr, snapshots: list[SnapshotSpec]) -> list[Volume]:
        async with self._all_alone(sr, snapshots):
            with errors.refused_as(errors.VDI_SNAPSHOT):
                return await self._snapshots(self._group(sr)).make(sr, snapshots)

    async def volumes_snapshot_undo(self, sr: Sr, snapshots: list[SnapshotSpec]) -> None:
        async with self._all_alone(sr, snapshots):
            with errors.refused_as(errors.VDI_DELETE):
                await self._snapshots(self._group(sr)).undo(sr, snapshots)

    async def volume_restore(self, sr: Sr, vdi_uuid: str, snapshot_vdi_uuid: str, kept: VolumeSpec) -> Volume:
        async with self._alone(names.vdi_volume(sr.uuid, vdi_uuid)):
            with errors.refused_as(errors.VDI_SNAPSHOT):
                return await self._snapshots(self._group(sr)).restore(sr, vdi_uuid, snapshot_vdi_uuid, kept)

    async def volume_restore_undo(self, sr: Sr, vdi_uuid: str, kept_vdi_uuid: str) -> None:
        async with self._alone(names.vdi_volume(sr.uuid, vdi_uuid)):
            with errors.refused_as(errors.VDI_SNAPSHOT):
                await self._snapshots(self._group(sr)).restore_undo(sr, vdi_uuid, kept_vdi_uuid)

    async def volume_changes(self, sr: Sr, older_vdi_uuid: str, newer_vdi_uuid: str, offset: int = 0) -> Changes | None:
        """Of snapshots of one volume, and of that volume itself."""
        with errors.refused_as(errors.GENERAL):
            return await self._snapshots(self._group(sr)).changes(sr, older_vdi_uuid, newer_vdi_uuid, offset)

    async def volume_update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        group = self._group(sr)
        async with self._at(sr, spec.vdi_uuid, errors.GENERAL) as (door, _):
            if door is not None and door.snapshot:
                return await self._snapshots(group).update(door, spec)
            return await self._volumes(group).update(sr, spec)

    async def open(self, sr: Sr, vdi_uuid: str, opening: Opening) -> IscsiSource | FileSource:
        """``opening.chap_user`` is not used: the name is made of ``opening_id``, so that the array alone can tell
        what is open. The source that is returned has it."""
        group = self._group(sr)
        async with self._at(sr, vdi_uuid, errors.VDI_UNAVAILABLE) as (found, volume):
            door = refuse_missing(found, volume, vdi_uuid)
            host = await self._data_address(sr, group)
            return await self._openings(group).grant(door, volume, opening, host)

    async def close(self, sr: Sr, vdi_uuid: str, opening_id: str) -> None:
        async with self._at(sr, vdi_uuid, errors.VDI_UNAVAILABLE) as (found, volume):
            door = found or Door(names.vdi_volume(sr.uuid, vdi_uuid))
            await self._openings(self._group(sr)).revoke(door, opening_id, volume)

    async def hand_over(self, sr: Sr, vdi_uuid: str, opening_id: str, to_opening_id: str) -> None:
        async with self._at(sr, vdi_uuid, errors.VDI_UNAVAILABLE) as (found, volume):
            door = refuse_missing(found, volume, vdi_uuid)
            await self._openings(self._group(sr)).hand_over(door, opening_id, to_opening_id)

    async def openings(self, sr: Sr, vdi_uuid: str) -> list[str]:
        group = self._group(sr)
        with errors.refused_as(errors.GENERAL):
            door, _ = await self._snapshots(group).present(sr, vdi_uuid)
            return await self._openings(group).in_force(door)

    async def shut_down(self) -> None:
        """Gives the sessions back at once; the array has seven for everybody."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.close()

    def _group(self, sr: Sr) -> Group:
        return self._group_of(settings.address(sr.device_config, sr.sm_config))

    def _group_of(self, address: Address) -> Group:
        """One connection per target, port and account. Another password is another connection: it has to prove itself
        and must not disturb the one that works."""
        for known, connection in list(self._connections.items()):
            if connection.forgotten:
                del self._connections[known]
        self._known.insist(address.host, address.port, address.host_key)
        connection = self._connections.get(address) or GroupConnection(address, self._known, self._clock, self._timing)
        self._connections[address] = connection
        return Group(connection)

    def _volumes(self, group: Group) -> Volumes:
        return Volumes(group, self._openings(group))

    def _snapshots(self, group: Group) -> Snapshots:
        known = self._snapshots_known.setdefault(group.connection.address, Known())
        return Snapshots(group, self._openings(group), self._volumes(group), known)

    def _openings(self, group: Group) -> Openings:
        return Openings(group, self._clock, self._timing, self._iscsi_port)

    async def _data_address(self, sr: Sr, group: Group) -> str:
        """Where the group is managed from another network than its data, ``target`` is the data side; else the group
        knows its own address."""
        if sr.device_config.get("control"):
            return sr.device_config["target"]
        address = group.connection.address
        if address not in self._data_addresses:
            self._data_addresses[address] = await group.data_address()
        return self._data_addresses[address] or sr.device_config["target"]

    @asynccontextmanager
    async def _at(self, sr: Sr, vdi_uuid: str, refused: int) -> AsyncIterator[tuple[Door | None, ArrayVolume | None]]:
        """Where the VDI is, while nobody else works there; a volume as the group has just shown it. The turn of a
        snapshot's volume is always taken after the snapshot's own."""
        async with AsyncExitStack() as turns:
            await turns.enter_async_context(self._alone(names.vdi_volume(sr.uuid, vdi_uuid)))
            with errors.refused_as(refused):
                door, volume = await self._snapshots(self._group(sr)).find(sr, vdi_uuid)
                if door is not None and door.snapshot:
                    await turns.enter_async_context(self._alone(door.volume))
                yield door, volume

    @asynccontextmanager
    async def _all_alone(self, sr: Sr, snapshots: list[SnapshotSpec]) -> AsyncIterator[None]:
        """Always in the same order, so that two sets never wait for each other."""
        async with AsyncExitStack() as turns:
            for name in sorted({names.vdi_volume(sr.uuid, one.source_vdi_uuid) for one in snapshots}):
                await turns.enter_async_context(self._alone(name))
            yield

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            yield
