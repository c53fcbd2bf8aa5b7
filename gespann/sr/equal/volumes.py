"""VDIs as volumes: create, destroy, grow, clone, describe, list. What this makes and cannot finish it takes back; what
it could not even take back is found by the next try, since names follow from uuids."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gespann.seams.sr_driver import Sr, SrError, Volume, VolumeSpec
from gespann.sr.equal import errors, metadata, names, settings, words
from gespann.sr.equal.group import ArraySnapshot, ArrayVolume, Group
from gespann.sr.equal.metadata import Metadata
from gespann.sr.equal.openings import Openings
from gespann.sr.equal.words import Door

log = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True)
class Place:
    """Where a repository's volumes are made, and how when nothing else is said."""

    storage_pool: str
    allocation: str


class Volumes:
    def __init__(self, group: Group, openings: Openings) -> None:
        self._group = group
        self._openings = openings

    async def create(self, sr: Sr, place: Place, spec: VolumeSpec) -> Volume:
        size_bytes = _checked_size(spec.size_bytes)
        thin = (settings.allocation(spec.sm_config) or place.allocation) == "thin"
        policy = settings.new_volume_snap_policy(spec.sm_config, sr.sm_config)
        name, described = names.vdi_volume(sr.uuid, spec.vdi_uuid), metadata.encode(spec_metadata(spec))
        there = await self._group.volume(name)
        if there is not None:
            _refuse_other(there, spec.vdi_uuid, size_bytes)
            return as_volume(there)
        size_mib = words.whole_pages_mib(size_bytes)

        def line(depletion: str) -> words.Line:
            own = replace(policy, depletion=policy.depletion or depletion)
            return words.volume_create(name, size_mib, place.storage_pool, described, thin, own)

        try:
            await self._create(line(words.STOP_SNAPSHOTS), line(words.DELETE_OLDEST))
            return as_volume(await self._made(name))
        except (SrError, errors.CliRefusal):
            await self._discard(name, spec.vdi_uuid)
            raise

    async def _create(self, wanted: words.Line, known_to_all: words.Line) -> None:
        """``known_to_all``: what a PS group takes, which has no word for keeping all snapshots."""
        try:
            await self._group.run(wanted)
        except errors.CliRefusal as refusal:
            if wanted == known_to_all or not (refusal.unknown or words.STOP_SNAPSHOTS in refusal.text):
                raise
            log.info("the group deletes the oldest snapshots of %s when space runs short: %s", known_to_all, refusal)
            await self._group.run(known_to_all)

    async def clone(self, sr: Sr, source: Door, seen: ArrayVolume | ArraySnapshot | None, spec: VolumeSpec) -> Volume:
        """``seen``: the source as the group has just shown it."""
        name = names.vdi_volume(sr.uuid, spec.vdi_uuid)
        thin = settings.allocation(spec.sm_config)
        policy = settings.snap_policy(spec.sm_config)
        described = metadata.encode(spec_metadata(spec))
        seen = seen or await self._group.look(source)
        if seen is None:
            raise SrError(errors.VDI_MISSING, "The source has gone from the group", source.snapshot or source.volume)
        await self._clone(words.clone(source, name, described, policy), name, spec.vdi_uuid)
        try:
            return await self._finish_clone(name, seen, described, spec, thin)
        except (SrError, errors.CliRefusal):
            await self._discard(name, spec.vdi_uuid)
            raise

    async def _clone(self, line: words.Line, name: str, vdi_uuid: str) -> None:
        """Refused because it is there: from an earlier try, which is finished now."""
        try:
            await self._group.run(line)
        except errors.CliRefusal:
            there = await self._group.volume(name)
            if there is None:
                raise
            if metadata_of(there).deleted:
                why = "A volume of that name was destroyed and stays for its snapshots"
                raise SrError(errors.VDI_EXISTS, why, name) from None
        except SrError:
            await self._discard(name, vdi_uuid)
            raise

    async def _finish_clone(
        self, name: str, source: ArrayVolume | ArraySnapshot, described: str, spec: VolumeSpec, allocation: str | None
    ) -> Volume:
        """A clone is born online; without a record nobody gets in, but online is for what is open."""
        made = await self._made(name)
        if _uuid_of(made) not in (_uuid_of(source), names.canonical_uuid(spec.vdi_uuid)):
            raise SrError(errors.VDI_EXISTS, "A volume of that name is another VDI's", name)
        if made.description != described:
            await self._group.run(words.volume_describe(name, described))
        if made.online:
            await self._group.run(words.volume_set(name, "offline"))
        if await self._apply(made, spec, allocation):
            made = await self._made(name)
        return as_volume(replace(made, description=described, online=False))

    async def update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        """Writes the description anew, also one that somebody has edited: the name alone tells whose volume it is."""
        allocation = settings.allocation(spec.sm_config)
        volume = await self._group.volume(names.vdi_volume(sr.uuid, spec.vdi_uuid))
        if volume is None or (readable(volume) and not _is_of(volume, spec.vdi_uuid)):
            raise errors.vdi_missing(spec.vdi_uuid)
        described = metadata.encode(spec_metadata(spec))
        if volume.description != described:
            await self._group.run(words.volume_describe(volume.name, described))
        if await self._apply(volume, spec, allocation):
            volume = await self._made(volume.name)
        return as_volume(replace(volume, description=described))

    async def _apply(self, volume: ArrayVolume, spec: VolumeSpec, allocation: str | None) -> bool:
        """What of ``sm_config`` the array can change afterwards; true if something was changed."""
        changes: list[words.Line] = []
        policy = settings.snap_policy(spec.sm_config)
        if allocation is not None and (allocation == "thin") != volume.thin:
            changes.append(words.volume_allocation(volume.name, thin=allocation == "thin"))
        if policy.reserve_percent is not None and str(policy.reserve_percent) != volume.snap_reserve_percent:
            changes.append(words.volume_set(volume.name, "snap-reserve", f"{policy.reserve_percent}%"))
        if policy.depletion is not None and policy.depletion != volume.snap_depletion:
            changes.append(words.volume_set(volume.name, "snap-depletion", policy.depletion))
        for change in changes:
            await self._group.run(change)
        return bool(changes)

    async def grow(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        volume = await self.present(sr, vdi_uuid)
        size_mib = words.whole_pages_mib(_checked_size(size_bytes))
        if size_mib * words.MIB < volume.size_bytes:
            why = f"{volume.size_bytes} to {size_bytes} bytes"
            raise SrError(errors.VDI_SIZE, "VDI Invalid size: Shrinking is not supported", why)
        if size_mib * words.MIB > volume.size_bytes:
            await self._group.run(words.volume_grow(volume.name, size_mib))
        return as_volume(await self._made(volume.name))

    async def destroy(self, volume: ArrayVolume, vdi_uuid: str) -> None:
        if _uuid_of(volume) != names.canonical_uuid(vdi_uuid):
            return
        await self._openings.revoke_all(Door(volume.name), volume)
        await self._group.run_unless_missing(words.volume_delete(volume.name))

    async def list(self, sr: Sr) -> list[Volume]:
        """A volume whose description was edited is left out and named in the log: nobody can guess its VDI's uuid, and
        it must not hide the others."""
        listed = [one.name for one in await self._group.volumes() if names.is_vdi_volume(one.name, sr.uuid)]
        shown = await _all(self._group.volume(name) for name in listed)
        found: list[Volume] = []
        for volume in shown:
            if volume is None:
                continue
            try:
                if not metadata_of(volume).deleted:
                    found.append(as_volume(volume))
            except SrError as edited:
                log.error("left out of the scan: %s", edited)
        return found

    async def present(self, sr: Sr, vdi_uuid: str) -> ArrayVolume:
        volume = await self._group.volume(names.vdi_volume(sr.uuid, vdi_uuid))
        if volume is None or not _is_of(volume, vdi_uuid):
            raise errors.vdi_missing(vdi_uuid)
        return volume

    async def _made(self, name: str) -> ArrayVolume:
        volume = await self._group.volume(name)
        if volume is None:
            raise SrError(errors.VDI_MISSING, "The volume has gone from the group", name)
        return volume

    async def _discard(self, name: str, vdi_uuid: str) -> None:
        """Takes back a volume of ours that was begun; never one that carries another uuid."""
        try:
            volume = await self._group.volume(name)
            if volume is None:
                return
            if _uuid_of(volume) != names.canonical_uuid(vdi_uuid):
                log.warning("volume %s is not ours: left as it is", name)
                return
            if volume.online:
                await self._group.run(words.volume_set(name, "offline"))
            await self._group.run_unless_missing(words.volume_delete(name))
        except (SrError, errors.CliRefusal) as failure:
            log.warning("volume %s could not be taken back: %s", name, failure)


async def _all(calls: Iterable[Coroutine[Any, Any, R]]) -> tuple[R, ...]:
    """The results in order. When one fails the others do not go on asking an array that nobody listens to."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked_size(size_bytes: int) -> int:
    if size_bytes <= 0:
        raise SrError(errors.VDI_SIZE, "VDI Invalid size", f"{size_bytes} bytes")
    return size_bytes


def spec_metadata(spec: VolumeSpec) -> Metadata:
    if spec.vdi_type not in metadata.VDI_TYPES:
        raise SrError(errors.BAD_ARGUMENT, "Not a VDI type", spec.vdi_type[:80])
    return Metadata(
        uuid=names.canonical_uuid(spec.vdi_uuid),
        kind=metadata.VDI_TYPES[spec.vdi_type],
        flags=(metadata.READ_ONLY if spec.read_only else 0) | (metadata.SHARABLE if spec.sharable else 0),
        name_label=spec.name_label,
        name_description=spec.name_description,
    )


def metadata_of(volume: ArrayVolume | ArraySnapshot) -> Metadata:
    """SrError 175, saying which volume and how it is mended: nobody can guess the uuid."""
    try:
        return metadata.decode(volume.description)
    except metadata.BadMetadata:
        raise SrError(
            errors.BAD_METADATA,
            "The description of a volume holds encoded data and is not for editing; put its VDI's uuid there, "
            "or set the VDI's name again",
            f"{volume.name}: {volume.description!r}",
        ) from None


def readable(volume: ArrayVolume) -> bool:
    try:
        metadata.decode(volume.description)
    except metadata.BadMetadata:
        return False
    return True


def _is_of(volume: ArrayVolume, vdi_uuid: str) -> bool:
    kept = metadata_of(volume)
    return not kept.deleted and kept.uuid == names.canonical_uuid(vdi_uuid)


def _uuid_of(volume: ArrayVolume | ArraySnapshot) -> str:
    return metadata_of(volume).uuid


def _refuse_other(there: ArrayVolume, vdi_uuid: str, size_bytes: int) -> None:
    if _uuid_of(there) != names.canonical_uuid(vdi_uuid) or metadata_of(there).deleted:
        raise SrError(errors.VDI_EXISTS, "A volume of that name is another VDI's", there.name)
    if there.size_bytes != words.whole_pages_mib(size_bytes) * words.MIB:
        detail = f"{there.size_bytes} bytes, not {size_bytes}"
        raise SrError(errors.VDI_EXISTS, "The VDI exists with another size", detail)


def as_volume(volume: ArrayVolume) -> Volume:
    kept = metadata_of(volume)
    sm_config = {"allocation": "thin" if volume.thin else "thick"}
    if volume.snap_reserve_percent:
        sm_config["snap-reserve-percentage"] = volume.snap_reserve_percent
    if volume.snap_depletion:
        sm_config["snap-depletion"] = volume.snap_depletion
    if kept.cut:
        sm_config["metadata"] = "cut-short"
    return Volume(
        vdi_uuid=kept.uuid,
        location=volume.name,
        virtual_size_bytes=volume.size_bytes,
        utilisation_bytes=volume.reserve_bytes,
        name_label=kept.name_label,
        name_description=kept.name_description,
        vdi_type=kept.vdi_type,
        read_only=bool(kept.flags & metadata.READ_ONLY),
        sharable=bool(kept.flags & metadata.SHARABLE),
        sm_config=sm_config,
    )
