"""Looks at what snapshots hold: warns when their reserve runs low, and follows the volume's policy when it is used up.

The snapshot reserve is a limit: snapshots take space from what is free as their volume changes, and no space is set
aside for them. Of a volume that stops at snapshots (``model.space.STOP_SNAPSHOTS``) it is only where the group warns.
What they hold is counted exactly (see ``model.descent``), but only at each look.
"""

import logging

import msgspec

from gespann.array.data_plane.link import DataPlane
from gespann.array.model.events import Events
from gespann.array.model.records import Snapshot, Volume
from gespann.array.model.refusals import Refusal
from gespann.array.model.sizes import format_size
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.space import STOP_SNAPSHOTS, snapshot_reserve
from gespann.array.model.volumes import Volumes
from gespann.array.operations.snapshots import SnapshotLifecycle
from gespann.array.operations.volume_lifecycle import SLOW_S, VolumeLifecycle
from gespann.seams.engine_socket import VolumeAdded, VolumeInfo
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)


class SnapshotWatch:
    def __init__(
        self,
        volumes: Volumes,
        snapshots: Snapshots,
        lifecycle: VolumeLifecycle,
        snapshot_lifecycle: SnapshotLifecycle,
        data_plane: DataPlane,
        events: Events,
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._lifecycle = lifecycle
        self._snapshot_lifecycle = snapshot_lifecycle
        self._data_plane = data_plane
        self._events = events
        self._warned: set[int] = set()

    async def held_bytes(self, volume: Volume) -> int:
        """What deleting all snapshots of the volume would give back. SeamError if one is not there yet or any more."""
        volume = self._volumes.get_by_id(volume.id, volume.name)
        rows = {snapshot.id: snapshot for snapshot in self._snapshots.rows(volume.id)}
        if not rows:
            return 0
        total = sum([await self._added(snapshot, rows) for snapshot in rows.values()])
        beyond = await self._ask(volume.naa, _bases(volume, rows))
        return max(0, total + beyond - await self._ask(volume.naa, []))

    async def _added(self, snapshot: Snapshot, rows: dict[int, Snapshot]) -> int:
        """Counted once, except while it or one of its bases may be written to."""
        bases = _bases(snapshot, rows)
        changing = any(one.online and not one.read_only for one in (snapshot, *bases))
        if snapshot.added_bytes is not None and not changing:
            return snapshot.added_bytes
        added_bytes = await self._ask(snapshot.naa, bases)
        if not changing:
            self._snapshots.counted(snapshot, added_bytes)
        return added_bytes

    async def _ask(self, naa: str, bases: list[Snapshot]) -> int:
        reply = await self._data_plane.call(VolumeAdded(volume=naa, than=[base.naa for base in bases]), SLOW_S)
        return int(reply.added_bytes)

    async def look(self, inventory: dict[str, VolumeInfo]) -> None:
        numbers = self._snapshots.counts()
        self._warned &= set(numbers)
        for volume in self._volumes.all():
            info = inventory.get(volume.naa)
            if volume.id not in numbers or info is None:
                continue
            try:
                await self._look_at(volume, snapshot_reserve(volume, info.allocated_bytes))
            except (Refusal, SeamError) as error:
                log.info("no look at the snapshots of volume %s: %s", volume.name, error)

    async def _look_at(self, volume: Volume, reserve_bytes: int) -> None:
        held_bytes = await self.held_bytes(volume)
        if volume.snap_depletion == STOP_SNAPSHOTS:
            self._tell_beyond(volume, held_bytes, reserve_bytes)
            return
        if held_bytes > reserve_bytes:
            held_bytes = await self._deplete(volume, held_bytes, reserve_bytes)
        if (reserve_bytes - held_bytes) * 100 >= reserve_bytes * volume.snap_warn:
            self._warned.discard(volume.id)
        elif volume.id not in self._warned:
            self._warned.add(volume.id)
            text = f"Snapshots of volume {volume.name} hold {format_size(held_bytes, rounding='up')} of their reserve"
            self._events.add("WARNING", "8.9.1", f"{text} of {format_size(reserve_bytes, rounding='down')}.")

    def _tell_beyond(self, volume: Volume, held_bytes: int, reserve_bytes: int) -> None:
        if held_bytes <= reserve_bytes:
            self._warned.discard(volume.id)
        elif volume.id not in self._warned:
            self._warned.add(volume.id)
            held, reserve = format_size(held_bytes, rounding="up"), format_size(reserve_bytes, rounding="down")
            text = f"Snapshots of volume {volume.name} hold {held}, more than their reserve of {reserve}"
            self._events.add(
                "WARNING", "8.9.4", f"{text}: the storage pool's free space goes to them. None is deleted."
            )

    async def _deplete(self, volume: Volume, held_bytes: int, reserve_bytes: int) -> int:
        """What they hold then."""
        if volume.snap_depletion != "delete-oldest":
            await self._put_offline(volume)
            return held_bytes
        while held_bytes > reserve_bytes:
            snapshots = self._snapshots.of(volume.id)
            if not snapshots:
                break
            text = f"Snapshot reserve of volume {volume.name} is used up: its oldest snapshot {snapshots[0].name}"
            self._events.add("WARNING", "8.9.2", f"{text} is deleted.")
            await self._snapshot_lifecycle.delete(volume, snapshots[0], even_online=True)
            held_bytes = await self.held_bytes(self._volumes.get_by_id(volume.id, volume.name))
        return held_bytes

    async def _put_offline(self, volume: Volume) -> None:
        snapshots = self._snapshots.online_of(volume.id)
        if not volume.online and not snapshots:
            return
        text = f"Snapshot reserve of volume {volume.name} is used up: it and its snapshots are set offline."
        self._events.add("ERROR", "8.9.3", text)
        await self._lifecycle.set_online(volume, False)
        for snapshot in snapshots:
            await self._snapshot_lifecycle.set_online(volume, snapshot, False)


def _bases(one: Volume | Snapshot, rows: dict[int, Snapshot]) -> list[Snapshot]:
    return [rows[number] for number in msgspec.json.decode(one.bases, type=list[int])]
