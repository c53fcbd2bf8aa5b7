"""How much of its file system the member gives to volumes, and from what use of that on it warns."""

from dataclasses import dataclass

from gespann.array.model.database import Database
from gespann.array.model.space import FileSystem
from gespann.seams.engine_socket import SpaceLimit, SpaceReply

_CAPACITY, _WARN = "member:capacity", "member:space-warn"
WARN_PERCENT = 90


@dataclass(frozen=True)
class MemberSpace:
    capacity_bytes: int | None = None  # none: all that the file system has
    warn_percent: int = WARN_PERCENT

    def limit(self) -> SpaceLimit:
        """For the engine; one that has no capacity set has nothing that initiators could be warned of."""
        return SpaceLimit(
            limit_bytes=self.capacity_bytes, warn_percent=100 if self.capacity_bytes is None else self.warn_percent
        )

    def left_of(self, space: SpaceReply) -> FileSystem:
        """What the pools share: the file system, or as much of it as the capacity grants."""
        if self.capacity_bytes is None:
            return FileSystem(total_bytes=space.total_bytes, free_bytes=space.free_bytes)
        return FileSystem(
            total_bytes=min(space.total_bytes, self.capacity_bytes),
            free_bytes=max(0, min(space.free_bytes, self.capacity_bytes - space.used_bytes)),
        )


class MemberSpaces:
    """Rows of the table of parameters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self) -> MemberSpace:
        rows = self._database.rows("SELECT key, value FROM parameter WHERE key IN (?, ?)", _CAPACITY, _WARN)
        kept = {row["key"]: int(row["value"]) for row in rows}
        return MemberSpace(kept.get(_CAPACITY), kept.get(_WARN, WARN_PERCENT))

    def set(self, space: MemberSpace) -> None:
        with self._database.transaction():
            self._database.run("DELETE FROM parameter WHERE key IN (?, ?)", _CAPACITY, _WARN)
            put = "INSERT INTO parameter (key, value) VALUES (?, ?)"
            self._database.run(put, _WARN, str(space.warn_percent))
            if space.capacity_bytes is not None:
                self._database.run(put, _CAPACITY, str(space.capacity_bytes))
