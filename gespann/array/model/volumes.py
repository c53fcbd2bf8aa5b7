"""The rows of volumes and of intents. A volume that is being made or taken away is not seen by its name."""

from typing import Any

from gespann.array.model.database import Database
from gespann.array.model.records import Intent, Volume
from gespann.array.model.refusals import not_there

_HIDDEN = "(SELECT volume_id FROM intent WHERE kind IN ('create', 'clone', 'delete'))"


class Volumes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Volume]:
        """Those that can be seen, by name."""
        sql = f"SELECT * FROM volume WHERE id NOT IN {_HIDDEN} ORDER BY name"  # noqa: S608
        return self._database.records(Volume, sql)

    def rows(self) -> list[Volume]:
        """All, also half-made ones: their names and their space are taken."""
        return self._database.records(Volume, "SELECT * FROM volume ORDER BY id")

    def any_with_maximum(self) -> bool:
        """Whether an online thin volume may not grow to its whole size."""
        return bool(self._database.rows("SELECT 1 FROM volume WHERE thin AND online AND thin_growth_max < 100 LIMIT 1"))

    def thin_clones(self, template_id: int) -> list[Volume]:
        sql = "SELECT * FROM volume WHERE thin_clone_of = ? ORDER BY name"
        return self._database.records(Volume, sql, template_id)

    def get(self, name: str) -> Volume:
        sql = f"SELECT * FROM volume WHERE name = ? AND id NOT IN {_HIDDEN}"  # noqa: S608
        found = self._database.records(Volume, sql, name)
        if not found:
            raise not_there("Volume", name)
        return found[0]

    def row(self, volume_id: int) -> Volume | None:
        found = self._database.records(Volume, "SELECT * FROM volume WHERE id = ?", volume_id)
        return found[0] if found else None

    def get_by_id(self, volume_id: int, name: str) -> Volume:
        """The row now of a volume that was seen as ``name``; Mistake if it has gone meanwhile."""
        volume = self.row(volume_id)
        if volume is None:
            raise not_there("Volume", name)
        return volume

    def by_naa(self, naa: str) -> Volume | None:
        found = self._database.records(Volume, "SELECT * FROM volume WHERE naa = ?", naa)
        return found[0] if found else None

    def named(self, name: str) -> Volume | None:
        """Whoever has the name, seen or not."""
        found = self._database.records(Volume, "SELECT * FROM volume WHERE name = ?", name)
        return found[0] if found else None

    def add(self, volume: Volume, intent: Intent | None) -> Volume:
        with self._database.transaction():
            volume_id = self._database.insert("volume", volume, leave_out=("id",))
            if intent is not None:
                self._database.run(
                    "INSERT INTO intent (volume_id, kind, asked_bytes, thin) VALUES (?, ?, ?, ?)",
                    volume_id,
                    intent.kind,
                    intent.asked_bytes,
                    intent.thin,
                )
        added = self.row(volume_id)
        assert added is not None
        return added

    def change(self, volume_id: int, **changes: Any) -> Volume:
        with self._database.transaction():
            self._database.update("volume", "id", volume_id, changes)
        changed = self.row(volume_id)
        if changed is None:
            raise not_there("Volume", str(volume_id))
        return changed

    def remove(self, volume_id: int) -> None:
        """The row, and with it records and intent."""
        with self._database.transaction():
            self._database.run("DELETE FROM volume WHERE id = ?", volume_id)

    def intend(self, intent: Intent) -> None:
        with self._database.transaction():
            self._database.insert("intent", intent)

    def intent(self, volume_id: int) -> Intent | None:
        found = self._database.records(Intent, "SELECT * FROM intent WHERE volume_id = ?", volume_id)
        return found[0] if found else None

    def intents(self) -> list[Intent]:
        return self._database.records(Intent, "SELECT * FROM intent ORDER BY volume_id")

    def settle(self, volume_id: int, **changes: Any) -> None:
        """The intent is fulfilled (with ``changes`` to the row) or given up (without)."""
        with self._database.transaction():
            if changes:
                self._database.update("volume", "id", volume_id, changes)
            self._database.run("DELETE FROM intent WHERE volume_id = ?", volume_id)
