"""Snapshots come, change, and go. A crash or a lost answer leaves an intent in the row; ``settle_all`` ends it.

    create:   [rows with intent] ─ engine volumes, all of one instant ─ [intents gone]       undone if found again
    delete:   [intent] ─ engine target gone ─ engine volume gone ─ [row gone]                finished if found again
    ([..] = one transaction)

All of it happens in the turn of the volume (``VolumeLifecycle.turn``), so a snapshot never goes while its volume is
being restored from it. A snapshot has a target in the engine only while it is online.
"""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from gespann.array.data_plane.link import DataPlane
from gespann.array.model import names
from gespann.array.model.events import Events
from gespann.array.model.identity import new_naa, target_name
from gespann.array.model.records import SnapCollection, Snapshot, Volume
from gespann.array.model.refusals import Conflict, Failed, Refusal
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.space import STOP_SNAPSHOTS
from gespann.array.operations.volume_lifecycle import SLOW_S, VolumeLifecycle
from gespann.seams.engine_socket import SharePair, VolumeSnapshot
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock


def dated(stem: str, clock: Clock) -> str:
    """``stem-YYYY-MM-DD-HH:MM:SS``, as PS groups name what they make by themselves."""
    return f"{stem}-{clock.now():%Y-%m-%d-%H:%M:%S}"


class SnapshotLifecycle:
    def __init__(
        self,
        snapshots: Snapshots,
        lifecycle: VolumeLifecycle,
        data_plane: DataPlane,
        events: Events,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._data_plane = data_plane
        self._events = events
        self._clock = clock
        self._random_bytes = random_bytes

    # Coming ----------------------------------------------------------------------------------------------------------

    async def create(self, volume: Volume, name: str = "", **settings: Any) -> Snapshot:
        """Without a name it gets one from the volume's and the time."""
        return (await self.create_together([volume], name, **settings))[0]

    async def create_together(
        self,
        volumes: list[Volume],
        name: str = "",
        together: SnapCollection | None = None,
        even_if_full: bool = False,
        **settings: Any,
    ) -> list[Snapshot]:
        """A snapshot of each, all of one instant: all are made or none. ``name`` is for one alone, ``together`` the set
        that they are. ``even_if_full``: also where free space runs short."""
        async with AsyncExitStack() as turns:
            present = [
                await turns.enter_async_context(self._lifecycle.turn(volume))
                for volume in sorted(volumes, key=lambda volume: volume.id)
            ]
            for volume in present:
                await self._settle_of(volume.id)
            if not even_if_full:
                await self._need_room(present)
            return await self._make(present, name, settings, together)

    async def _need_room(self, volumes: list[Volume]) -> None:
        if any(volume.snap_depletion == STOP_SNAPSHOTS for volume in volumes):
            admission = self._lifecycle.admission
            try:
                admission.need_snapshot_room(await admission.look(), volumes)
            except SeamLost as error:
                raise Failed("The data plane does not answer. No snapshot is created.") from error

    async def first(self, volume: Volume) -> Snapshot:
        """For a change of the volume that is about to be made, in its turn."""
        await self._settle_of(volume.id)
        return (await self._make([volume], "", {}))[0]

    async def _make(
        self, volumes: list[Volume], name: str, settings: dict[str, Any], together: SnapCollection | None = None
    ) -> list[Snapshot]:
        online = bool(settings.get("online", False))
        drafts = [self._draft(volume, name, {**settings, "online": False}) for volume in volumes]
        rows = self._snapshots.add(drafts, together)
        pairs = [SharePair(source=volume.naa, volume=row.naa) for volume, row in zip(volumes, rows, strict=True)]
        try:
            await self._data_plane.call(VolumeSnapshot(pairs=pairs), SLOW_S)
        except SeamError as error:
            await self._undo_after(rows, error)
        except SeamLost as error:
            self._data_plane.mark_stale()
            raise Failed(
                "The data plane did not answer. No snapshot is created; "
                "what was begun is taken away as soon as it answers."
            ) from error
        for row in rows:
            self._data_plane.gained(row.naa)
        made = self._snapshots.settle(rows)
        for volume, snapshot in zip(volumes, made, strict=True):
            self._events.add("INFO", "8.7.1", f"Snapshot {snapshot.name} of volume {volume.name} created.")
        return [await self._put_online(snapshot) for snapshot in made] if online else made

    def _draft(self, volume: Volume, name: str, settings: dict[str, Any]) -> Snapshot:
        self._snapshots.check_room(volume)
        if volume.template:
            raise Conflict(f"Volume {volume.name} is a template: it never changes, and needs no snapshots.")
        if volume.snap_reserve == 0:
            raise Conflict(f"Volume {volume.name} has no snapshot reserve. Give it some with snap-reserve.")
        if volume.naa not in self._data_plane.present:
            raise Conflict(f"The data plane has no volume {volume.name}.")
        name = names.snapshot_name(name) if name else self._free_name(volume)
        if self._snapshots.is_taken(volume.id, name):
            raise Conflict(f"Snapshot {name} already exists.")
        naa = new_naa(self._random_bytes)
        draft = Snapshot(
            volume_id=volume.id,
            name=name,
            naa=naa,
            target_name=target_name(naa, name),
            asked_bytes=volume.asked_bytes,
            size_bytes=volume.size_bytes,
            alias=name[: names.ALIAS_BYTES] if volume.alias else "",
            created_at=self._clock.now().isoformat(),
        )
        return msgspec.structs.replace(draft, **settings)

    def _free_name(self, volume: Volume) -> str:
        stem = dated(volume.name, self._clock)
        numbers = range(1, len(self._snapshots.rows(volume.id)) + 2)
        return next(name for name in (f"{stem}.{n}" for n in numbers) if not self._snapshots.is_taken(volume.id, name))

    async def _undo_after(self, rows: list[Snapshot], error: SeamError) -> None:
        try:
            for row in reversed(rows):
                await self._lifecycle.take_away_snapshot(row)
        except (SeamError, SeamLost) as second:
            self._data_plane.mark_stale()
            raise Failed(f"The data plane refused ({error}), and then again ({second}). It is tried again.") from error
        if error.code == "NO_SPACE":
            raise Conflict("There is not enough free space for a snapshot.") from error
        raise Failed(f"The data plane refused: {error.message}.") from error

    # Changing --------------------------------------------------------------------------------------------------------

    async def set_online(self, volume: Volume, snapshot: Snapshot, online: bool) -> None:
        """Answered: in force. Offline: its sessions are dropped and nothing they sent can still land."""
        async with self._lifecycle.turn(volume):
            snapshot = self._snapshots.get_by_id(snapshot.id, snapshot.name)
            if online:
                await self._put_online(snapshot)
            else:
                await self._put_offline(snapshot)

    async def set_read_only(self, volume: Volume, snapshot: Snapshot, read_only: bool) -> None:
        async with self._lifecycle.turn(volume):
            snapshot = self._snapshots.get_by_id(snapshot.id, snapshot.name)
            if snapshot.online and not read_only:
                self._snapshots.opened(snapshot)
            self._snapshots.change(snapshot.id, read_only=read_only)
            await self._data_plane.push_target(snapshot.naa)
            self._snapshots.uncount(snapshot)  # it may have been written to before

    async def _put_online(self, snapshot: Snapshot) -> Snapshot:
        if snapshot.naa not in self._data_plane.present:
            raise Conflict(f"The data plane has no snapshot {snapshot.name}; it cannot be set online.")
        if not snapshot.read_only:
            self._snapshots.opened(snapshot)
        changed = self._snapshots.change(snapshot.id, online=True)
        await self._data_plane.push_target(snapshot.naa)
        if not snapshot.online:
            self._events.add("INFO", "8.7.3", f"Snapshot {snapshot.name} set online.")
        return changed

    async def _put_offline(self, snapshot: Snapshot) -> None:
        self._snapshots.change(snapshot.id, online=False, generation=snapshot.generation + 1)
        await self._data_plane.push_target(snapshot.naa)
        if snapshot.naa in self._data_plane.present:
            await self._lifecycle.drain(snapshot.naa, f"Snapshot {snapshot.name}")
        self._snapshots.uncount(snapshot)  # it may have been written to
        if snapshot.online:
            self._events.add("INFO", "8.7.3", f"Snapshot {snapshot.name} set offline.")

    def rename(self, snapshot: Snapshot, name: str) -> None:
        """Its target name stays."""
        names.snapshot_name(name)
        if name.lower() != snapshot.name.lower() and self._snapshots.is_taken(snapshot.volume_id, name):
            raise Conflict(f"Snapshot {name} already exists.")
        self._snapshots.change(snapshot.id, name=name)
        self._events.add("INFO", "8.7.4", f"Snapshot {snapshot.name} renamed to {name}.")

    # Going -----------------------------------------------------------------------------------------------------------

    async def delete(self, volume: Volume, snapshot: Snapshot, even_online: bool = False) -> None:
        """Conflict, and it is as it was, if it is online or the engine finds it busy. ``even_online``: its sessions are
        ended first, as when its reserve is used up."""
        async with self._lifecycle.turn(volume):
            snapshot = self._snapshots.get_by_id(snapshot.id, snapshot.name)
            if snapshot.online and not even_online:
                raise Conflict(f"Snapshot {snapshot.name} is online. Set it offline before you delete it.")
            if snapshot.online:
                await self._put_offline(snapshot)
            self._snapshots.change(snapshot.id, intent="delete")
            try:
                await self._lifecycle.take_away_snapshot(snapshot)
            except SeamError as error:
                self._snapshots.change(snapshot.id, intent="")
                self._data_plane.mark_stale()
                raise Conflict(f"Snapshot {snapshot.name} cannot be deleted now: {error.message}.") from error
            except SeamLost as error:
                self._data_plane.mark_stale()
                raise Failed(
                    f"The data plane did not answer. The deletion of snapshot {snapshot.name} is finished when it does."
                ) from error
        self._events.add("INFO", "8.7.2", f"Snapshot {snapshot.name} of volume {volume.name} deleted.")

    # Finishing what a crash or a lost answer left --------------------------------------------------------------------

    async def settle_all(self, volumes: list[Volume]) -> None:
        """Ends every intent that nobody works on. The first that cannot be ended raises; the rest is tried all the
        same."""
        begun = {snapshot.volume_id for snapshot in self._snapshots.intents()}
        failures: list[Exception] = []
        for volume in volumes:
            if volume.id not in begun or self._lifecycle.is_busy(volume.id):
                continue
            try:
                async with self._lifecycle.turn(volume):
                    await self._settle_of(volume.id)
            except (SeamLost, SeamError, Refusal) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _settle_of(self, volume_id: int) -> None:
        for snapshot in reversed(self._snapshots.rows(volume_id)):
            if not snapshot.intent:
                continue
            await self._lifecycle.take_away_snapshot(snapshot)
            text = (
                "Deletion of snapshot {} finished." if snapshot.intent == "delete" else "Half-made snapshot {} removed."
            )
            self._events.add("WARNING", "8.7.5", text.format(snapshot.name))
