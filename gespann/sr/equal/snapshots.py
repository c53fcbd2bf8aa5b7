"""Snapshots as VDIs: snapshots of the array, under the volume that they are of.

    one volume        create-now with its description ► rename                          two commands, found by either
    several volumes   collection ► create-now (one instant) ► rename, describe each ► the collection goes

The array names what it makes, so each is renamed to the name that follows from its VDI's uuid. What was begun is found
by its description, or in its collection. A destroyed volume that has snapshots stays, marked as destroyed and offline,
until the last of them is destroyed (docs/decisions/vm-snapshots.md).
"""

import logging
import re
from dataclasses import replace

from gespann.seams.sr_driver import Changes, SnapshotSpec, Sr, SrError, Volume, VolumeSpec
from gespann.sr.equal import errors, metadata, names, words
from gespann.sr.equal.group import ArraySnapshot, ArrayVolume, Group
from gespann.sr.equal.openings import Openings
from gespann.sr.equal.volumes import Volumes, as_volume, metadata_of, spec_metadata
from gespann.sr.equal.words import Door

log = logging.getLogger(__name__)

_MADE = re.compile(r"Snapshot name is (?P<name>\S+)")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d)")


class Known:
    """What was learned of snapshots and does not change by itself: whose they are, and what their descriptions say. It
    can be thrown away at any time; another account's edit of a description is seen after a restart."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}  # snapshot -> its volume; our names only
        self.shown: dict[Door, ArraySnapshot] = {}
        self.listed: dict[str, tuple[int, frozenset[str]]] = {}  # volume -> how many it has, and their names

    def forget(self, door: Door) -> None:
        self.owners.pop(door.snapshot, None)
        self.shown.pop(door, None)
        self.listed.pop(door.volume, None)


class Snapshots:
    def __init__(self, group: Group, openings: Openings, volumes: Volumes, known: Known) -> None:
        self._group = group
        self._openings = openings
        self._volumes = volumes
        self._known = known

    # Finding ---------------------------------------------------------------------------------------------------------

    async def door(self, sr: Sr, vdi_uuid: str) -> Door | None:
        """Where a VDI is, volume or snapshot; a volume that is destroyed and stays for its snapshots too."""
        return (await self.find(sr, vdi_uuid))[0]

    async def find(self, sr: Sr, vdi_uuid: str) -> tuple[Door | None, ArrayVolume | None]:
        """A volume, which is what most VDIs are, takes one command; the answer to it comes along."""
        name = names.vdi_volume(sr.uuid, vdi_uuid)
        owner = self._known.owners.get(name)
        if owner is not None:
            if await self._group.snapshot(owner, name) is not None:  # a list of hundreds takes a group much longer
                return Door(owner, name), None
            self._known.forget(Door(owner, name))
        volume = await self._group.volume(name)
        if volume is not None:
            return Door(name), volume
        for listed in await self._group.volumes():
            if listed.snapshots and names.is_vdi_volume(listed.name, sr.uuid):
                await self._ours(sr, listed.name)
        owner = self._known.owners.get(name)
        return (None if owner is None else Door(owner, name)), None

    async def present(self, sr: Sr, vdi_uuid: str) -> tuple[Door, ArrayVolume | None]:
        door, volume = await self.find(sr, vdi_uuid)
        return refuse_missing(door, volume, vdi_uuid), volume

    async def _owner(self, door: Door) -> ArrayVolume:
        volume = await self._group.volume(door.volume)
        if volume is None:
            raise SrError(errors.VDI_MISSING, "The volume has gone from the group", door.volume)
        return volume

    async def _ours(self, sr: Sr, volume: str) -> list[str]:
        ours = [name for name in await self._group.snapshots(volume) if names.is_vdi_volume(name, sr.uuid)]
        self._known.owners.update(dict.fromkeys(ours, volume))
        return ours

    async def gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        """One command, and one more for each volume whose number of snapshots is not what it was at the last look."""
        by_name = {names.vdi_volume(sr.uuid, uuid): uuid for uuid in vdi_uuids}
        there: set[str] = set()
        for listed in await self._group.volumes():
            if not names.is_vdi_volume(listed.name, sr.uuid):
                continue
            there.add(listed.name)
            number, known = self._known.listed.get(listed.name, (0, frozenset[str]()))
            if number != listed.snapshots:
                known = frozenset(await self._ours(sr, listed.name))
                self._known.listed[listed.name] = (listed.snapshots, known)
            there |= known
        lost = [uuid for name, uuid in by_name.items() if name not in there]
        return [uuid for uuid in lost if await self.door(sr, uuid) is None]

    async def all(self, sr: Sr) -> list[Volume]:
        found: list[Volume] = []
        for listed in await self._group.volumes():
            if not listed.snapshots or not names.is_vdi_volume(listed.name, sr.uuid):
                continue
            owner = await self._group.volume(listed.name)
            for name in await self._ours(sr, listed.name):
                snapshot = self._known.shown.get(Door(listed.name, name)) or await self._show(Door(listed.name, name))
                try:
                    found += [as_snapshot(owner, snapshot)] if owner and snapshot else []
                except SrError as edited:
                    log.error("left out of the scan: %s", edited)
        return found

    async def _show(self, door: Door) -> ArraySnapshot | None:
        shown = await self._group.snapshot(door.volume, door.snapshot)
        if shown is not None:
            self._known.shown[door] = shown
        return shown

    async def shown(self, door: Door) -> Volume:
        owner, snapshot = await self._owner(door), await self._show(door)
        if snapshot is None:
            raise SrError(errors.VDI_MISSING, "The snapshot has gone from the group", door.snapshot)
        return as_snapshot(owner, snapshot)

    async def changes(self, sr: Sr, older_uuid: str, newer_uuid: str, offset: int) -> Changes | None:
        older, newer = (await self.present(sr, older_uuid))[0], (await self.present(sr, newer_uuid))[0]
        if older == newer:
            return Changes([], None)
        if older.volume != newer.volume:
            return None
        return await self._group.changes(older.volume, older.snapshot, newer.snapshot, offset)

    # Coming ----------------------------------------------------------------------------------------------------------

    async def make(self, sr: Sr, wanted: list[SnapshotSpec], *, even_if_full: bool = False) -> list[Volume]:
        by_volume = {names.vdi_volume(sr.uuid, one.source_vdi_uuid): one for one in wanted}
        texts = {volume: metadata.encode(spec_metadata(one.spec)) for volume, one in by_volume.items()}
        for volume, one in by_volume.items():
            await self._refuse_source(sr, volume, one.source_vdi_uuid)
        doors = [Door(volume, names.vdi_volume(sr.uuid, one.spec.vdi_uuid)) for volume, one in by_volume.items()]
        try:
            there = {door: await self._group.snapshots(door.volume) for door in doors}
            missing = [door for door in doors if door.snapshot not in there[door]]
            if missing and len(doors) == 1:
                await self._make_one(doors[0], texts[doors[0].volume], there[doors[0]], even_if_full)
            elif missing:
                await self._make_together(names.snapshot_collection(wanted[0].spec.vdi_uuid), doors)
            for door in doors:
                await self._describe(door, texts[door.volume])
            if len(doors) > 1:
                await self._group.run_unless_missing(
                    words.collection_delete(names.snapshot_collection(wanted[0].spec.vdi_uuid))
                )
            return [await self.shown(door) for door in doors]
        except (SrError, errors.CliRefusal):
            await self._discard(sr, wanted)
            raise

    async def _refuse_source(self, sr: Sr, volume: str, vdi_uuid: str) -> None:
        source = await self._group.volume(volume)
        if source is None and await self.door(sr, vdi_uuid) is not None:
            why = "Cannot create Snapshot of a Snapshot VDI, operation unsupported"
            raise SrError(errors.SNAPSHOT_OF_SNAPSHOT, why, vdi_uuid)
        if source is None or metadata_of(source).deleted:
            raise errors.vdi_missing(vdi_uuid)

    async def _make_one(self, door: Door, text: str, there: list[str], even_if_full: bool) -> None:
        begun = await self._begun(door.volume, text, there)
        if not begun:
            reply = await self._group.connection.run(
                words.snapshot_create(door.volume, text, even_if_full=even_if_full)
            )
            told = _MADE.search("\n".join(reply.lines))
            begun = (
                [told["name"]]
                if told
                else await self._begun(door.volume, text, await self._group.snapshots(door.volume))
            )
        for name in begun[:1]:
            await self._group.run(words.snapshot_rename(door.volume, name, door.snapshot))

    async def _begun(self, volume: str, text: str, there: list[str]) -> list[str]:
        """Those of the snapshots that are there that bear the description and not yet the name."""
        found = []
        for name in there:
            if names.is_vdi_name(name):
                continue  # one of ours, renamed
            shown = await self._group.snapshot(volume, name)
            if shown is not None and shown.description == text:
                found.append(name)
        return found

    async def _make_together(self, collection: str, doors: list[Door]) -> None:
        if collection not in await self._group.collections():
            await self._group.run(words.collection_create(collection))
        made = await self._group.collection_snapshots(collection)
        if not made:
            for door in doors:
                await self._group.run(words.collection_add(collection, door.volume))
            await self._group.run(words.collection_snapshot(collection))
            made = await self._group.collection_snapshots(collection)
        members = await self._group.collection_members(collection, made[0]) if made else {}
        for door in doors:
            name = members.get(door.volume)
            if name is None:
                why = "A snapshot of the collection is not there"
                raise SrError(errors.VDI_SNAPSHOT, why, f"{collection}: {door.volume}")
            if name != door.snapshot:
                await self._group.run(words.snapshot_rename(door.volume, name, door.snapshot))

    async def _describe(self, door: Door, text: str) -> None:
        shown = await self._show(door)
        if shown is not None and shown.description != text:
            await self._group.run(words.door_set(door, "description", words.quoted(text)))
        self._known.owners[door.snapshot] = door.volume
        self._known.listed.pop(door.volume, None)

    # Going -----------------------------------------------------------------------------------------------------------

    async def undo(self, sr: Sr, wanted: list[SnapshotSpec]) -> None:
        if len(wanted) > 1:
            await self._undo_collection(names.snapshot_collection(wanted[0].spec.vdi_uuid))
        for one in wanted:
            volume = names.vdi_volume(sr.uuid, one.source_vdi_uuid)
            name = names.vdi_volume(sr.uuid, one.spec.vdi_uuid)
            there = await self._group.snapshots(volume)
            begun = await self._begun(volume, metadata.encode(spec_metadata(one.spec)), there)
            for left in {name, *begun} & set(there):
                await self._delete(Door(volume, left))

    async def _undo_collection(self, collection: str) -> None:
        if collection not in await self._group.collections():
            return
        for made in await self._group.collection_snapshots(collection):
            for volume, name in (await self._group.collection_members(collection, made)).items():
                await self._delete(Door(volume, name))
        await self._group.run_unless_missing(words.collection_delete(collection))

    async def _delete(self, door: Door) -> None:
        await self._group.run_unless_missing(words.snapshot_delete(door.volume, door.snapshot))
        self._known.forget(door)

    async def _discard(self, sr: Sr, wanted: list[SnapshotSpec]) -> None:
        """What cannot be taken back now is found by ``undo``, and by a repeat."""
        try:
            await self.undo(sr, wanted)
        except (SrError, errors.CliRefusal) as failure:
            log.warning("snapshots %s could not be taken back: %s", [one.spec.vdi_uuid for one in wanted], failure)

    async def destroy(self, sr: Sr, door: Door) -> None:
        """With the last snapshot of a destroyed volume that volume goes, in one command: there is no moment at which it
        is there for nobody."""
        await self._openings.revoke_all(door)
        owner = await self._owner(door)
        if metadata_of(owner).deleted and await self._ours(sr, door.volume) == [door.snapshot]:
            await self._group.run_unless_missing(words.volume_delete(door.volume))
            self._known.forget(door)
        else:
            await self._delete(door)

    async def destroy_volume(self, sr: Sr, volume: ArrayVolume, vdi_uuid: str) -> None:
        if not volume.snapshots or not await self._ours(sr, volume.name):
            await self._volumes.destroy(volume, vdi_uuid)
            return
        kept = metadata_of(volume)
        if kept.uuid != names.canonical_uuid(vdi_uuid):
            return
        await self._openings.revoke_all(Door(volume.name), volume)
        described = metadata.encode(replace(kept, deleted=True))
        if volume.description != described:
            await self._group.run(words.volume_describe(volume.name, described))

    # Being used ------------------------------------------------------------------------------------------------------

    async def update(self, door: Door, spec: VolumeSpec) -> Volume:
        await self._describe(door, metadata.encode(spec_metadata(spec)))
        return await self.shown(door)

    async def restore(self, sr: Sr, vdi_uuid: str, snapshot_uuid: str, kept: VolumeSpec) -> Volume:
        """The array makes a snapshot of its own before it restores. It holds what ``kept`` holds, and is deleted: the
        volume is offline all the while, so nothing else can be in it."""
        volume, snapshot = names.vdi_volume(sr.uuid, vdi_uuid), names.vdi_volume(sr.uuid, snapshot_uuid)
        door = Door(volume, snapshot)
        await self._refuse_open(Door(volume), vdi_uuid)
        if snapshot not in await self._ours(sr, volume):
            raise SrError(errors.VDI_MISSING, "The snapshot is not one of this volume", snapshot_uuid)
        await self._keep(sr, SnapshotSpec(vdi_uuid, kept))
        await self._restore(sr, door, names.vdi_volume(sr.uuid, kept.vdi_uuid))
        return as_volume(await self._owner(door))

    async def _keep(self, sr: Sr, wanted: SnapshotSpec) -> None:
        """Going back gives space, so it works where a snapshot that is to stay would be refused for lack of it."""
        try:
            await self.make(sr, [wanted])
        except errors.CliRefusal as refusal:
            if refusal.as_sr_error(errors.VDI_SNAPSHOT).number != errors.OUT_OF_SPACE:
                raise
            await self.make(sr, [wanted], even_if_full=True)

    async def _restore(self, sr: Sr, door: Door, kept: str) -> None:
        await self._openings.shut(Door(door.volume))
        await self._remove_made_by_itself(sr, door.volume, kept)
        try:
            await self._group.run(words.door_set(door, "restore"))
        finally:
            await self._remove_made_by_itself(sr, door.volume, kept)

    async def restore_undo(self, sr: Sr, vdi_uuid: str, kept_uuid: str) -> None:
        volume, kept = names.vdi_volume(sr.uuid, vdi_uuid), names.vdi_volume(sr.uuid, kept_uuid)
        there = await self._group.snapshots(volume)
        if kept in there:
            await self._restore(sr, Door(volume, kept), kept)
            await self._delete(Door(volume, kept))
            return
        for name in await self._unnamed(volume, names.canonical_uuid(kept_uuid), there):
            await self._delete(Door(volume, name))

    async def _unnamed(self, volume: str, uuid: str, there: list[str]) -> list[str]:
        """Made for this VDI and described, when something kept it from being named as well."""
        shown = [await self._group.snapshot(volume, name) for name in there if not names.is_vdi_name(name)]
        return [one.name for one in shown if one is not None and _uuid_told(one.description) == uuid]

    async def _remove_made_by_itself(self, sr: Sr, volume: str, kept: str) -> None:
        """Snapshots with the name that the array gives, made since ``kept`` was, that nobody has described, scheduled
        or opened."""
        since = await self._group.snapshot(volume, kept)
        for name in await self._group.snapshots(volume):
            if since is None or not since.created or not name.startswith(f"{volume}-"):
                continue
            shown = await self._group.snapshot(volume, name)
            if shown is None or shown.online or shown.description or shown.by_schedule:
                continue
            if shown.created >= since.created:
                await self._delete(Door(volume, name))

    async def _refuse_open(self, door: Door, vdi_uuid: str) -> None:
        volume = await self._group.volume(door.volume)
        if volume is None or metadata_of(volume).deleted:
            raise errors.vdi_missing(vdi_uuid)
        opened = await self._openings.in_force(door)
        if opened:
            raise SrError(errors.VDI_IN_USE, "The VDI is in use", ", ".join(opened))


def refuse_missing(door: Door | None, volume: ArrayVolume | None, vdi_uuid: str) -> Door:
    """As ``find`` gives them."""
    if door is None or (volume is not None and not _is_of(volume, vdi_uuid)):
        raise errors.vdi_missing(vdi_uuid)
    return door


def _is_of(volume: ArrayVolume, vdi_uuid: str) -> bool:
    kept = metadata_of(volume)
    return not kept.deleted and kept.uuid == names.canonical_uuid(vdi_uuid)


def _uuid_told(description: str) -> str:
    """ "" for what is no VDI's."""
    try:
        return metadata.decode(description).uuid
    except metadata.BadMetadata:
        return ""


def as_snapshot(owner: ArrayVolume, snapshot: ArraySnapshot) -> Volume:
    kept, source = metadata_of(snapshot), metadata_of(owner).uuid
    return Volume(
        vdi_uuid=kept.uuid,
        location=f"{owner.name}/{snapshot.name}",
        virtual_size_bytes=snapshot.size_bytes,
        utilisation_bytes=0,  # the array tells what all snapshots of a volume hold together, and no more
        name_label=kept.name_label,
        name_description=kept.name_description,
        vdi_type=kept.vdi_type,
        read_only=bool(kept.flags & metadata.READ_ONLY),
        sharable=bool(kept.flags & metadata.SHARABLE),
        is_a_snapshot=True,
        snapshot_of=source,
        snapshot_time=wire_time(snapshot.created),
        sm_config={"allocation": "thin" if owner.thin else "thick", "snapshot-of": source},
    )


def wire_time(created: str) -> str:
    """As the XenAPI writes times. The array does not tell its zone: taken as UTC."""
    found = _TIME.match(created)
    return f"{found[1]}{found[2]}{found[3]}T{found[4]}Z" if found else ""
