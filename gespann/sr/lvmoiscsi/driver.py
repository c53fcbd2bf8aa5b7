"""SR type ``lvmoiscsi``: several VDIs on one LUN, each a range of it that QEMU opens through its own iSCSI session.

What is where stands in the format of LVM2 at the LUN's head, so any Linux with LVM2 can read the disks. Keeps nothing:
each call reads the metadata, and changes them one at a time.

A LUN has one access list for all that is on it: this driver cannot shut a single opening out. ``close`` takes the
opening out of the metadata; that nobody writes any more is the word of the host that has stopped the domain.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
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
from gespann.sr.lvmoiscsi import errors, label, lun, metadata, probe_xml, settings
from gespann.sr.lvmoiscsi.group import EXTENT_BYTES, Disk, Group, NoRoom
from gespann.sr.lvmoiscsi.lun import FoundLun, Lun

VDI_TYPES = frozenset(
    {"system", "user", "ephemeral", "suspend", "crashdump", "ha_statefile", "metadata", "redo_log", "rrd"}
)


class LvmoiscsiDriver:
    info = settings.INFO

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._found: dict[settings.Wanted, FoundLun] = {}  # where a LUN was; asked again at each attach

    # -- the repository

    async def probe(self, device_config: dict[str, str], sm_config: dict[str, str]) -> str:
        """A dialogue: each answer but the last is a refusal that lists what to say next."""
        wanted = settings.read(device_config)
        lun_of_it = await self._lun(wanted, look_again=True)
        group = await metadata.read(lun_of_it)
        size_bytes = self._found[wanted].size_bytes
        found = [] if group is None else [(group.sr_uuid, wanted.scsi_id, size_bytes, *_names(group.meta))]
        return probe_xml.repositories(found)

    async def create(self, sr: Sr, physical_size_bytes: int) -> dict[str, str]:
        """``physical_size_bytes`` means nothing here: a repository has its LUN. What another repository is on is
        refused."""
        wanted = settings.read(sr.device_config)
        async with self._turn(wanted):
            on = await self._lun(wanted, look_again=True)
            there = await metadata.read(on)
            if there is not None and there.sr_uuid != sr.uuid:
                raise SrError(errors.DEVICE_IN_USE, "The LUN holds another repository", there.sr_uuid)
            if there is None:
                await metadata.make(on, sr.uuid, self._found[wanted].size_bytes, _sr_meta(sr))
        serial = {"devserial": f"scsi-{wanted.scsi_id}"}
        return {**sr.sm_config, "allocation": "thick", "multipathable": "true", **serial}

    async def destroy(self, sr: Sr) -> None:
        async with self._changing(sr, missing_ok=True) as (on, group):
            if group is None:
                return
            if group.disks or group.foreign:
                names = ", ".join([*group.disks, *group.foreign][:5])
                raise SrError(errors.SR_NOT_EMPTY, "The repository still holds volumes", names)
            await metadata.erase(on)

    async def attach(self, sr: Sr) -> None:
        await self._lun(settings.read(sr.device_config), look_again=True)
        await self._group(sr)

    async def detach(self, sr: Sr) -> None:
        """Nothing is held."""

    async def update(self, sr: Sr) -> None:
        async with self._changing(sr) as (on, group):
            if group is not None and group.meta != _sr_meta(sr):
                await metadata.change(on, group, replace(group, meta=_sr_meta(sr)))

    async def stat(self, sr: Sr) -> SrStat:
        group = await self._group(sr)
        virtual = sum(disk.size_bytes for disk in group.disks.values())
        return SrStat(group.extents * EXTENT_BYTES, group.used_extents * EXTENT_BYTES, virtual)

    async def warnings(self, sr: Sr, after: int | None) -> list[StorageWarning] | None:
        return None

    async def scan(self, sr: Sr) -> list[Volume]:
        return [_volume(disk) for disk in (await self._group(sr)).disks.values() if not disk.meta.get("being_made")]

    async def volumes_gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        """The LUN would have to be read for it, and nobody but the pool writes there."""
        return []

    # -- its volumes

    async def volume_create(self, sr: Sr, spec: VolumeSpec) -> Volume:
        """A new disk reads as zeroes: its place is taken, cleared, and only then is it a disk."""
        extents = _extents(spec.size_bytes)
        meta = _meta(spec)
        async with self._changing(sr) as (on, group):
            assert group is not None
            there = group.disks.get(spec.vdi_uuid)
            if there is not None and there.extents != extents:
                sizes = f"{there.size_bytes} bytes, not {spec.size_bytes}"
                raise SrError(errors.VDI_EXISTS, "The VDI exists with another size", sizes)
            if there is not None and not there.meta.get("being_made"):
                return _volume(there)
            if there is None:
                there = Disk(spec.vdi_uuid, _place(group, extents), extents, {**meta, "being_made": True})
                group = await metadata.change(on, group, group.with_disk(there))
            await on.zero(_offset(there), there.size_bytes)
            made = replace(there, meta=meta)
            await metadata.change(on, group, group.with_disk(made))
            return _volume(made)

    async def volume_destroy(self, sr: Sr, vdi_uuid: str) -> None:
        async with self._changing(sr) as (on, group):
            assert group is not None
            if vdi_uuid in group.disks:
                await metadata.change(on, group, group.without(vdi_uuid))

    async def volume_resize(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        """Into what is free behind it: a disk is one piece."""
        extents = _extents(size_bytes)
        async with self._changing(sr) as (on, group):
            disk = _present(group, vdi_uuid)
            assert group is not None
            if extents < disk.extents:
                why = f"{disk.size_bytes} to {size_bytes} bytes"
                raise SrError(errors.VDI_SIZE, "VDI Invalid size: Shrinking is not supported", why)
            if extents == disk.extents:
                return _volume(disk)
            if disk.openings:
                raise SrError(errors.VDI_IN_USE, "The VDI is in use", ", ".join(sorted(disk.openings)))
            if not group.may_grow(disk, extents):
                why = "a disk is one piece of the LUN, and what lies behind it is taken; copy it to a larger one"
                raise SrError(errors.NO_SPACE, "There is no room behind the disk", why)
            await on.zero(_offset(disk) + disk.size_bytes, (extents - disk.extents) * EXTENT_BYTES)
            grown = replace(disk, extents=extents)
            await metadata.change(on, group, group.with_disk(grown))
            return _volume(grown)

    async def volume_clone(self, sr: Sr, source_vdi_uuid: str, spec: VolumeSpec) -> Volume:
        raise SrError(38, "The LUN cannot clone a part of itself")

    async def volumes_snapshot(self, sr: Sr, snapshots: list[SnapshotSpec]) -> list[Volume]:
        raise SrError(38, "The LUN cannot make snapshots of a part of itself")

    async def volumes_snapshot_undo(self, sr: Sr, snapshots: list[SnapshotSpec]) -> None:
        """None was made."""

    async def volume_restore(self, sr: Sr, vdi_uuid: str, snapshot_vdi_uuid: str, kept: VolumeSpec) -> Volume:
        raise SrError(38, "The LUN cannot make snapshots of a part of itself")

    async def volume_restore_undo(self, sr: Sr, vdi_uuid: str, kept_vdi_uuid: str) -> None:
        """Nothing was restored."""

    async def volume_changes(self, sr: Sr, older_vdi_uuid: str, newer_vdi_uuid: str, offset: int = 0) -> Changes | None:
        return None

    async def volume_update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        return await self._on_disk(sr, spec.vdi_uuid, lambda disk: replace(disk, meta=_meta(spec)))

    # -- who has them open

    async def open(self, sr: Sr, vdi_uuid: str, opening: Opening) -> IscsiSource | FileSource:
        wanted = settings.read(sr.device_config)

        def opened(disk: Disk) -> Disk:
            kept = {name: mode for name, mode in disk.openings.items() if name != opening.opening_id}
            others = {name: mode for name, mode in kept.items() if name != opening.beside}
            if others and (opening.mode == "RW" or "RW" in others.values()):
                raise SrError(errors.VDI_IN_USE, "The VDI is in use", ", ".join(sorted(others)))
            return replace(disk, openings={**kept, opening.opening_id: opening.mode})

        volume = await self._on_disk(sr, vdi_uuid, opened)
        on = await self._lun(wanted)
        portal = wanted.portal
        first = int(volume.location.partition("@")[2])
        return IscsiSource(
            host=portal.host,
            port=portal.port,
            target=wanted.target,
            lun=on.number,
            initiator=portal.initiator,
            chap_user=portal.chap_user,
            chap_secret=portal.chap_secret,
            offset_bytes=label.DATA_START + first * EXTENT_BYTES,
            size_bytes=volume.virtual_size_bytes,
        )

    async def close(self, sr: Sr, vdi_uuid: str, opening_id: str) -> None:
        async with self._changing(sr) as (on, group):
            disk = None if group is None else group.disks.get(vdi_uuid)
            if group is not None and disk is not None and opening_id in disk.openings:
                left = {name: mode for name, mode in disk.openings.items() if name != opening_id}
                await metadata.change(on, group, group.with_disk(replace(disk, openings=left)))

    async def hand_over(self, sr: Sr, vdi_uuid: str, opening_id: str, to_opening_id: str) -> None:
        """The LUN does not tell the two apart: nothing but the end of the first machine keeps it from writing."""
        disk = _present(await self._group(sr), vdi_uuid)
        if to_opening_id not in disk.openings:
            raise SrError(errors.VDI_IN_USE, "The disk is not open to who is to have it", to_opening_id)
        await self.close(sr, vdi_uuid, opening_id)

    async def openings(self, sr: Sr, vdi_uuid: str) -> list[str]:
        return sorted(_present(await self._group(sr), vdi_uuid).openings)

    async def shut_down(self) -> None:
        """Nothing is held."""

    # -- the LUN

    async def _lun(self, wanted: settings.Wanted, look_again: bool = False) -> Lun:
        """The dialogue's refusals 96 and 107 list what can be chosen."""
        portal = wanted.portal
        if not wanted.target:
            found = await lun.discover(portal)
            text = "The request is missing or has an incorrect target IQN parameter"
            raise SrError(errors.NO_TARGET_IQN, text, probe_xml.targets(found, portal.host))
        there = None if look_again else self._found.get(wanted)
        if there is None:
            all_there = await lun.luns(portal, wanted.target)
            there = next((one for one in all_there if one.scsi_id == wanted.scsi_id), None)
            if there is None:
                text = "The SCSIid parameter is missing or incorrect"
                raise SrError(errors.NO_SCSI_ID, text, probe_xml.luns(all_there))
            self._found[wanted] = there
        return Lun(portal, wanted.target, there.number)

    async def _group(self, sr: Sr) -> Group:
        group = await metadata.read(await self._lun(settings.read(sr.device_config)))
        if group is None or group.sr_uuid != sr.uuid:
            raise SrError(errors.SR_UNAVAILABLE, "The LUN does not hold this repository", sr.uuid)
        return group

    async def _on_disk(self, sr: Sr, vdi_uuid: str, changed: Callable[[Disk], Disk]) -> Volume:
        async with self._changing(sr) as (on, group):
            disk = _present(group, vdi_uuid)
            assert group is not None
            after = changed(disk)
            if after != disk:
                await metadata.change(on, group, group.with_disk(after))
            return _volume(after)

    @asynccontextmanager
    async def _changing(self, sr: Sr, missing_ok: bool = False) -> AsyncIterator[tuple[Lun, Group | None]]:
        """One at a time on a LUN."""
        wanted = settings.read(sr.device_config)
        async with self._turn(wanted):
            on = await self._lun(wanted)
            group = await metadata.read(on)
            if group is None or group.sr_uuid != sr.uuid:
                if not missing_ok:
                    raise SrError(errors.SR_UNAVAILABLE, "The LUN does not hold this repository", sr.uuid)
                group = None
            yield on, group

    @asynccontextmanager
    async def _turn(self, wanted: settings.Wanted) -> AsyncIterator[None]:
        key = f"{wanted.target} {wanted.scsi_id}"
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        async with lock:
            yield


def _present(group: Group | None, vdi_uuid: str) -> Disk:
    disk = None if group is None else group.disks.get(vdi_uuid)
    if disk is None or disk.meta.get("being_made"):
        raise SrError(errors.VDI_MISSING, "The LUN holds no volume of this VDI", vdi_uuid)
    return disk


def _extents(size_bytes: int) -> int:
    if not 0 < size_bytes <= 1 << 62:
        raise SrError(errors.VDI_SIZE, "VDI Invalid size", f"{size_bytes} bytes")
    return -(-size_bytes // EXTENT_BYTES)


def _place(group: Group, extents: int) -> int:
    try:
        return group.place(extents)
    except NoRoom as why:
        raise SrError(errors.NO_SPACE, "There is insufficient space", str(why)) from None


def _offset(disk: Disk) -> int:
    return label.DATA_START + disk.first_extent * EXTENT_BYTES


def _names(meta: dict[str, object]) -> tuple[str, str]:
    return str(meta.get("name_label", "")), str(meta.get("name_description", ""))


def _sr_meta(sr: Sr) -> dict[str, object]:
    return {"name_label": sr.name_label, "name_description": sr.name_description}


def _meta(spec: VolumeSpec) -> dict[str, object]:
    if spec.vdi_type not in VDI_TYPES:
        raise SrError(errors.BAD_ARGUMENT, "Not a VDI type", spec.vdi_type[:80])
    names: dict[str, object] = {"name_label": spec.name_label, "name_description": spec.name_description}
    return {**names, "type": spec.vdi_type, "read_only": spec.read_only, "sharable": spec.sharable}


def _volume(disk: Disk) -> Volume:
    name_label, name_description = _names(disk.meta)
    kind = str(disk.meta.get("type", "user"))
    return Volume(
        vdi_uuid=disk.vdi_uuid,
        location=f"LV-{disk.vdi_uuid}@{disk.first_extent}",
        virtual_size_bytes=disk.size_bytes,
        utilisation_bytes=disk.size_bytes,
        name_label=name_label,
        name_description=name_description,
        vdi_type=kind if kind in VDI_TYPES else "user",
        read_only=bool(disk.meta.get("read_only")),
        sharable=bool(disk.meta.get("sharable")),
        sm_config={"vdi_type": "raw"},
    )
