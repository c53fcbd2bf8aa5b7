"""Storage pools: named parts of the group's space. ``default`` is always there."""

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import StoragePool
from gespann.array.model.refusals import Conflict, not_there

DEFAULT = "default"
POOLS_MOST = 4  # of a PS group, and few enough for every client's tables


class StoragePools:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoragePool]:
        return self._database.records(StoragePool, "SELECT * FROM storage_pool ORDER BY id")

    def get(self, name: str) -> StoragePool:
        found = self._database.records(StoragePool, "SELECT * FROM storage_pool WHERE name = ?", name)
        if not found:
            raise not_there("Storage pool", name)
        return found[0]

    def by_id(self, pool_id: int) -> StoragePool:
        return next(pool for pool in self.all() if pool.id == pool_id)

    def members(self) -> list[tuple[str, int]]:
        """Volumes and snapshots by NAA, each with the number of its pool."""
        rows = self._database.rows(
            "SELECT naa, pool_id FROM volume UNION ALL SELECT snapshot.naa, volume.pool_id FROM snapshot"
            " JOIN volume ON volume.id = snapshot.volume_id"
        )
        return [(row["naa"], row["pool_id"]) for row in rows]

    def create(self, name: str, capacity_bytes: int | None = None, description: str = "") -> StoragePool:
        names.pool_name(name)
        pools = self.all()
        if any(pool.name.lower() == name.lower() for pool in pools):
            raise Conflict(f"Storage pool {name} already exists.")
        if len(pools) >= POOLS_MOST:
            raise Conflict(f"A group can have {POOLS_MOST} storage pools at most.")
        pool = StoragePool(id=0, name=name, capacity_bytes=capacity_bytes, description=names.description(description))
        with self._database.transaction():
            self._database.insert("storage_pool", pool, leave_out=("id",))
        return self.get(name)

    def change(self, pool_id: int, **changes: object) -> None:
        with self._database.transaction():
            self._database.update("storage_pool", "id", pool_id, changes)

    def delete(self, name: str) -> None:
        pool = self.get(name)
        if pool.name == DEFAULT:
            raise Conflict(f"Storage pool {DEFAULT} cannot be deleted.")
        if self._database.rows("SELECT 1 FROM volume WHERE pool_id = ?", pool.id):
            raise Conflict(f"Storage pool {pool.name} still has volumes.")
        with self._database.transaction():
            self._database.run("DELETE FROM storage_pool WHERE id = ?", pool.id)
