"""Makes the snapshots that are due, and deletes those that are more than a schedule keeps.

A schedule that was due while the group or the engine was away runs once when both are back. When a snapshot cannot be
made the event says why, and the schedule goes on to its next time.
"""

import asyncio
from typing import Any

from gespann.array.model.collections import Collections
from gespann.array.model.events import Events
from gespann.array.model.records import Collection, Schedule, SnapCollection, Volume
from gespann.array.model.refusals import Conflict, Refusal
from gespann.array.model.schedules import Schedules
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.volumes import Volumes
from gespann.array.operations.snapshots import SnapshotLifecycle, dated
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock


class ScheduleRunner:
    def __init__(
        self,
        schedules: Schedules,
        collections: Collections,
        volumes: Volumes,
        snapshots: Snapshots,
        lifecycle: SnapshotLifecycle,
        events: Events,
        clock: Clock,
    ) -> None:
        self._schedules = schedules
        self._collections = collections
        self._volumes = volumes
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._events = events
        self._clock = clock
        self._turn = asyncio.Lock()

    async def run_due(self) -> None:
        async with self._turn:
            await self._run_all()

    async def _run_all(self) -> None:
        for schedule in self._schedules.due(self._clock.now()):
            try:
                await self._run(schedule)
                await self.keep(schedule)
            except (Refusal, SeamError, SeamLost) as error:
                self._events.add("WARNING", "8.8.1", f"Schedule {schedule.name} of {self._owner(schedule)}: {error}")
            self._schedules.run_at(schedule, self._clock.now())

    async def _run(self, schedule: Schedule) -> None:
        settings: dict[str, Any] = {
            "online": schedule.online,
            "read_only": schedule.read_only,
            "schedule_id": schedule.id,
        }
        if schedule.volume_id is not None:
            volume = self._volumes.get_by_id(schedule.volume_id, str(schedule.volume_id))
            await self._lifecycle.create(volume, **settings)
        elif schedule.collection_id is not None:
            await self.snapshot_of(self._collections.get_by_id(schedule.collection_id, schedule.name), **settings)

    async def snapshot_of(self, collection: Collection, description: str = "", **settings: Any) -> str:
        """A snapshot of each volume of a collection, all of one instant; the name of the whole."""
        volumes = self._collections.volumes(collection.id)
        if not volumes:
            raise Conflict(f"Collection {collection.name} has no volumes.")
        taken = {snap.name for snap in self._collections.snaps(collection.id)}
        stem = dated(collection.name, self._clock)
        name = next(name for name in (f"{stem}.{n}" for n in range(1, len(taken) + 2)) if name not in taken)
        together = SnapCollection(
            collection_id=collection.id,
            name=name,
            description=description,
            created_at=self._clock.now().isoformat(),
            schedule_id=settings.get("schedule_id"),
        )
        own: dict[str, Any] = {
            **settings,
            "schedule_id": None,
            "description": description,
        }  # kept as a whole, not one by one
        await self._lifecycle.create_together(volumes, together=together, **own)
        self._events.add("INFO", "8.8.2", f"Snapshot collection {name} created.")
        return name

    async def delete_snap(self, snap: SnapCollection, even_online: bool = False) -> None:
        """All the snapshots of it, and it with the last of them."""
        snapshots = self._snapshots.of_snap_collection(snap.id)
        online = [snapshot.name for snapshot in snapshots if snapshot.online]
        if online and not even_online:
            raise Conflict(f"Snapshot {online[0]} is online. Set it offline before you delete it.")
        for snapshot in snapshots:
            volume = self._volumes.get_by_id(snapshot.volume_id, snapshot.name)
            await self._lifecycle.delete(volume, snapshot, even_online)

    async def keep(self, schedule: Schedule) -> None:
        """Deletes the oldest beyond what the schedule keeps; their sessions are ended."""
        for snapshot in self._snapshots.of_schedule(schedule.id)[: -schedule.max_keep]:
            volume = self._volumes.get_by_id(snapshot.volume_id, snapshot.name)
            await self._lifecycle.delete(volume, snapshot, even_online=True)
        for snap in self._collections.snaps_of_schedule(schedule.id)[: -schedule.max_keep]:
            await self.delete_snap(snap, even_online=True)

    def _owner(self, schedule: Schedule) -> str:
        volume: Volume | None = None if schedule.volume_id is None else self._volumes.row(schedule.volume_id)
        if volume is not None:
            return f"volume {volume.name}"
        found = [one.name for one in self._collections.all() if one.id == schedule.collection_id]
        return f"collection {found[0]}" if found else "what has gone"
