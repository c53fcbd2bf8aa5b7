"""Templates: volumes that never change any more. Thin clones begin as their template is, and keep it from going."""

from gespann.array.model.collections import Collections
from gespann.array.model.events import Events
from gespann.array.model.records import Volume
from gespann.array.model.refusals import Conflict
from gespann.array.model.schedules import Schedules
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.volumes import Volumes
from gespann.array.operations.volume_lifecycle import VolumeLifecycle


class Templates:
    def __init__(
        self,
        volumes: Volumes,
        snapshots: Snapshots,
        collections: Collections,
        schedules: Schedules,
        lifecycle: VolumeLifecycle,
        events: Events,
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._collections = collections
        self._schedules = schedules
        self._lifecycle = lifecycle
        self._events = events

    async def convert(self, volume: Volume) -> None:
        """To a template. Conflict says what has to be done by hand before, as on the original."""
        async with self._lifecycle.turn(volume) as volume:
            if volume.template:
                return
            for wrong, what in self._reasons(volume):
                if wrong:
                    raise Conflict(
                        f"Volume {volume.name} {what}. A template is thin, offline and read-only, and alone."
                    )
            self._volumes.change(volume.id, template=True)
        self._events.add("INFO", "8.10.1", f"Volume {volume.name} is a template now.")

    def _reasons(self, volume: Volume) -> list[tuple[bool, str]]:
        return [
            (volume.online, "is online"),
            (not volume.read_only, "is read-write"),
            (not volume.thin, "is not thin"),
            (volume.thin_clone_of is not None, "is a thin clone"),
            (bool(self._snapshots.rows(volume.id)), "has snapshots"),
            (bool(self._collections.of_volume(volume.id)), "is in a collection"),
            (bool(self._schedules.of(volume)), "has schedules"),
        ]

    async def convert_back(self, volume: Volume) -> None:
        async with self._lifecycle.turn(volume) as volume:
            if self._volumes.thin_clones(volume.id):
                raise Conflict(f"Volume {volume.name} is the template of thin clones. Delete or detach them first.")
            self._volumes.change(volume.id, template=False)
        self._events.add("INFO", "8.10.2", f"Volume {volume.name} is no template any more.")

    async def detach(self, volume: Volume) -> None:
        """The data stay shared in the engine: nothing is copied."""
        async with self._lifecycle.turn(volume) as volume:
            if volume.thin_clone_of is None:
                raise Conflict(f"Volume {volume.name} is no thin clone.")
            self._volumes.change(volume.id, thin_clone_of=None)
        self._events.add("INFO", "8.10.3", f"Thin clone {volume.name} detached from its template.")
