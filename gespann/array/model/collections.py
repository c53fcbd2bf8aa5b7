"""Collections: named sets of volumes that get their snapshots at one instant; and the sets of those snapshots."""

from typing import Any

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import Collection, SnapCollection, Volume
from gespann.array.model.refusals import Conflict, not_there

COLLECTIONS_MOST = 100
VOLUMES_MOST = 8


class Collections:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Collection]:
        return self._database.records(Collection, "SELECT * FROM collection ORDER BY name")

    def get(self, name: str) -> Collection:
        found = self._database.records(Collection, "SELECT * FROM collection WHERE name = ?", name)
        if not found:
            raise not_there("Collection", name)
        return found[0]

    def get_by_id(self, collection_id: int, name: str) -> Collection:
        found = self._database.records(Collection, "SELECT * FROM collection WHERE id = ?", collection_id)
        if not found:
            raise not_there("Collection", name)
        return found[0]

    def create(self, name: str, description: str = "") -> Collection:
        names.collection_name(name)
        self._check_free(name)
        if len(self.all()) >= COLLECTIONS_MOST:
            raise Conflict(f"A group can have {COLLECTIONS_MOST} collections at most.")
        with self._database.transaction():
            draft = Collection(name=name, description=names.description(description))
            self._database.insert("collection", draft, leave_out=("id",))
        return self.get(name)

    def rename(self, collection: Collection, name: str) -> None:
        names.collection_name(name)
        if name.lower() != collection.name.lower():
            self._check_free(name)
        self.change(collection.id, name=name)

    def _check_free(self, name: str) -> None:
        if self._database.rows("SELECT 1 FROM collection WHERE name = ?", name):
            raise Conflict(f"Collection {name} already exists.")

    def change(self, collection_id: int, **changes: Any) -> None:
        with self._database.transaction():
            self._database.update("collection", "id", collection_id, changes)

    def delete(self, collection_id: int) -> None:
        """Its volumes and their snapshots stay."""
        with self._database.transaction():
            self._database.run("DELETE FROM collection WHERE id = ?", collection_id)

    # Its volumes -----------------------------------------------------------------------------------------------------

    def volumes(self, collection_id: int) -> list[Volume]:
        sql = """SELECT volume.* FROM volume JOIN collection_volume ON volume_id = id WHERE collection_id = ?
                 AND id NOT IN (SELECT volume_id FROM intent WHERE kind = 'delete') ORDER BY name"""
        return self._database.records(Volume, sql, collection_id)

    def of_volume(self, volume_id: int) -> list[Collection]:
        sql = "SELECT collection.* FROM collection JOIN collection_volume ON collection_id = id WHERE volume_id = ?"
        return self._database.records(Collection, sql, volume_id)

    def add(self, collection: Collection, volume: Volume) -> None:
        """One that is in it already stays."""
        present = self.volumes(collection.id)
        if any(one.id == volume.id for one in present):
            return
        if volume.template:
            raise Conflict(f"Volume {volume.name} is a template: it cannot be in a collection.")
        if len(present) >= VOLUMES_MOST:
            raise Conflict(f"A collection can have {VOLUMES_MOST} volumes at most.")
        with self._database.transaction():
            sql = "INSERT INTO collection_volume (collection_id, volume_id) VALUES (?, ?)"
            self._database.run(sql, collection.id, volume.id)

    def take_out(self, collection: Collection, volume: Volume) -> None:
        with self._database.transaction():
            sql = "DELETE FROM collection_volume WHERE collection_id = ? AND volume_id = ?"
            if not self._database.run(sql, collection.id, volume.id):
                raise Conflict(f"Volume {volume.name} is not in collection {collection.name}.")

    # The snapshots made of it ----------------------------------------------------------------------------------------

    def snaps(self, collection_id: int) -> list[SnapCollection]:
        """Oldest first."""
        sql = "SELECT * FROM snap_collection WHERE collection_id = ? ORDER BY id"
        return self._database.records(SnapCollection, sql, collection_id)

    def snaps_of_schedule(self, schedule_id: int) -> list[SnapCollection]:
        sql = "SELECT * FROM snap_collection WHERE schedule_id = ? ORDER BY id"
        return self._database.records(SnapCollection, sql, schedule_id)

    def get_snap(self, collection_id: int, name: str) -> SnapCollection:
        for snap in self.snaps(collection_id):
            if snap.name.lower() == name.lower():
                return snap
        raise not_there("Snapshot collection", name)

    def snap_name_of(self, snap_collection_id: int | None) -> str:
        rows = self._database.rows("SELECT name FROM snap_collection WHERE id = ?", snap_collection_id)
        return str(rows[0]["name"]) if rows else ""
