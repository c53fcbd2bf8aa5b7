"""What is remembered of snapshots whose data is gone: where they differ from others. Two tables beside the records.

``kept_changes`` is a graph: an edge holds the bits (``ChangedBits``, compressed) of where two VDIs differ, as far as
``newer`` reaches. What differs along a path, all edges taken together, is no less than what differs between its ends.
``dataless`` names the VDIs that have no volume any more. VDIs go by their uuids.
"""

import itertools
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gespann.pool.model.database import Database, Transaction

_EDGES = """
CREATE TABLE IF NOT EXISTS kept_changes (
    older TEXT NOT NULL, newer TEXT NOT NULL, bits BLOB NOT NULL, PRIMARY KEY (older, newer));
"""
_SCHEMA = f"""{_EDGES}
CREATE INDEX IF NOT EXISTS kept_changes_newer ON kept_changes (newer);
CREATE TABLE IF NOT EXISTS dataless (vdi_uuid TEXT PRIMARY KEY);
"""


@dataclass(frozen=True)
class Hop:
    """``kept``: there is an edge; else both have volumes, and the storage is asked."""

    older: str
    newer: str
    kept: bool


def prepare_tables(db: Database) -> None:
    db.sqlite.executescript(_SCHEMA)


def dataless(db: Database) -> set[str]:
    return {row[0] for row in db.sqlite.execute("SELECT vdi_uuid FROM dataless")}


def is_dataless(db: Database, uuid: str) -> bool:
    return db.sqlite.execute("SELECT 1 FROM dataless WHERE vdi_uuid = ?", (uuid,)).fetchone() is not None


def neighbours(db: Database, uuid: str) -> list[str]:
    rows = db.sqlite.execute(
        "SELECT newer FROM kept_changes WHERE older = ? UNION SELECT older FROM kept_changes WHERE newer = ?",
        (uuid, uuid),
    )
    return [row[0] for row in rows]


def kept_bits(db: Database, one: str, other: str, length: int) -> bytes:
    """Of the edge between the two, ``length`` bytes of bits: set where the edge does not reach."""
    row = db.sqlite.execute(
        "SELECT bits FROM kept_changes WHERE (older, newer) IN (VALUES (?, ?), (?, ?))", (one, other, other, one)
    ).fetchone()
    return stretched(b"" if row is None else zlib.decompress(row[0]), length)


def stretched(bits: bytes, length: int) -> bytes:
    """Behind its end everything may differ."""
    return bits[:length].ljust(length, b"\xff")


def united(one: bytes, other: bytes) -> bytes:
    length = max(len(one), len(other))
    both = int.from_bytes(stretched(one, length), "big") | int.from_bytes(stretched(other, length), "big")
    return both.to_bytes(length, "big")


def compressed(bits: bytes) -> bytes:
    """As ``keep`` wants them: so that those of a large disk can be compressed beside other work."""
    return zlib.compress(bits)


def keep(tx: Transaction, older: str, newer: str, compressed_bits: bytes) -> None:
    tx.execute("INSERT OR REPLACE INTO kept_changes VALUES (?, ?, ?)", older, newer, compressed_bits)


def drop(tx: Transaction, older: str, newer: str) -> None:
    tx.execute("DELETE FROM kept_changes WHERE older = ? AND newer = ?", older, newer)


def data_is_gone(tx: Transaction, uuid: str) -> None:
    tx.execute("INSERT OR REPLACE INTO dataless VALUES (?)", uuid)


def is_written(tx: Transaction, uuid: str) -> None:
    """What was remembered of this VDI is true no longer."""
    tx.execute("DELETE FROM kept_changes WHERE older = ? OR newer = ?", uuid, uuid)


def forget(db: Database, tx: Transaction, uuid: str, order: Callable[[str], str]) -> None:
    """The VDI goes. Those that were compared by way of it are tied to each other, one to the next in ``order``."""
    tied = sorted(neighbours(db, uuid), key=order)
    for older, newer in itertools.pairwise(tied):
        if newer not in neighbours(db, older):
            keep(tx, older, newer, compressed(united(_whole(db, older, uuid), _whole(db, uuid, newer))))
    is_written(tx, uuid)
    tx.execute("DELETE FROM dataless WHERE vdi_uuid = ?", uuid)


def _whole(db: Database, one: str, other: str) -> bytes:
    row = db.sqlite.execute(
        "SELECT bits FROM kept_changes WHERE (older, newer) IN (VALUES (?, ?), (?, ?))", (one, other, other, one)
    ).fetchone()
    return zlib.decompress(row[0])


def forget_all(connection: sqlite3.Connection) -> None:
    """Of a database that may be older than what the storage holds: what cannot be trusted is not told."""
    connection.execute(_EDGES)
    connection.execute("DELETE FROM kept_changes")


def forget_strangers(db: Database) -> None:
    """Rows of VDIs that went with their repository."""
    known = {record["uuid"] for record in db.all("VDI").values()}
    with db.transaction() as tx:
        named = db.sqlite.execute("SELECT older FROM kept_changes UNION SELECT newer FROM kept_changes").fetchall()
        for uuid in {*(row[0] for row in named), *dataless(db)} - known:
            is_written(tx, uuid)
            tx.execute("DELETE FROM dataless WHERE vdi_uuid = ?", uuid)


def way(db: Database, start: str, end: str, with_volumes: Iterable[str]) -> list[Hop] | None:
    """The shortest; none: there is no way. Any two of ``with_volumes`` are a hop apart."""
    volumes = set(with_volumes)
    came: dict[str, Hop | None] = {start: None}
    edge = [start]
    while edge and end not in came:
        reached: list[str] = []
        for here in edge:
            kept = [Hop(here, there, True) for there in neighbours(db, here)]
            asked = [Hop(here, there, False) for there in volumes] if here in volumes else []
            for step in [*asked, *kept]:
                if step.newer not in came:
                    came[step.newer] = step
                    reached.append(step.newer)
        edge = reached
    if end not in came:
        return None
    hops: list[Hop] = []
    hop = came[end]
    while hop is not None:
        hops.insert(0, hop)
        hop = came[hop.older]
    return hops
