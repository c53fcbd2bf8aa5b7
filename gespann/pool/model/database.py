"""Records of the pool: read freely, changed only inside a transaction.

    with db.transaction() as tx:
        ref = tx.create("VM", {"name_label": "web1"})
        tx.set("VM", ref, power_state="Running")

A transaction holds no ``await``, so others see all of it or nothing. At its end it is written to SQLite (durable)
before memory changes and before anybody is told. An exception inside it changes nothing.

The many side of a relation (``VM.VBDs``) is kept by the database from the one side (``VBD.VM``): never set it.
Records returned by reads are the live ones: do not change them.
"""

import json
import sqlite3
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

Record = Mapping[str, Any]
#: kept in memory only: they mean nothing after a restart of the coordinator
VOLATILE = frozenset({"session", "task", "event", "console", "VM_metrics", "VM_guest_metrics"})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (class TEXT NOT NULL, ref TEXT NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (class, ref));
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def new_ref() -> str:
    return f"OpaqueRef:{uuid_module.uuid4()}"


class Database:
    """``path`` none: in memory only (tests)."""

    def __init__(self, path: Path | None) -> None:
        self.generation = 0  # rises with every commit
        self.tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in datamodel.classes()}
        self.modified: dict[str, dict[str, tuple[int, int]]] = {
            name: {} for name in self.tables
        }  # ref -> (created, modified)
        self.deleted: list[tuple[int, str, str]] = []  # (generation, class, ref), oldest first
        self._uuids: dict[str, dict[str, str]] = {name: {} for name in self.tables}
        self._listeners: list[Callable[[], None]] = []
        self._derivers: list[Callable[[Transaction, set[tuple[str, str]]], None]] = []
        self._open: Transaction | None = None
        self.sqlite = sqlite3.connect(path or ":memory:", isolation_level=None)
        self.sqlite.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        self._load()

    def _load(self) -> None:
        for class_name, ref, fields in self.sqlite.execute("SELECT class, ref, fields FROM record"):
            known = datamodel.classes()[class_name].fields
            record = {name: deepcopy(f.default) for name, f in known.items()}
            record.update({k: v for k, v in json.loads(fields).items() if k in known})
            self._place(class_name, ref, record)

    def _place(self, class_name: str, ref: str, record: dict[str, Any]) -> None:
        self.tables[class_name][ref] = record
        self.modified[class_name].setdefault(ref, (self.generation, self.generation))
        if record.get("uuid"):
            self._uuids[class_name][record["uuid"]] = ref

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

    # -- changing

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        if self._open is not None:
            raise RuntimeError("a transaction is open already: pass it on instead of opening another")
        self._open = tx = Transaction(self)
        try:
            yield tx
            tx._commit()
        finally:
            self._open = None

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after each commit that changed something."""
        self._listeners.append(listener)

    def derive(self, deriver: "Callable[[Transaction, set[tuple[str, str]]], None]") -> None:
        """Calls ``deriver`` at the end of each transaction, inside it, with the (class, ref) of what has changed: for
        fields that follow from others (``allowed_operations``)."""
        self._derivers.append(deriver)

    def close(self) -> None:
        self.sqlite.close()


class Transaction:
    """Changes that become true together. Reads through it see its own changes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._changed: dict[tuple[str, str], dict[str, Any] | None] = {}
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

    def create(self, class_name: str, fields: Mapping[str, Any], ref: str | None = None) -> str:
        """A new record with defaults for what is not given; a uuid is made unless given."""
        known = datamodel.classes()[class_name].fields
        record = {name: deepcopy(f.default) for name, f in known.items()}
        if "uuid" in known:
            record["uuid"] = str(uuid_module.uuid4())
        ref = ref or new_ref()
        self._changed[class_name, ref] = record
        self.set(class_name, ref, **fields)
        return ref

    def set(self, class_name: str, ref: str, **fields: Any) -> None:
        known = datamodel.classes()[class_name].fields
        record = self._own(class_name, ref)
        for name, value in fields.items():
            if name not in known:
                raise KeyError(f"{class_name} has no field {name}")
            old, record[name] = record[name], deepcopy(value)
            self._relate(class_name, ref, name, old, value)

    def destroy(self, class_name: str, ref: str) -> None:
        """Takes the record away; who pointed at it through a relation points at nothing. Gone already: nothing to do."""
        if not self.exists(class_name, ref):
            return
        record = self._own(class_name, ref)
        for relation in datamodel.relations():
            if relation.one[0] == class_name:
                name = relation.one[1]
                self._relate(class_name, ref, name, record[name], NULL_REF)
            if relation.many[0] == class_name:
                self._forget(relation, ref, list(record[relation.many[1]]))
        self._changed[class_name, ref] = None

    def execute(self, sql: str, *params: Any) -> None:
        """A statement on another table of the same file, made true in the same instant (the journal uses it)."""
        self._statements.append((sql, params))

    def _own(self, class_name: str, ref: str) -> dict[str, Any]:
        record = self._changed.get((class_name, ref))
        if record is None:
            record = deepcopy(dict(self.get(class_name, ref)))
            self._changed[class_name, ref] = record
        return record

    def _relate(self, class_name: str, ref: str, name: str, old: Any, new: Any) -> None:
        for relation in datamodel.relations():
            if relation.one != (class_name, name) or relation.one == relation.many:
                continue
            many_class, many_field = relation.many
            before = set(old if isinstance(old, list) else [old])
            after = set(new if isinstance(new, list) else [new])
            for target in before | after:
                if target and target != NULL_REF and self.exists(many_class, target):
                    members = self._own(many_class, target)[many_field]
                    if target in after and ref not in members:
                        members.append(ref)
                    elif target not in after and ref in members:
                        members.remove(ref)

    def _forget(self, relation: datamodel.Relation, ref: str, members: list[str]) -> None:
        one_class, one_field = relation.one
        for member in members:
            if self.exists(one_class, member):
                record = self._own(one_class, member)
                if isinstance(record[one_field], list):
                    record[one_field] = [r for r in record[one_field] if r != ref]
                else:
                    record[one_field] = NULL_REF

    def _commit(self) -> None:
        db = self._db
        for deriver in db._derivers:
            deriver(self, set(self._changed))
        changed = {k: v for k, v in self._changed.items() if v is not None or k[1] in db.tables[k[0]]}
        changed = {k: v for k, v in changed.items() if v is None or v != db.tables[k[0]].get(k[1])}
        if not changed and not self._statements:
            return
        self._make_durable(changed)
        if not changed:
            return
        db.generation += 1
        for (class_name, ref), record in changed.items():
            old = db.tables[class_name].pop(ref, None) if record is None else db.tables[class_name].get(ref)
            if old and old.get("uuid") and (record is None or record["uuid"] != old["uuid"]):
                db._uuids[class_name].pop(old["uuid"], None)
            if record is None:
                db.modified[class_name].pop(ref, None)
                db.deleted.append((db.generation, class_name, ref))
                continue
            created = db.modified[class_name].get(ref, (db.generation, 0))[0]
            db._place(class_name, ref, record)
            db.modified[class_name][ref] = (created, db.generation)
        for listener in db._listeners:
            listener()

    def _make_durable(self, changed: dict[tuple[str, str], dict[str, Any] | None]) -> None:
        rows = [(k, v) for k, v in changed.items() if k[0] not in VOLATILE]
        if not rows and not self._statements:
            return
        sqlite = self._db.sqlite
        sqlite.execute("BEGIN IMMEDIATE")
        try:
            for (class_name, ref), record in rows:
                if record is None:
                    sqlite.execute("DELETE FROM record WHERE class = ? AND ref = ?", (class_name, ref))
                else:
                    fields = json.dumps(record, ensure_ascii=False)
                    sqlite.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", (class_name, ref, fields))
            for sql, params in self._statements:
                sqlite.execute(sql, params)
            sqlite.execute("COMMIT")
        except BaseException:
            if sqlite.in_transaction:
                sqlite.execute("ROLLBACK")
            raise
