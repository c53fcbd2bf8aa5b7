"""The rows of snapshots."""

from typing import Any

import msgspec

from gespann.array.model import descent
from gespann.array.model.database import Database
from gespann.array.model.records import SnapCollection, Snapshot, Volume
from gespann.array.model.refusals import Conflict, not_there

PER_VOLUME_MOST = 512
PER_GROUP_MOST = 10_000


class Snapshots:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, volume_id: int) -> list[Snapshot]:
        """Those that can be seen, oldest first."""
        sql = "SELECT * FROM snapshot WHERE volume_id = ? AND intent = '' ORDER BY id"
        return self._database.records(Snapshot, sql, volume_id)

    def rows(self, volume_id: int) -> list[Snapshot]:
        """Also those half-made or half-gone, oldest first."""
        return self._database.records(Snapshot, "SELECT * FROM snapshot WHERE volume_id = ? ORDER BY id", volume_id)

    def online(self) -> list[Snapshot]:
        return self._database.records(Snapshot, "SELECT * FROM snapshot WHERE online AND intent = '' ORDER BY id")

    def online_of(self, volume_id: int) -> list[Snapshot]:
        return [snapshot for snapshot in self.of(volume_id) if snapshot.online]

    def counts(self) -> dict[int, int]:
        """How many each volume has, for those that have any."""
        sql = "SELECT volume_id, count(*) AS number FROM snapshot WHERE intent = '' GROUP BY volume_id"
        return {row["volume_id"]: row["number"] for row in self._database.rows(sql)}

    def names(self) -> dict[str, tuple[str, str]]:
        """Volume and snapshot by NAA, of all rows."""
        sql = "SELECT s.naa, v.name AS volume, s.name FROM snapshot s JOIN volume v ON v.id = s.volume_id"
        return {row["naa"]: (row["volume"], row["name"]) for row in self._database.rows(sql)}

    def get(self, volume_id: int, name: str) -> Snapshot:
        sql = "SELECT * FROM snapshot WHERE volume_id = ? AND name = ? AND intent = ''"
        found = self._database.records(Snapshot, sql, volume_id, name)
        if not found:
            raise not_there("Snapshot", name)
        return found[0]

    def get_by_id(self, snapshot_id: int, name: str) -> Snapshot:
        """The row now of one that was seen as ``name``; Mistake if it has gone meanwhile."""
        found = self.row(snapshot_id)
        if found is None or found.intent:
            raise not_there("Snapshot", name)
        return found

    def row(self, snapshot_id: int) -> Snapshot | None:
        found = self._database.records(Snapshot, "SELECT * FROM snapshot WHERE id = ?", snapshot_id)
        return found[0] if found else None

    def by_naa(self, naa: str) -> Snapshot | None:
        found = self._database.records(Snapshot, "SELECT * FROM snapshot WHERE naa = ? AND intent = ''", naa)
        return found[0] if found else None

    def is_taken(self, volume_id: int, name: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM snapshot WHERE volume_id = ? AND name = ?", volume_id, name))

    def of_schedule(self, schedule_id: int) -> list[Snapshot]:
        sql = "SELECT * FROM snapshot WHERE schedule_id = ? AND intent = '' ORDER BY id"
        return self._database.records(Snapshot, sql, schedule_id)

    def of_snap_collection(self, snap_collection_id: int) -> list[Snapshot]:
        sql = "SELECT * FROM snapshot WHERE snap_collection_id = ? AND intent = '' ORDER BY id"
        return self._database.records(Snapshot, sql, snap_collection_id)

    def intents(self) -> list[Snapshot]:
        return self._database.records(Snapshot, "SELECT * FROM snapshot WHERE intent != '' ORDER BY id")

    def check_room(self, volume: Volume) -> None:
        """Conflict at the limits."""
        if len(self.rows(volume.id)) >= PER_VOLUME_MOST:
            raise Conflict(f"Volume {volume.name} has {PER_VOLUME_MOST} snapshots, which is the most that it can have.")
        if self._database.rows("SELECT count(*) AS number FROM snapshot")[0]["number"] >= PER_GROUP_MOST:
            raise Conflict(f"The group has {PER_GROUP_MOST} snapshots, which is the most that it can have.")

    def add(self, drafts: list[Snapshot], together: SnapCollection | None = None) -> list[Snapshot]:
        """Rows that cannot be seen until they are settled; each is its volume's base from now on."""
        added = []
        with self._database.transaction():
            part_of = (
                None if together is None else self._database.insert("snap_collection", together, leave_out=("id",))
            )
            for draft in drafts:
                number = self._database.insert("snapshot", draft, leave_out=("id",))
                sql = "UPDATE snapshot SET snap_collection_id = ?, intent = 'create' WHERE id = ?"
                self._database.run(sql, part_of, number)
                bases = {one: own for one, own in self._bases(draft.volume_id).items() if one != number}
                self._descend(draft.volume_id, descent.after_snapshot(bases, number))
                added.append(number)
        return [found for found in (self.row(number) for number in added) if found is not None]

    def _bases(self, volume_id: int) -> descent.Bases:
        rows = self._database.rows("SELECT id, bases FROM snapshot WHERE volume_id = ? ORDER BY position", volume_id)
        own = self._database.rows("SELECT bases FROM volume WHERE id = ?", volume_id)
        bases = {row["id"]: msgspec.json.decode(row["bases"], type=list[int]) for row in rows}
        return {**bases, descent.VOLUME: msgspec.json.decode(own[0]["bases"], type=list[int]) if own else []}

    def _descend(self, volume_id: int, bases: descent.Bases) -> None:
        """Notes who comes from whom now; what was counted against others is not counted any more."""
        before = self._bases(volume_id)
        for position, (one, own) in enumerate(bases.items(), 1):
            text = msgspec.json.encode(own).decode()
            if one == descent.VOLUME:
                self._database.run("UPDATE volume SET bases = ? WHERE id = ?", text, volume_id)
                continue
            self._database.run(
                "UPDATE snapshot SET position = ? WHERE id = ? AND position != ?", position, one, position
            )
            if before.get(one) != own:
                self._database.run("UPDATE snapshot SET bases = ?, added_bytes = NULL WHERE id = ?", text, one)

    def restored(self, snapshot: Snapshot) -> None:
        """Its volume is as it is now."""
        with self._database.transaction():
            self._descend(snapshot.volume_id, descent.after_restore(self._bases(snapshot.volume_id), snapshot.id))

    def opened(self, snapshot: Snapshot) -> None:
        """It may be written to from now on."""
        with self._database.transaction():
            self._descend(snapshot.volume_id, descent.after_opening(self._bases(snapshot.volume_id), snapshot.id))

    def change(self, snapshot_id: int, **changes: Any) -> Snapshot:
        with self._database.transaction():
            self._database.update("snapshot", "id", snapshot_id, changes)
        changed = self.row(snapshot_id)
        if changed is None:
            raise not_there("Snapshot", str(snapshot_id))
        return changed

    def settle(self, snapshots: list[Snapshot]) -> list[Snapshot]:
        """They are there, all at once."""
        with self._database.transaction():
            for snapshot in snapshots:
                self._database.run("UPDATE snapshot SET intent = '' WHERE id = ?", snapshot.id)
        return [found for found in (self.row(snapshot.id) for snapshot in snapshots) if found is not None]

    def counted(self, snapshot: Snapshot, added_bytes: int) -> None:
        """Kept only if its bases are still those that it was counted against."""
        with self._database.transaction(durable=False):
            sql = "UPDATE snapshot SET added_bytes = ? WHERE id = ? AND bases = ?"
            self._database.run(sql, added_bytes, snapshot.id, snapshot.bases)

    def uncount(self, snapshot: Snapshot) -> None:
        """Its contents may have changed: its own count and that of those that came from it hold no longer."""
        bases = self._bases(snapshot.volume_id)
        with self._database.transaction():
            for one in [snapshot.id, *(one for one, own in bases.items() if snapshot.id in own)]:
                self._database.run("UPDATE snapshot SET added_bytes = NULL WHERE id = ?", one)

    def remove(self, snapshot_id: int) -> None:
        with self._database.transaction():
            snapshot = self.row(snapshot_id)
            if snapshot is None:
                return
            after = descent.after_removal(self._bases(snapshot.volume_id), snapshot_id)
            self._descend(snapshot.volume_id, after)
            self._database.run("DELETE FROM snapshot WHERE id = ?", snapshot_id)
            left = self._database.rows(
                "SELECT 1 FROM snapshot WHERE snap_collection_id IS ?", snapshot.snap_collection_id
            )
            if not left:
                self._database.run("DELETE FROM snap_collection WHERE id = ?", snapshot.snap_collection_id)
