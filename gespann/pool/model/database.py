"""Records of the pool: read freely, changed only inside a transaction.

    with db.transaction() as tx:
        ref = tx.create("VM", {"name_label": "web1"})
        tx.set("VM", ref, power_state="Running")

A transaction holds no ``await``, so others see all of it or nothing. At its end it is written to SQLite (durable)
before memory changes and before anybody is told. An exception inside it changes nothing.

The many side of a relation (``VM.VBDs``) is kept by the database from the one side (``VBD.VM``): never set it.
Records returned by reads are the live ones: do not change them. A change puts a new record in the place of the old.
"""

import os
import sqlite3
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec

from gespann.pool.model.history import History
from gespann.pool.model.relations import followers, leaders, reference_fields
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

Record = Mapping[str, Any]
#: kept in memory only: they mean nothing after a restart of the coordinator
VOLATILE = frozenset({"session", "task", "event", "console", "VM_metrics", "VM_guest_metrics"})
SCHEMA_VERSION = 1
#: generations are set aside in blocks this large at each start, so that no number of an earlier run comes again
GENERATION_BLOCK = 1 << 32

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    class TEXT NOT NULL, ref TEXT NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (class, ref));
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class DatabaseTooNew(Exception):
    """Written by a later version of this program; nothing was changed."""


def new_ref() -> str:
    return f"OpaqueRef:{uuid_module.uuid4()}"


class Database:
    """``path`` none: in memory only (tests). The file is readable by its owner only: it holds secrets."""

    def __init__(self, path: Path | None) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in datamodel.classes()}
        self._uuids: dict[str, dict[str, str]] = {name: {} for name in self.tables}
        self._labels: dict[str, dict[str, dict[str, None]]] = {
            name: {} for name, c in datamodel.classes().items() if "name_label" in c.fields
        }
        self._listeners: list[Callable[[], None]] = []
        self._derivers: list[Callable[[Transaction, set[tuple[str, str]]], None]] = []  # see derive()
        self._open: Transaction | None = None
        self.path = path
        self._still: tuple[str | None, XenApiError] | None = None
        self.durable_commits = 0  # of this run: whether a copy is still new
        self.sqlite = _connect(path)
        self.history = History(self._next_generations())
        self._load()

    @property
    def generation(self) -> int:
        """Rises with every commit, and from one run to the next."""
        return self.history.generation

    def _next_generations(self) -> int:
        row = self.sqlite.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        start = int(row[0]) if row else 0
        self.sqlite.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (str(start + GENERATION_BLOCK),))
        return start

    def _load(self) -> None:
        defaults = {name: _defaults(name) for name in self.tables}
        for class_name, ref, fields in self.sqlite.execute("SELECT class, ref, fields FROM record"):
            default = defaults.get(class_name)
            if default is None:
                continue  # a class of a later version that was taken back: kept in the file, not shown
            record = dict(default)
            stored = msgspec.json.decode(fields)
            # what is as by default is not kept twice: most lists and maps of a large pool are empty
            record.update((k, v) for k, v in stored.items() if k in default and v != default[k])
            self._forget_volatile(class_name, record)
            self._place(class_name, ref, record)
        self._recompute_many_sides()

    @staticmethod
    def _forget_volatile(class_name: str, record: dict[str, Any]) -> None:
        for name, target_class in reference_fields(class_name).items():
            if target_class in VOLATILE:
                record[name] = [] if isinstance(record[name], list) else NULL_REF

    def _recompute_many_sides(self) -> None:
        for class_name, sides in leaders().items():
            for field_name, (one_class, one_field) in sides.items():
                if datamodel.classes()[one_class].fields[one_field].type.kind == "set":
                    continue
                members: dict[str, list[str]] = {}
                for ref, record in self.tables[one_class].items():
                    members.setdefault(record[one_field], []).append(ref)
                for ref, record in self.tables[class_name].items():
                    record[field_name] = members.get(ref, [])

    def _place(self, class_name: str, ref: str, record: dict[str, Any]) -> None:
        old = self.tables[class_name].get(ref)
        self.tables[class_name][ref] = record
        uuid = record.get("uuid")
        if uuid:
            self._uuids[class_name][uuid] = ref
        if old and old.get("uuid") and old["uuid"] != uuid:
            self._uuids[class_name].pop(old["uuid"], None)
        labels = self._labels.get(class_name)
        if labels is not None and (old is None or old["name_label"] != record["name_label"]):
            if old is not None:
                self._drop_label(labels, old["name_label"], ref)
            labels.setdefault(record["name_label"], {})[ref] = None

    def _remove(self, class_name: str, ref: str) -> None:
        record = self.tables[class_name].pop(ref)
        if record.get("uuid"):
            self._uuids[class_name].pop(record["uuid"], None)
        if class_name in self._labels:
            self._drop_label(self._labels[class_name], record["name_label"], ref)

    @staticmethod
    def _drop_label(labels: dict[str, dict[str, None]], label: str, ref: str) -> None:
        labels[label].pop(ref, None)
        if not labels[label]:
            del labels[label]

    # -- reading

    def get(self, class_name: str, ref: str) -> Record:
        """The record, or HANDLE_INVALID."""
        try:
            return self.tables[class_name][ref]
        except KeyError:
            raise XenApiError("HANDLE_INVALID", [class_name, ref]) from None

    def find(self, class_name: str, ref: str) -> Record | None:
        return self.tables[class_name].get(ref)

    def all(self, class_name: str) -> Mapping[str, Record]:
        return self.tables[class_name]

    def where(self, class_name: str, **equals: Any) -> list[tuple[str, Record]]:
        return [(r, rec) for r, rec in self.tables[class_name].items() if all(rec[k] == v for k, v in equals.items())]

    def by_uuid(self, class_name: str, uuid: str) -> str:
        """The ref, or UUID_INVALID."""
        try:
            return self._uuids[class_name][uuid]
        except KeyError:
            raise XenApiError("UUID_INVALID", [class_name, uuid]) from None

    def by_name_label(self, class_name: str, label: str) -> list[str]:
        return list(self._labels[class_name].get(label, ()))

    # -- changing

    def hold_still(self, owner: str | None, refusal: XenApiError) -> None:
        """From here on whatever would have to be durable is refused, except to ``owner``; None: to everybody."""
        self._still = owner, refusal

    def go_on(self) -> None:
        self._still = None

    @property
    def still(self) -> bool:
        return self._still is not None

    @contextmanager
    def transaction(self, of: str = "") -> Iterator["Transaction"]:
        """``of``: the operation that it belongs to (``hold_still``)."""
        if self._open is not None:
            raise RuntimeError("a transaction is open already: pass it on instead of opening another")
        self._open = tx = Transaction(self, of)
        try:
            yield tx
            changed = tx._commit()
        finally:
            self._open = None
        if changed:
            self._tell()

    def touch(self, class_name: str, ref: str) -> None:
        """Tells the world that a record has changed, without changing it."""
        self.get(class_name, ref)
        self.history.write([(class_name, ref, "mod")])
        self._tell()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after each commit that changed something."""
        self._listeners.append(listener)

    def derive(self, deriver: "Callable[[Transaction, set[tuple[str, str]]], None]") -> None:
        """Calls ``deriver`` at the end of each transaction, inside it, with the (class, ref) of what has changed: for
        fields that follow from others (``allowed_operations``)."""
        self._derivers.append(deriver)

    def close(self) -> None:
        self.sqlite.close()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's own files take its mode
    connection = sqlite3.connect(path or ":memory:", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise DatabaseTooNew(f"{path}: written by a later version (schema {version}, this is {SCHEMA_VERSION})")
    connection.executescript(_SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")
    return connection


def _defaults(class_name: str) -> dict[str, Any]:
    """A record of defaults. Its lists and maps are shared by all: nobody changes a value in place."""
    return {name: f.default for name, f in datamodel.classes()[class_name].fields.items()}


def _own_copy(value: Any) -> Any:
    """Records never share their lists and maps with whoever gave them."""
    return deepcopy(value) if isinstance(value, list | dict | tuple | set) else value


class Transaction:
    """Changes that become true together. Reads through it see its own changes."""

    def __init__(self, db: Database, of: str = "") -> None:
        self._db = db
        self._of = of
        self._changed: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._own_members: set[tuple[str, str, str]] = set()  # many sides that are copies of this transaction
        self._given_uuids: dict[tuple[str, str], str] = {}  # (class, uuid) -> who was given it here last
        self._statements: list[tuple[str, tuple[Any, ...]]] = []

    def get(self, class_name: str, ref: str) -> Record:
        if (class_name, ref) in self._changed:
            record = self._changed[class_name, ref]
            if record is None:
                raise XenApiError("HANDLE_INVALID", [class_name, ref])
            return record
        return self._db.get(class_name, ref)

    def exists(self, class_name: str, ref: str) -> bool:
        if (class_name, ref) in self._changed:
            return self._changed[class_name, ref] is not None
        return ref in self._db.tables[class_name]

    def where(self, class_name: str, **equals: Any) -> list[tuple[str, Record]]:
        """As ``Database.where``, with the changes of this transaction."""
        changed = [(ref, record) for (name, ref), record in self._changed.items() if name == class_name and record]
        found = [(r, rec) for r, rec in changed if all(rec[k] == v for k, v in equals.items())]
        return found + [
            (r, rec) for r, rec in self._db.where(class_name, **equals) if (class_name, r) not in self._changed
        ]

    def create(self, class_name: str, fields: Mapping[str, Any], ref: str | None = None) -> str:
        """A new record with defaults for what is not given; a uuid is made unless given. The uuid of another record
        of the class is refused (DB_UNIQUENESS_CONSTRAINT_VIOLATION)."""
        record = _defaults(class_name)
        if "uuid" in record:
            record["uuid"] = str(uuid_module.uuid4())
        ref = ref or new_ref()
        if self.exists(class_name, ref):
            raise XenApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", [class_name, "_ref", ref])
        if (class_name, ref) in self._changed:  # was destroyed a moment ago
            self._own_members = {place for place in self._own_members if place[:2] != (class_name, ref)}
        self._changed[class_name, ref] = record
        self.set(class_name, ref, **fields)
        return ref

    def set(self, class_name: str, ref: str, **fields: Any) -> None:
        record = self._own(class_name, ref)
        following = followers().get(class_name, {})
        for name, value in fields.items():
            if name not in record:
                raise KeyError(f"{class_name} has no field {name}")
            if name == "uuid" and value != record[name]:
                self._check_uuid(class_name, ref, value)
            old, record[name] = record[name], _own_copy(value)
            self._own_members.discard((class_name, ref, name))
            for many_class, many_field in following.get(name, ()):
                self._relate(ref, old, value, many_class, many_field)

    def destroy(self, class_name: str, ref: str) -> None:
        """Takes the record away; who pointed at it through a relation points at nothing. Gone already: no change."""
        if not self.exists(class_name, ref):
            return
        record = self._own(class_name, ref)
        for name, sides in followers().get(class_name, {}).items():
            for many_class, many_field in sides:
                self._relate(ref, record[name], NULL_REF, many_class, many_field)
        for name, (one_class, one_field) in leaders().get(class_name, {}).items():
            for member in list(record[name]):
                if self.exists(one_class, member):
                    self._let_go(one_class, member, one_field, ref)
        self._changed[class_name, ref] = None

    def execute(self, sql: str, *params: Any) -> None:
        """A statement on another table of the same file, made true in the same instant (the journal uses it)."""
        self._statements.append((sql, params))

    def _check_uuid(self, class_name: str, ref: str, uuid: str) -> None:
        holder = self._db._uuids[class_name].get(uuid)
        taken = holder is not None and holder != ref and self.exists(class_name, holder)
        other = self._given_uuids.get((class_name, uuid), ref)
        if other != ref:
            record = self._changed.get((class_name, other))
            taken = taken or (record is not None and record["uuid"] == uuid)
        if uuid and taken:
            raise XenApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", [class_name, "uuid", uuid])
        self._given_uuids[class_name, uuid] = ref

    def _own(self, class_name: str, ref: str) -> dict[str, Any]:
        record = self._changed.get((class_name, ref))
        if record is None:
            record = dict(self.get(class_name, ref))
            self._changed[class_name, ref] = record
        return record

    def _relate(self, ref: str, old: Any, new: Any, many_class: str, many_field: str) -> None:
        before = set(old if isinstance(old, list) else [old])
        after = set(new if isinstance(new, list) else [new])
        for target in before ^ after:
            if not self.exists(many_class, target):
                continue
            record = self._own(many_class, target)
            place = (many_class, target, many_field)
            if place not in self._own_members:
                self._own_members.add(place)
                record[many_field] = list(record[many_field])
            if target in after:
                record[many_field].append(ref)
            elif ref in record[many_field]:
                record[many_field].remove(ref)

    def _let_go(self, class_name: str, ref: str, field_name: str, target: str) -> None:
        record = self._own(class_name, ref)
        if isinstance(record[field_name], list):
            record[field_name] = [other for other in record[field_name] if other != target]
        elif record[field_name] == target:
            record[field_name] = NULL_REF

    def _commit(self) -> bool:
        db = self._db
        for deriver in db._derivers:
            deriver(self, set(self._changed))
        changed = {
            (class_name, ref): record
            for (class_name, ref), record in self._changed.items()
            if record != db.tables[class_name].get(ref)
        }
        self._make_durable(changed)
        entries = []
        for (class_name, ref), record in changed.items():
            if record is None:
                db._remove(class_name, ref)
                entries.append((class_name, ref, "del"))
            else:
                entries.append((class_name, ref, "mod" if ref in db.tables[class_name] else "add"))
                db._place(class_name, ref, record)
        if entries:
            db.history.write(entries)
        return bool(entries)

    def _make_durable(self, changed: dict[tuple[str, str], dict[str, Any] | None]) -> None:
        rows = [(k, v) for k, v in changed.items() if k[0] not in VOLATILE]
        if not rows and not self._statements:
            return
        if self._db._still is not None and self._db._still[0] != self._of:
            raise self._db._still[1]
        sqlite = self._db.sqlite
        sqlite.execute("BEGIN IMMEDIATE")
        try:
            for (class_name, ref), record in rows:
                if record is None:
                    sqlite.execute("DELETE FROM record WHERE class = ? AND ref = ?", (class_name, ref))
                else:
                    fields = msgspec.json.encode(record).decode()
                    sqlite.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", (class_name, ref, fields))
            for sql, params in self._statements:
                sqlite.execute(sql, params)
            sqlite.execute("COMMIT")
            self._db.durable_commits += 1
        except BaseException:
            if sqlite.in_transaction:
                sqlite.execute("ROLLBACK")
            raise
