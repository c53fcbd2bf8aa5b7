"""Which openings are in force, and which start of a VM its domain is: two tables beside the records, because the XenAPI
has no fields for them.

An opening's secret is made when it is first needed and lives in this process only: neither journal nor database has
it. Whoever needs it again after a crash opens again under another name (docs/decisions/pool-secrets-of-openings.md).
"""

import secrets
import string
from dataclasses import dataclass
from typing import Any

from gespann.pool.model.database import Database, Transaction
from gespann.seams.sr_driver import Opening

_SCHEMA = """
CREATE TABLE IF NOT EXISTS opening (
    opening_id TEXT PRIMARY KEY, sr TEXT NOT NULL, vdi_uuid TEXT NOT NULL, vm TEXT NOT NULL, vbd TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS opening_of_vm ON opening (vm);
CREATE TABLE IF NOT EXISTS vm_start (vm TEXT PRIMARY KEY, start_id TEXT NOT NULL, host TEXT NOT NULL);
"""
_SECRET_LETTERS = string.ascii_letters + string.digits
SECRET_LENGTH = 16  # what a PS group makes by itself; initiators of Windows take 12 to 16


@dataclass(frozen=True)
class OpenVolume:
    """``vm`` and ``vbd`` are references, "" for an opening by the pool itself."""

    opening_id: str
    sr: str
    vdi_uuid: str
    vm: str
    vbd: str


@dataclass(frozen=True)
class Start:
    vm: str
    start_id: str
    host: str


def prepare_tables(db: Database) -> None:
    db.sqlite.executescript(_SCHEMA)


def record_opening(tx: Transaction, opening: OpenVolume) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO opening VALUES (?, ?, ?, ?, ?)",
        opening.opening_id,
        opening.sr,
        opening.vdi_uuid,
        opening.vm,
        opening.vbd,
    )


def forget_opening(tx: Transaction, opening_id: str) -> None:
    tx.execute("DELETE FROM opening WHERE opening_id = ?", opening_id)


def all_openings(db: Database) -> list[OpenVolume]:
    return [OpenVolume(*row) for row in db.sqlite.execute("SELECT * FROM opening ORDER BY opening_id")]


def openings_of_vm(db: Database, vm: str) -> list[OpenVolume]:
    rows = db.sqlite.execute("SELECT * FROM opening WHERE vm = ? ORDER BY opening_id", (vm,))
    return [OpenVolume(*row) for row in rows]


def all_starts(db: Database) -> dict[str, Start]:
    """VM -> its start, for all that are meant to run."""
    return {row[0]: Start(*row) for row in db.sqlite.execute("SELECT * FROM vm_start")}


def record_start(tx: Transaction, start: Start) -> None:
    tx.execute("INSERT OR REPLACE INTO vm_start VALUES (?, ?, ?)", start.vm, start.start_id, start.host)


def forget_start(tx: Transaction, vm: str) -> None:
    tx.execute("DELETE FROM vm_start WHERE vm = ?", vm)


def start_of(db: Database, vm: str) -> Start | None:
    row = db.sqlite.execute("SELECT * FROM vm_start WHERE vm = ?", (vm,)).fetchone()
    return Start(*row) if row else None


def opening_with_secret(memory: dict[str, Any], args: dict[str, Any]) -> Opening:
    """``args``: opening_id, mode, initiator, maybe beside. The same id has the same secret in one operation."""
    known: dict[str, str] = memory.setdefault("secrets", {})
    opening_id = args["opening_id"]
    if opening_id not in known:
        known[opening_id] = "".join(secrets.choice(_SECRET_LETTERS) for _ in range(SECRET_LENGTH))
    return Opening(
        opening_id=opening_id,
        mode=args["mode"],
        initiator=args["initiator"],
        chap_user=opening_id,
        chap_secret=known[opening_id],
        beside=args.get("beside", ""),
    )
