"""The journal: what is being done, how far it is, and what its steps wrote down. Rows of the pool's own SQLite file,
so that progress and the changes of records become true in the same instant.

    begun ──do──► position 1 ──do──► ... ──do──► row deleted        a step at ``position`` may have begun
      │ failure or crash before the point of no return
      └──────► undoing: position falls ──► row deleted
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gespann.pool.model.database import Database, Transaction
from gespann.pool.plan.shapes import Act, Lock, Plan
from gespann.pool.steps.registry import STEPS

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, operation TEXT NOT NULL, acts TEXT NOT NULL, locks TEXT NOT NULL,
    notes TEXT NOT NULL, position INTEGER NOT NULL, undoing INTEGER NOT NULL, cause TEXT NOT NULL);
"""


@dataclass
class Entry:
    """``position``: the step being done, or (``undoing``) undone; those before it are done."""

    id: str
    number: int
    operation: str
    acts: list[Act]
    locks: list[Lock]
    notes: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    undoing: bool = False
    cause: list[str] = field(default_factory=list)  # the error that began the undoing, as it went to the client

    def may_have_passed_return(self) -> bool:
        """Also true while the step that is the point of no return may have begun."""
        return any(STEPS[act.step].point_of_no_return for act in self.acts[: self.position + 1])

    def waits_for(self, hosts: frozenset[str]) -> bool:
        """Whether it is about machines and asks one of these hosts. Not: what moves between two of them."""
        return (
            self.operation.partition(".")[0] in ("VM", "VBD", "VIF", "VDI")
            and self.operation != "VM.pool_migrate"
            and any(act.args.get("host") in hosts for act in self.acts)
        )

    def holds(self, class_name: str, ref: str) -> bool:
        return any((lock.class_name, lock.ref) == (class_name, ref) for lock in self.locks)

    def has_passed_return(self) -> bool:
        return any(STEPS[act.step].point_of_no_return for act in self.acts[: self.position])

    def is_too_late_to_cancel(self) -> bool:
        done = [STEPS[act.step] for act in self.acts[: self.position]]
        return any(step.point_of_no_return or step.too_late_to_cancel for step in done)


class Journal:
    def __init__(self, db: Database) -> None:
        self._db = db
        db.sqlite.executescript(_SCHEMA)
        (last,) = db.sqlite.execute("SELECT COALESCE(MAX(number), 0) FROM journal").fetchone()
        self._number = int(last)

    def entry(self, operation_id: str, plan: Plan) -> Entry:
        self._number += 1
        return Entry(operation_id, self._number, plan.operation, list(plan.acts), list(plan.locks))

    def write(self, tx: Transaction, entry: Entry, *, position: int, undoing: bool = False) -> None:
        tx.execute(
            "INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            entry.id,
            entry.number,
            entry.operation,
            json.dumps([asdict(act) for act in entry.acts]),
            json.dumps([asdict(lock) for lock in entry.locks]),
            json.dumps(entry.notes),
            position,
            int(undoing),
            json.dumps(entry.cause),
        )

    def end(self, tx: Transaction, entry: Entry) -> None:
        tx.execute("DELETE FROM journal WHERE id = ?", entry.id)

    def entries(self) -> list[Entry]:
        """What was under way when the rows were written, oldest first."""
        rows = self._db.sqlite.execute("SELECT * FROM journal ORDER BY number").fetchall()
        return [
            Entry(
                id=row[0],
                number=row[1],
                operation=row[2],
                acts=[Act(**act) for act in json.loads(row[3])],
                locks=[Lock(**lock) for lock in json.loads(row[4])],
                notes=json.loads(row[5]),
                position=row[6],
                undoing=bool(row[7]),
                cause=json.loads(row[8]),
            )
            for row in rows
        ]
