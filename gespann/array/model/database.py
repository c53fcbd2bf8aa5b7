"""The group's one database. What a transaction wrote is on the disk when ``with`` ends, or it never was."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

SCHEMA_VERSION = 5

_SCHEMA = """
CREATE TABLE parameter (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE storage_pool (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, capacity_bytes INTEGER,
    description TEXT NOT NULL) STRICT;
CREATE TABLE volume (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE COLLATE NOCASE, naa TEXT NOT NULL UNIQUE,
    target_name TEXT NOT NULL UNIQUE, pool_id INTEGER NOT NULL REFERENCES storage_pool (id),
    asked_bytes INTEGER NOT NULL, size_bytes INTEGER NOT NULL, thin INTEGER NOT NULL,
    thin_min_reserve INTEGER NOT NULL, thin_growth_warn INTEGER NOT NULL, thin_growth_max INTEGER NOT NULL,
    thin_warn_mode TEXT NOT NULL, snap_reserve INTEGER NOT NULL, snap_warn INTEGER NOT NULL,
    snap_depletion TEXT NOT NULL, description TEXT NOT NULL, alias TEXT NOT NULL, online INTEGER NOT NULL,
    read_only INTEGER NOT NULL, multihost INTEGER NOT NULL, block_size INTEGER NOT NULL,
    generation INTEGER NOT NULL, created_at TEXT NOT NULL) STRICT;
CREATE TABLE intent (
    volume_id INTEGER PRIMARY KEY REFERENCES volume (id) ON DELETE CASCADE, kind TEXT NOT NULL,
    asked_bytes INTEGER NOT NULL, thin INTEGER NOT NULL) STRICT;
CREATE TABLE access_record (
    volume_id INTEGER NOT NULL REFERENCES volume (id) ON DELETE CASCADE, number INTEGER NOT NULL,
    initiator TEXT NOT NULL, address TEXT NOT NULL, auth_method TEXT NOT NULL, chap_user TEXT NOT NULL,
    apply_to TEXT NOT NULL, PRIMARY KEY (volume_id, number)) STRICT;
CREATE TABLE chap_user (name TEXT PRIMARY KEY, enabled INTEGER NOT NULL, secret BLOB NOT NULL) STRICT;
CREATE TABLE account (
    name TEXT PRIMARY KEY COLLATE NOCASE, password_hash TEXT NOT NULL, read_only INTEGER NOT NULL,
    enabled INTEGER NOT NULL, description TEXT NOT NULL, public_keys TEXT NOT NULL, settings TEXT NOT NULL) STRICT;
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, level TEXT NOT NULL, code TEXT NOT NULL,
    text TEXT NOT NULL) STRICT;
INSERT INTO storage_pool (id, name, capacity_bytes, description) VALUES (1, 'default', NULL, '');
"""

# From each version to the next; a new database goes through all of them too. What is here never changes any more.
_LATER = {
    2: """
ALTER TABLE intent ADD COLUMN snapshot_id INTEGER;
ALTER TABLE volume ADD COLUMN bases TEXT NOT NULL DEFAULT '[]';
ALTER TABLE volume ADD COLUMN template INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volume ADD COLUMN thin_clone_of INTEGER REFERENCES volume (id);
CREATE TABLE collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE COLLATE NOCASE, description TEXT NOT NULL) STRICT;
CREATE TABLE collection_volume (
    collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    volume_id INTEGER NOT NULL REFERENCES volume (id) ON DELETE CASCADE,
    PRIMARY KEY (collection_id, volume_id)) STRICT;
CREATE TABLE snap_collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT, collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE, description TEXT NOT NULL, created_at TEXT NOT NULL, schedule_id INTEGER,
    UNIQUE (collection_id, name)) STRICT;
CREATE TABLE schedule (
    id INTEGER PRIMARY KEY AUTOINCREMENT, volume_id INTEGER REFERENCES volume (id) ON DELETE CASCADE,
    collection_id INTEGER REFERENCES collection (id) ON DELETE CASCADE, name TEXT NOT NULL COLLATE NOCASE,
    type TEXT NOT NULL, start_date TEXT NOT NULL, start_minute INTEGER NOT NULL, end_minute INTEGER NOT NULL,
    every_minutes INTEGER NOT NULL, max_keep INTEGER NOT NULL, read_only INTEGER NOT NULL, online INTEGER NOT NULL,
    enabled INTEGER NOT NULL, due_at TEXT NOT NULL, UNIQUE (volume_id, name), UNIQUE (collection_id, name)) STRICT;
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT, volume_id INTEGER NOT NULL REFERENCES volume (id) ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE, naa TEXT NOT NULL UNIQUE, target_name TEXT NOT NULL UNIQUE,
    asked_bytes INTEGER NOT NULL, size_bytes INTEGER NOT NULL, description TEXT NOT NULL, alias TEXT NOT NULL,
    online INTEGER NOT NULL, read_only INTEGER NOT NULL, multihost INTEGER NOT NULL, generation INTEGER NOT NULL,
    created_at TEXT NOT NULL, position INTEGER NOT NULL, bases TEXT NOT NULL, added_bytes INTEGER, schedule_id INTEGER,
    snap_collection_id INTEGER REFERENCES snap_collection (id) ON DELETE SET NULL, intent TEXT NOT NULL,
    UNIQUE (volume_id, name)) STRICT;
""",
    3: """
ALTER TABLE volume ADD COLUMN thin_stopped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedule ADD COLUMN weekdays INTEGER NOT NULL DEFAULT 0;
""",
    4: """
ALTER TABLE volume ADD COLUMN lease_holder TEXT NOT NULL DEFAULT '';
ALTER TABLE volume ADD COLUMN lease_generation INTEGER NOT NULL DEFAULT 0;
""",
    5: "ALTER TABLE storage_pool ADD COLUMN warn_percent INTEGER NOT NULL DEFAULT 90;",
}

R = TypeVar("R", bound=msgspec.Struct)


class Database:
    """SQLite, one connection, used from one thread. A schema newer than this release is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._inside = False
        self._prepare()

    def _prepare(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise RuntimeError(f"{self.path} was written by a newer release (schema {version}); this one would harm it")
        steps = {1: _SCHEMA, **_LATER}
        for number in range(version + 1, SCHEMA_VERSION + 1):
            self._connection.executescript(f"BEGIN; {steps[number]} PRAGMA user_version = {number}; COMMIT;")

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self, durable: bool = True) -> Iterator[None]:
        """All or nothing, on the disk at the end; one that is not ``durable`` gets there with the next that is. One
        inside another belongs to the outer."""
        if self._inside:
            yield
            return
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        self._inside = True
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._inside = False

    def run(self, sql: str, *values: Any) -> int:
        """Executes; the number of rows changed."""
        return self._connection.execute(sql, values).rowcount

    def insert(self, table: str, record: msgspec.Struct, leave_out: Sequence[str] = ()) -> int:
        """A row from a record's fields; the new row id."""
        fields = [name for name in record.__struct_fields__ if name not in leave_out]
        marks = ", ".join("?" * len(fields))
        sql = f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks})"  # noqa: S608 - names are ours
        return self._connection.execute(sql, [getattr(record, name) for name in fields]).lastrowid or 0

    def update(self, table: str, key: str, value: Any, changes: dict[str, Any]) -> None:
        settings = ", ".join(f"{name} = ?" for name in changes)
        self.run(f"UPDATE {table} SET {settings} WHERE {key} = ?", *changes.values(), value)  # noqa: S608

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def records(self, record_type: type[R], sql: str, *values: Any) -> list[R]:
        """Rows as records: the query's columns are the record's fields."""
        return [msgspec.convert(dict(row), record_type, strict=False) for row in self.rows(sql, *values)]
