"""The right to write to a volume to which several initiators are logged in: of one of them, or of all.

    [holder recorded] ─ in force in the engine: nobody else's writes are admitted ─ what others had begun has landed

Who holds it is in the database before anything else happens, so a crash at any step leaves one holder, and repeating
the request ends it. The engine lets the new one write only when the last write of the old one has landed.
"""

from gespann.array.data_plane.link import DataPlane
from gespann.array.model.access import AccessRecords
from gespann.array.model.events import Events
from gespann.array.model.records import AccessRecord, Volume
from gespann.array.model.refusals import Conflict, Failed, Mistake
from gespann.array.model.volumes import Volumes
from gespann.array.operations.volume_lifecycle import DRAIN_S, VolumeLifecycle
from gespann.seams.engine_socket import VolumeDrain
from gespann.seams.json_lines import SeamError, SeamLost


class Leases:
    def __init__(
        self,
        volumes: Volumes,
        access: AccessRecords,
        lifecycle: VolumeLifecycle,
        data_plane: DataPlane,
        events: Events,
    ) -> None:
        self._volumes = volumes
        self._access = access
        self._lifecycle = lifecycle
        self._data_plane = data_plane
        self._events = events

    async def grant(self, volume: Volume, initiator: str, instead_of: str | None = None) -> None:
        """Answered: nobody else's write can land any more. ``instead_of``: who must hold it, unless this one does."""
        if not initiator:
            raise Mistake("A lease is of one initiator: name it.")
        async with self._lifecycle.turn(volume) as volume:
            if instead_of is not None and not _same(volume.lease_holder, instead_of, initiator):
                holder = volume.lease_holder or "nobody"
                raise Conflict(f"The lease of volume {volume.name} is held by {holder}, not by {instead_of}.")
            if not any(record.initiator.lower() == initiator.lower() for record in self._opening(volume)):
                raise Conflict(f"No access control record of volume {volume.name} names {initiator}. Create it first.")
            await self._set(volume, initiator)

    async def release(self, volume: Volume) -> None:
        """Whoever is logged in may write."""
        async with self._lifecycle.turn(volume) as volume:
            await self._set(volume, "")

    async def _set(self, volume: Volume, holder: str) -> None:
        if volume.lease_holder.lower() != holder.lower():
            generation = volume.lease_generation + 1
            volume = self._volumes.change(volume.id, lease_holder=holder, lease_generation=generation)
            whose = f"granted to {holder}" if holder else "released"
            self._events.add("INFO", "8.6.1", f"Lease {generation} of volume {volume.name} {whose}.")
        await self._data_plane.push_target(volume.naa)
        if volume.naa in self._data_plane.present:
            await self._drain(volume)

    async def _drain(self, volume: Volume) -> None:
        recorded = f"The lease of volume {volume.name} is recorded"
        try:
            drain = VolumeDrain(volume=volume.naa, timeout_ms=int(DRAIN_S * 1000))
            await self._data_plane.call(drain, DRAIN_S + 5)
        except SeamLost as error:
            self._data_plane.mark_stale()
            why = "the data plane did not answer whether earlier commands have ended"
            raise Failed(f"{recorded}, but {why}. Repeat the command.") from error
        except SeamError as error:
            raise Failed(
                f"{recorded}, but earlier commands have not ended: {error.message}. Repeat the command."
            ) from error

    def _opening(self, volume: Volume) -> list[AccessRecord]:
        return [record for record in self._access.of(volume.id) if record.apply_to != "snapshot"]


def _same(holder: str, *names: str) -> bool:
    return holder.lower() in {name.lower() for name in names}
