"""The repository itself on the array: the SR management volume, 30 MB in its storage pool and never opened, whose
description holds the repository's uuid, name and default allocation. Where it lives the repository lives."""

import logging
from dataclasses import replace

from gespann.seams.sr_driver import Sr, SrError, SrStat
from gespann.sr.equal import errors, metadata, names, probe_xml, settings, words
from gespann.sr.equal.group import ArrayVolume, Group, StoragePool
from gespann.sr.equal.metadata import Metadata
from gespann.sr.equal.probe_xml import FoundSr
from gespann.sr.equal.volumes import Place

log = logging.getLogger(__name__)

MANAGEMENT_VOLUME_MIB = 30
OLDEST_FIRMWARE = (4, 0)


class Repository:
    def __init__(self, group: Group) -> None:
        self._group = group

    async def refuse_old_firmware(self) -> None:
        found = await self._group.firmware()
        if found is None or found < OLDEST_FIRMWARE:
            told = "none told" if found is None else f"{found[0]}.{found[1]}"
            raise SrError(errors.FIRMWARE, "Equallogic Target version unsupported", f"{told}; 4.0 or later is needed")

    async def probe(self, storage_pool: str) -> str:
        """All repositories and storage pools of the group; with ``storage_pool`` only those in it."""
        await self.refuse_old_firmware()
        pools = await self._group.storage_pools()
        if storage_pool:
            pools = [_named(pools, storage_pool)]
        found: list[FoundSr] = []
        for listed in await self._group.volumes():
            if names.sr_of_management_volume(listed.name) is None:
                continue
            volume = await self._group.volume(listed.name)
            if volume is not None:
                found += _found_sr(volume, pools, filtered=bool(storage_pool))
        return probe_xml.sr_list(found, pools)

    async def create(self, sr: Sr) -> Place:
        await self.refuse_old_firmware()
        pools = await self._group.storage_pools()
        storage_pool = sr.device_config.get("storagepool", "")
        if not storage_pool:
            raise errors.missing_storage_pool(probe_xml.storage_pool_list(pools))
        _named(pools, storage_pool)
        place = Place(storage_pool, settings.sr_allocation(sr) or "thick")
        name = names.management_volume(sr.uuid)
        if await self._group.volume(name) is not None:
            return place
        described = metadata.encode(_metadata(sr, place.allocation))
        policy = words.SnapPolicy(reserve_percent=0)
        line = words.volume_create(name, MANAGEMENT_VOLUME_MIB, storage_pool, described, False, policy)
        try:
            await self._group.run(line)
        except (SrError, errors.CliRefusal):
            await self._discard(name)
            raise
        return place

    async def place(self, sr: Sr) -> Place:
        """SrError 47 when the group does not hold this repository."""
        volume = await self._management_volume(sr)
        kept = _kept(volume)
        allocation = settings.sr_allocation(sr) or ("thin" if kept.flags & metadata.THIN else "thick")
        return Place(volume.storage_pool or sr.device_config.get("storagepool", ""), allocation)

    async def update(self, sr: Sr) -> None:
        volume = await self._management_volume(sr)
        described = metadata.encode(_metadata(sr, (await self.place(sr)).allocation))
        if described != volume.description:
            await self._group.run(words.volume_describe(volume.name, described))

    async def destroy(self, sr: Sr) -> None:
        left = [one.name for one in await self._group.volumes() if names.is_vdi_volume(one.name, sr.uuid)]
        if left:
            raise SrError(errors.SR_NOT_EMPTY, "The repository still holds volumes", ", ".join(left[:5]))
        await self._delete(names.management_volume(sr.uuid))

    async def stat(self, sr: Sr) -> SrStat:
        capacity, free = await self._group.space((await self.place(sr)).storage_pool)
        own = [one for one in await self._group.volumes() if names.is_vdi_volume(one.name, sr.uuid)]
        return SrStat(capacity, capacity - free, sum(one.size_bytes for one in own))

    async def _management_volume(self, sr: Sr) -> ArrayVolume:
        volume = await self._group.volume(names.management_volume(sr.uuid))
        if volume is None:
            raise errors.sr_missing(sr.uuid)
        return volume

    async def _delete(self, name: str) -> None:
        volume = await self._group.volume(name)
        if volume is None:
            return
        if volume.online:
            await self._group.run(words.volume_set(name, "offline"))
        await self._group.run_unless_missing(words.volume_delete(name))

    async def _discard(self, name: str) -> None:
        try:
            await self._delete(name)
        except (SrError, errors.CliRefusal) as failure:
            log.warning("management volume %s could not be taken back: %s", name, failure)


def _named(pools: list[StoragePool], name: str) -> StoragePool:
    for pool in pools:
        if pool.name == words.checked_storage_pool(name):
            return pool
    raise errors.invalid_storage_pool(name, "the group has " + ", ".join(pool.name for pool in pools))


def _metadata(sr: Sr, allocation: str) -> Metadata:
    return Metadata(
        uuid=names.canonical_uuid(sr.uuid),
        kind=metadata.SR_KIND,
        flags=metadata.THIN if allocation == "thin" else 0,
        name_label=sr.name_label,
        name_description=sr.name_description,
    )


def _found_sr(volume: ArrayVolume, pools: list[StoragePool], filtered: bool) -> list[FoundSr]:
    kept = _kept(volume)
    pool = next((one for one in pools if one.name == volume.storage_pool), None)
    if filtered and pool is None:
        return []
    size_bytes = pool.capacity_bytes if pool else 0
    return [FoundSr(kept.uuid, size_bytes, volume.storage_pool, kept.name_label, kept.name_description)]


def _kept(volume: ArrayVolume) -> Metadata:
    """The name of a management volume tells the whole uuid of its repository, whatever its description has become."""
    bare = Metadata(names.sr_of_management_volume(volume.name) or "", metadata.SR_KIND)
    try:
        return replace(metadata.decode(volume.description), uuid=bare.uuid)
    except metadata.BadMetadata:
        log.warning("the description of %s was edited: set the SR's name again to have it back", volume.name)
        return bare
