"""By which epoch this database leads, and where it came from: one row beside the records.

``how``: "first" (made here), "handover" (given by the coordinator before), "emergency" (a copy that the coordinator
before had left here; it may be older than what was acknowledged last).
"""

from dataclasses import dataclass

from gespann.pool.model.database import Database, Transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS pool_term (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, how TEXT NOT NULL, taken_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS host_to_adopt (host TEXT PRIMARY KEY);
"""
FIRST_EPOCH = 1


@dataclass(frozen=True)
class Term:
    epoch: int = FIRST_EPOCH
    how: str = "first"
    taken_at: str = ""


def prepare_tables(db: Database) -> None:
    db.sqlite.executescript(SCHEMA)


def term_of(db: Database) -> Term:
    row = db.sqlite.execute("SELECT epoch, how, taken_at FROM pool_term").fetchone()
    return Term(*row) if row else Term()


def hosts_to_adopt(db: Database) -> set[str]:
    """Hosts on which more may run than this database knows: it was a copy, and they have not been looked at since."""
    return {row[0] for row in db.sqlite.execute("SELECT host FROM host_to_adopt")}


def adopted(tx: Transaction, host: str) -> None:
    tx.execute("DELETE FROM host_to_adopt WHERE host = ?", host)
