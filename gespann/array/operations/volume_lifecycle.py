"""Volumes come, change size, and go. A crash or a lost answer at any step leaves an intent; ``settle`` ends it.

    create, clone:   [intent + row] ─ engine volume ─ engine target + [intent gone]        undone if found again
    delete:          [intent] ─ engine target gone ─ engine volume gone ─ [row gone]       finished if found again
    resize, thick,   [intent] ─ engine volume changed ─ [row changed, intent gone]         finished if found again
    restore:
    ([..] = one transaction)

The engine is told a new volume's storage pool before it makes the volume.
Names and space of a half-made volume are taken; who asks for the name again has it settled first.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from gespann.array.data_plane.link import DataPlane
from gespann.array.data_plane.policy import limit_of, target_of
from gespann.array.model import names
from gespann.array.model.access import AccessRecords
from gespann.array.model.events import Events
from gespann.array.model.identity import new_naa, target_name
from gespann.array.model.records import Intent, Snapshot, Volume
from gespann.array.model.refusals import Conflict, Failed, Mistake, Refusal
from gespann.array.model.sizes import format_size, real_size
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.space import reserve
from gespann.array.model.volumes import Volumes
from gespann.array.operations.admission import Admission
from gespann.seams.engine_socket import (
    Request,
    TargetRemove,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeDrain,
    VolumeResize,
    VolumeRollback,
    VolumeThick,
)
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock

SLOW_S = 600.0  # for requests that reserve or copy a whole volume
DRAIN_S = 30.0

First = Callable[[Volume], Awaitable[object]] | None


class VolumeLifecycle:
    def __init__(
        self,
        volumes: Volumes,
        snapshots: Snapshots,
        access: AccessRecords,
        admission: Admission,
        data_plane: DataPlane,
        events: Events,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._access = access
        self._data_plane = data_plane
        self._events = events
        self._clock = clock
        self._random_bytes = random_bytes
        self._turns: dict[int, asyncio.Lock] = {}
        self.admission = admission
        self._pools = admission.pools

    # Coming ----------------------------------------------------------------------------------------------------------

    def draft(self, name: str, asked_bytes: int, pool_id: int, **settings: object) -> Volume:
        """A volume with a new identity that is nowhere yet."""
        names.volume_name(name)
        naa = new_naa(self._random_bytes)
        volume = Volume(
            name=name,
            naa=naa,
            target_name=target_name(naa, name),
            pool_id=pool_id,
            asked_bytes=asked_bytes,
            size_bytes=real_size(asked_bytes),
            created_at=self._clock.now().isoformat(),
        )
        return msgspec.structs.replace(volume, **settings)

    async def create(self, draft: Volume, unrestricted: bool = False) -> Volume:
        request = VolumeCreate(volume=draft.naa, size_bytes=draft.size_bytes, thick=not draft.thin)
        return await self._make(draft, "create", request, unrestricted)

    async def clone(
        self, source: Volume, draft: Volume, unrestricted: bool = False, snapshot: Snapshot | None = None
    ) -> Volume:
        """A copy of what ``source``, or a snapshot of it, holds at one instant. It may be online."""
        async with self.turn(source) as source:
            if snapshot is not None:
                snapshot = self._snapshots.get_by_id(snapshot.id, snapshot.name)
            origin = snapshot or source
            if origin.size_bytes != draft.size_bytes:
                raise Conflict(f"Volume {source.name} has just changed its size.")
            if draft.thin_clone_of and not source.template:
                raise Conflict(f"Volume {source.name} is no template.")
            request = VolumeClone(source=origin.naa, volume=draft.naa, thick=not draft.thin)
            return await self._make(draft, "clone", request, unrestricted)

    async def _make(self, draft: Volume, kind: str, request: Request, unrestricted: bool) -> Volume:
        await self._settle_name(draft.name)
        disk = await self.admission.look()
        # no await from here to the row: what was checked is still so
        if self._volumes.named(draft.name) is not None:
            raise Conflict(f"Volume {draft.name} already exists.")
        self.admission.need(disk, self._pools.by_id(draft.pool_id), reserve(draft, 0))
        volume = self._volumes.add(draft, Intent(volume_id=0, kind=kind))
        async with self._lock(volume.id):
            if unrestricted:
                self._access.create(volume.id, address=names.ANY_ADDRESS)
            try:
                await self._data_plane.tell_pools([volume.naa])
                await self._data_plane.call(request, SLOW_S)
                self._data_plane.gained(volume.naa)
                await self._limit(volume)
                target = target_of(volume, self._access.of(volume.id))
                await self._data_plane.publish(target, lambda: self._volumes.settle(volume.id))
            except SeamError as error:
                await self._undo_after(volume, error)
            except SeamLost as error:
                self._data_plane.mark_stale()
                raise Failed(
                    f"The data plane did not answer. Volume {volume.name} is not created; "
                    "what was begun is taken away as soon as it answers."
                ) from error
        self._events.add("INFO", "8.2.1", f"Volume {volume.name} created, {format_size(volume.asked_bytes)}.")
        return volume

    async def _undo_after(self, volume: Volume, error: SeamError) -> None:
        try:
            await self._take_away(volume)
        except (SeamError, SeamLost) as second:
            self._data_plane.mark_stale()
            raise Failed(f"The data plane refused ({error}), and then again ({second}). It is tried again.") from error
        if error.code == "NO_SPACE":
            raise Conflict(f"There is not enough free space for volume {volume.name}.") from error
        raise Failed(f"The data plane refused: {error.message}.") from error

    # Going -----------------------------------------------------------------------------------------------------------

    async def delete(self, volume: Volume) -> None:
        """Only when it is offline. Conflict, and it is as it was, if the engine finds it busy."""
        async with self.turn(volume) as volume:
            self.check_deletable(volume)
            self._volumes.intend(Intent(volume_id=volume.id, kind="delete"))
            try:
                await self._take_away(volume)
            except SeamError as error:
                self._volumes.settle(volume.id)
                self._data_plane.mark_stale()
                raise Conflict(f"Volume {volume.name} cannot be deleted now: {error.message}.") from error
            except SeamLost as error:
                self._data_plane.mark_stale()
                raise Failed(
                    f"The data plane did not answer. The deletion of volume {volume.name} is finished when it does."
                ) from error
        self._events.add("INFO", "8.2.2", f"Volume {volume.name} deleted.")

    def check_deletable(self, volume: Volume) -> None:
        if volume.online:
            raise Conflict(f"Volume {volume.name} is online. Set it offline before you delete it.")
        if self._snapshots.online_of(volume.id):
            raise Conflict(
                f"Volume {volume.name} has snapshots that are online. Set them offline before you delete it."
            )
        if self._volumes.thin_clones(volume.id):
            raise Conflict(f"Volume {volume.name} is the template of thin clones. Delete or detach them first.")

    async def _take_away(self, volume: Volume) -> None:
        """With its snapshots: they end with their volume."""
        for snapshot in self._snapshots.rows(volume.id):
            await self.take_away_snapshot(snapshot)
        await self._data_plane.call(TargetRemove(volume=volume.naa))
        await self._data_plane.call(VolumeDelete(volume=volume.naa), SLOW_S)
        self._data_plane.gone(volume.naa)
        self._volumes.remove(volume.id)
        self._turns.pop(volume.id, None)

    async def take_away_snapshot(self, snapshot: Snapshot) -> None:
        await self._data_plane.call(TargetRemove(volume=snapshot.naa))
        await self._data_plane.call(VolumeDelete(volume=snapshot.naa), SLOW_S)
        self._data_plane.gone(snapshot.naa)
        self._snapshots.remove(snapshot.id)

    # Changing --------------------------------------------------------------------------------------------------------

    async def set_online(
        self, volume: Volume, online: bool, *, thin_stopped: bool = False, by_itself: bool = False
    ) -> None:
        """Answered: in force. Offline: its sessions are dropped and nothing they sent can still land. ``thin_stopped``:
        it is the group that does so, at the volume's maximum. ``by_itself``: nobody has asked for it. Conflict, if
        somebody has said something else since the group decided so."""
        decided = volume
        async with self.turn(volume) as volume:
            if by_itself and (volume.online, volume.thin_stopped) != (decided.online, decided.thin_stopped):
                raise Conflict(f"Volume {volume.name} has been set online or offline meanwhile.")
            if online and volume.naa not in self._data_plane.present:
                raise Conflict(f"The data plane has no volume {volume.name}; it cannot be set online.")
            generation = volume.generation if online else volume.generation + 1
            self._volumes.change(volume.id, online=online, generation=generation, thin_stopped=thin_stopped)
            self._access.end_lease(volume.id)
            await self._data_plane.push_target(volume.naa)
            if not online and volume.naa in self._data_plane.present:
                await self.drain(volume.naa, f"Volume {volume.name}")
        if online != volume.online:
            self._events.add("INFO", "8.2.3", f"Volume {volume.name} set {'online' if online else 'offline'}.")

    async def drain(self, naa: str, what: str) -> None:
        """Nothing that sessions before this sent can still land, or Failed."""
        try:
            await self._data_plane.call(VolumeDrain(volume=naa, timeout_ms=int(DRAIN_S * 1000)), DRAIN_S + 5)
        except SeamLost as error:
            self._data_plane.mark_stale()
            raise Failed(
                f"{what} is offline, but the data plane did not confirm that all commands have ended. "
                "Set it offline again."
            ) from error
        except SeamError as error:
            raise Failed(
                f"{what} is offline, but commands of its last sessions have not ended: {error.message}. "
                "Set it offline again."
            ) from error

    async def grow(self, volume: Volume, asked_bytes: int, first: First = None) -> None:
        """``first``: done before the size is changed, when nothing more speaks against it."""
        async with self.turn(volume) as volume:
            if asked_bytes < volume.asked_bytes:
                raise Mistake(f"Volume {volume.name} is larger already. To make it smaller use shrink.")
            await self._resize(volume, asked_bytes, first)

    async def shrink(self, volume: Volume, asked_bytes: int, first: First = None) -> None:
        async with self.turn(volume) as volume:
            if asked_bytes > volume.asked_bytes:
                raise Mistake(f"Volume {volume.name} is smaller already. To make it larger use size.")
            if volume.online:
                raise Conflict(f"Volume {volume.name} is online. Set it offline before you shrink it.")
            await self._resize(volume, asked_bytes, first)

    async def _resize(self, volume: Volume, asked_bytes: int, first: First) -> None:
        self._refuse_template(volume, "resized")
        disk = await self.admission.look()
        allocated = disk.allocated.get(volume.naa, 0)
        after = msgspec.structs.replace(volume, asked_bytes=asked_bytes, size_bytes=real_size(asked_bytes))
        more_bytes = reserve(after, allocated) - reserve(volume, allocated)
        if more_bytes > 0:
            self.admission.need(disk, self._pools.by_id(volume.pool_id), more_bytes)
        if first is not None:
            await first(volume)
        intent = Intent(volume_id=volume.id, kind="resize", asked_bytes=asked_bytes)
        await self._change(volume, intent)
        self._events.add("INFO", "8.2.4", f"Volume {volume.name} resized to {format_size(asked_bytes)}.")

    async def set_thin(self, volume: Volume, thin: bool) -> None:
        async with self.turn(volume) as volume:
            if not thin:
                self._refuse_template(volume, "thick")
            disk = await self.admission.look()
            allocated = disk.allocated.get(volume.naa, 0)
            after = msgspec.structs.replace(volume, thin=thin)
            more_bytes = reserve(after, allocated) - reserve(volume, allocated)
            if more_bytes > 0:
                self.admission.need(disk, self._pools.by_id(volume.pool_id), more_bytes)
            if thin != volume.thin:
                await self._change(volume, Intent(volume_id=volume.id, kind="thick", thin=thin))

    async def set_min_reserve(self, volume: Volume, percent: int) -> None:
        async with self.turn(volume) as volume:
            disk = await self.admission.look()
            allocated = disk.allocated.get(volume.naa, 0)
            after = msgspec.structs.replace(volume, thin_min_reserve=percent)
            more_bytes = reserve(after, allocated) - reserve(volume, allocated)
            if more_bytes > 0:
                self.admission.need(disk, self._pools.by_id(volume.pool_id), more_bytes)
            self._volumes.change(volume.id, thin_min_reserve=percent)

    async def _change(self, volume: Volume, intent: Intent) -> None:
        self._volumes.intend(intent)
        try:
            await self._apply(volume, intent)
        except SeamError as error:
            self._volumes.settle(volume.id)
            if error.code == "NO_SPACE":
                raise Conflict(f"There is not enough free space for volume {volume.name}.") from error
            raise Failed(f"The data plane refused: {error.message}.") from error
        except SeamLost as error:
            self._data_plane.mark_stale()
            raise Failed(
                f"The data plane did not answer. The change of volume {volume.name} is finished when it does."
            ) from error

    async def _apply(self, volume: Volume, intent: Intent) -> None:
        if intent.kind == "resize":
            size_bytes = real_size(intent.asked_bytes)
            await self._data_plane.call(VolumeResize(volume=volume.naa, size_bytes=size_bytes), SLOW_S)
            self._volumes.settle(volume.id, asked_bytes=intent.asked_bytes, size_bytes=size_bytes)
        elif intent.kind == "restore":
            await self._roll_back(volume, intent)
        else:
            await self._data_plane.call(VolumeThick(volume=volume.naa, thick=not intent.thin), SLOW_S)
            self._volumes.settle(volume.id, thin=intent.thin)
        await self._limit(self._volumes.get_by_id(volume.id, volume.name))

    async def _limit(self, volume: Volume) -> None:
        if volume.thin and volume.thin_growth_max < 100:
            await self._data_plane.try_limit(limit_of(volume))

    async def _roll_back(self, volume: Volume, intent: Intent) -> None:
        snapshot = None if intent.snapshot_id is None else self._snapshots.row(intent.snapshot_id)
        if snapshot is None:
            raise SeamError("NOT_FOUND", "the snapshot is gone")
        await self._data_plane.call(VolumeRollback(volume=volume.naa, source=snapshot.naa), SLOW_S)
        self._snapshots.restored(snapshot)  # before the intent ends: repeated, it changes nothing more
        sizes = {"asked_bytes": snapshot.asked_bytes, "size_bytes": snapshot.size_bytes}
        self._volumes.settle(volume.id, **sizes, thin_stopped=False)  # it stays offline until somebody says otherwise

    async def restore(self, volume: Volume, snapshot: Snapshot, first: First) -> None:
        """The volume becomes as the snapshot is. It must be offline, and stays so."""
        async with self.turn(volume) as volume:
            self._refuse_template(volume, "restored")
            if volume.online:
                raise Conflict(f"Volume {volume.name} is online. Set it offline before you restore it.")
            snapshot = self._snapshots.get_by_id(snapshot.id, snapshot.name)
            disk = await self.admission.look()
            allocated = disk.allocated.get(volume.naa, 0)
            after = msgspec.structs.replace(volume, size_bytes=snapshot.size_bytes)
            more_bytes = reserve(after, 0) - reserve(volume, allocated)
            if more_bytes > 0:
                self.admission.need(disk, self._pools.by_id(volume.pool_id), more_bytes)
            if first is not None:
                await first(volume)
            await self._change(volume, Intent(volume_id=volume.id, kind="restore", snapshot_id=snapshot.id))
            self._events.add("INFO", "8.2.6", f"Volume {volume.name} restored from snapshot {snapshot.name}.")

    def _refuse_template(self, volume: Volume, done: str) -> None:
        if volume.template:
            raise Conflict(f"Volume {volume.name} is a template: it cannot be {done}.")

    async def move(self, volume: Volume, pool_id: int) -> None:
        """To another storage pool, if that can take it. Pools are shares of one file system: no data moves."""
        async with self.turn(volume) as volume:
            disk = await self.admission.look()
            if pool_id != volume.pool_id:
                pool = self._pools.by_id(pool_id)
                self.admission.need(disk, pool, reserve(volume, disk.allocated.get(volume.naa, 0)))
                self._volumes.change(volume.id, pool_id=pool_id)
                snapshots = [snapshot.naa for snapshot in self._snapshots.rows(volume.id)]
                await self._data_plane.push_pools([volume.naa, *snapshots])

    # Finishing what a crash or a lost answer left ------------------------------------------------------------

    async def settle_all(self) -> None:
        """Ends every intent that nobody works on. The first that cannot be ended raises; the rest is tried all the
        same."""
        failures: list[Exception] = []
        for intent in self._volumes.intents():
            lock = self._lock(intent.volume_id)
            if lock.locked():
                continue  # its request is still under way
            async with lock:
                try:
                    await self._settle(intent.volume_id)
                except (SeamLost, SeamError, Refusal) as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    async def _settle_name(self, name: str) -> None:
        holder = self._volumes.named(name)
        if holder is None or self._volumes.intent(holder.id) is None:
            return
        async with self._lock(holder.id):
            await self._settle(holder.id)

    async def _settle(self, volume_id: int) -> None:
        """SeamLost or SeamError: the intent stays for the next time."""
        volume, intent = self._volumes.row(volume_id), self._volumes.intent(volume_id)
        if volume is None or intent is None:
            return
        if intent.kind in ("create", "clone", "delete"):
            await self._take_away(volume)
            text = "Deletion of volume {} finished." if intent.kind == "delete" else "Half-made volume {} taken away."
            self._events.add("WARNING", "8.3.1", text.format(volume.name))
            return
        try:
            await self._apply(volume, intent)
            self._events.add("WARNING", "8.3.2", f"Interrupted change of volume {volume.name} finished.")
        except SeamError as error:
            self._volumes.settle(volume_id)
            self._events.add("ERROR", "8.3.3", f"Interrupted change of volume {volume.name} given up: {error.message}.")

    # Turns -----------------------------------------------------------------------------------------------------------

    def is_busy(self, volume_id: int) -> bool:
        return self._lock(volume_id).locked()

    def _lock(self, volume_id: int) -> asyncio.Lock:
        return self._turns.setdefault(volume_id, asyncio.Lock())

    @asynccontextmanager
    async def turn(self, volume: Volume) -> AsyncIterator[Volume]:
        """One lifecycle request at a time on a volume; inside, its row as it is now. Mistake if it has gone."""
        async with self._lock(volume.id):
            intent = self._volumes.intent(volume.id)
            if intent is not None:
                await self._settle(volume.id)
            yield self._volumes.get_by_id(volume.id, volume.name)
