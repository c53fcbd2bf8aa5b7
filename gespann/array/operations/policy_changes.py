"""Changes of policy: durable in the database first, then in force in the engine, then answered.

If the engine does not answer, the change stands and Failed says so: the policy is pushed again until it is in force.
"""

from typing import Any

from gespann.array.data_plane.link import DataPlane
from gespann.array.data_plane.policy import limit_of
from gespann.array.model.access import AccessRecords
from gespann.array.model.chap_users import ChapUsers
from gespann.array.model.events import Events
from gespann.array.model.records import AccessRecord, Snapshot, Volume
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.volumes import Volumes
from gespann.seams.engine_socket import ChapPut, ChapRemove


class PolicyChanges:
    def __init__(
        self,
        volumes: Volumes,
        snapshots: Snapshots,
        access: AccessRecords,
        chap_users: ChapUsers,
        data_plane: DataPlane,
        events: Events,
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._access = access
        self._chap_users = chap_users
        self._data_plane = data_plane
        self._events = events

    async def set_volume(self, volume: Volume, **changes: Any) -> None:
        """Settings of a volume that its target shows: read_only, multihost, alias."""
        self._volumes.change(volume.id, **changes)
        await self._data_plane.push_target(volume.naa)

    async def set_limits(self, volume: Volume, **changes: Any) -> None:
        """Settings that bound what a thin volume may have in use."""
        changed = self._volumes.change(volume.id, **changes)
        if volume.naa in self._data_plane.present:
            await self._data_plane.try_limit(limit_of(changed))

    async def set_snapshot(self, snapshot: Snapshot, **changes: Any) -> None:
        """The same settings of a snapshot."""
        self._snapshots.change(snapshot.id, **changes)
        await self._data_plane.push_target(snapshot.naa)

    async def _push_records(self, volume: Volume) -> None:
        """A volume's records are its snapshots' too."""
        await self._data_plane.push_target(volume.naa)
        for snapshot in self._snapshots.online_of(volume.id):
            await self._data_plane.push_target(snapshot.naa)

    async def create_record(self, volume: Volume, **fields: Any) -> AccessRecord:
        record = self._access.create(volume.id, **fields)
        await self._push_records(volume)
        self._events.add("INFO", "8.4.1", f"Access control record {record.number} of volume {volume.name} created.")
        return record

    async def delete_record(self, volume: Volume, number: int) -> None:
        self._access.delete(volume.id, number)
        await self._push_records(volume)
        self._events.add("INFO", "8.4.2", f"Access control record {number} of volume {volume.name} deleted.")

    async def create_chap_user(self, name: str, secret: str | None, enabled: bool = True) -> str:
        secret = self._chap_users.create(name, secret, enabled=enabled)
        await self._push_chap_user(name)
        self._events.add("INFO", "8.5.1", f"CHAP user {name} created.")
        return secret

    async def delete_chap_user(self, name: str) -> None:
        self._chap_users.delete(name)
        await self._data_plane.push(ChapRemove(user=name))
        self._events.add("INFO", "8.5.2", f"CHAP user {name} deleted.")

    async def set_chap_user(self, name: str, *, enabled: bool | None = None, secret: str | None = None) -> None:
        if secret is not None:
            self._chap_users.set_secret(name, secret)
        if enabled is not None:
            self._chap_users.set_enabled(name, enabled)
        await self._push_chap_user(name)

    async def _push_chap_user(self, name: str) -> None:
        if self._chap_users.get(name).enabled:
            await self._data_plane.push(ChapPut(user=name, secret=self._chap_users.secret(name)))
        else:
            await self._data_plane.push(ChapRemove(user=name))
