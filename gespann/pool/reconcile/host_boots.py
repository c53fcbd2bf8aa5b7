"""Hosts that have started anew: one that was disabled for it takes VMs again.

Which boot of a host was seen last, and whether it is to stay disabled, is in tables beside the records: the XenAPI has
no fields for them.
"""

import logging

from gespann.pool.model.database import Database, Transaction

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS host_boot (host TEXT PRIMARY KEY, boot_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS host_stays_disabled (host TEXT PRIMARY KEY);
"""


def prepare_tables(db: Database) -> None:
    db.sqlite.executescript(_SCHEMA)


def stay_disabled(tx: Transaction, host: str, *, stays: bool) -> None:
    """Whether the next start of the host leaves it disabled."""
    tx.execute("DELETE FROM host_stays_disabled WHERE host = ?", host)
    if stays:
        tx.execute("INSERT INTO host_stays_disabled VALUES (?)", host)


def note_boot(db: Database, tx: Transaction, host: str, boot_id: str) -> None:
    row = db.sqlite.execute("SELECT boot_id FROM host_boot WHERE host = ?", (host,)).fetchone()
    if not boot_id or (row is not None and row[0] == boot_id):
        return
    tx.execute("INSERT OR REPLACE INTO host_boot VALUES (?, ?)", host, boot_id)
    if row is None:
        return
    log.warning("host %s has started anew", tx.get("host", host)["hostname"])
    stays = db.sqlite.execute("SELECT 1 FROM host_stays_disabled WHERE host = ?", (host,)).fetchone()
    if stays is None:
        tx.set("host", host, enabled=True)
