"""A copy of the pool: its database, and with it what else its coordinator needs (``CARRIED``). Made by the coordinator,
kept by members, unpacked by the one of them that leads next.
"""

import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gespann.pool.model import kept_changes
from gespann.pool.pool import HostDoor
from gespann.pool.succession import terms
from gespann.seams.host_succession import CopyAbout
from gespann.system.files import SECRET_MODE, read_secret, sync_directory, write_secret
from gespann.system.packing import pack, unpack

#: files of the coordinator's data directory: accounts, the key that agents know it by, and the password that was made
CARRIED = ("accounts.json", "agents.pem", "root.password")
DATABASE, ARRIVED = "pool.db", "pool.db.arrived"
_CARRIED = "CREATE TABLE carried (name TEXT PRIMARY KEY, content BLOB NOT NULL)"


@dataclass(frozen=True)
class Making:
    """What a copy is made of. ``own``: the host of the coordinator, and where others reach its agent. ``without``: an
    operation that the next coordinator must not find in the journal."""

    data: Path
    own: tuple[str, HostDoor]
    pool_uuid: str
    epoch: int
    taken_at: str
    without: str = ""


def make_copy(making: Making, target: Path) -> CopyAbout:
    """For a thread: the database may change meanwhile, the copy is of one moment. OSError, sqlite3.Error."""
    with tempfile.NamedTemporaryFile(dir=making.data, prefix=".copy-") as plain:
        source = sqlite3.connect(f"file:{making.data / DATABASE}?mode=ro", uri=True)
        copied = sqlite3.connect(plain.name, isolation_level=None)
        try:
            source.backup(copied)
            copied.execute("PRAGMA journal_mode=DELETE")
            copied.execute("PRAGMA synchronous=OFF")
            _add_what_is_not_there(copied, making)
        finally:
            copied.close()
            source.close()
        copy_id, size_bytes = pack(Path(plain.name), target)
    return CopyAbout(
        copy_id=copy_id,
        size_bytes=size_bytes,
        pool_uuid=making.pool_uuid,
        epoch=making.epoch,
        taken_at=making.taken_at,
    )


def _add_what_is_not_there(copied: sqlite3.Connection, making: Making) -> None:
    copied.execute("DELETE FROM journal WHERE id = ?", (making.without,))
    host, door = making.own
    row = (host, door.address, door.port, door.certificate)
    copied.execute("INSERT OR REPLACE INTO host_door VALUES (?, ?, ?, ?)", row)
    copied.execute("DROP TABLE IF EXISTS carried")
    copied.execute(_CARRIED)
    for name in CARRIED:
        if (making.data / name).exists():
            copied.execute("INSERT INTO carried VALUES (?, ?)", (name, read_secret(making.data / name)))


@dataclass(frozen=True)
class Taking:
    """By which copy a host leads: what its agent says of it."""

    copy: Path
    epoch: int
    how: str
    taken_at: str
    host_uuid: str


def epoch_in(data: Path) -> int:
    """Of the database that is there; -1 without one. sqlite3.Error."""
    if not (data / DATABASE).exists():
        return -1
    connection = sqlite3.connect(f"file:{data / DATABASE}?mode=ro", uri=True)
    try:
        row = connection.execute("SELECT epoch FROM pool_term").fetchone()
    except sqlite3.OperationalError:  # of a version that knew no epochs
        row = None
    finally:
        connection.close()
    return int(row[0]) if row else terms.FIRST_EPOCH


def install(data: Path, taking: Taking) -> bool:
    """Makes the copy this host's database, with what it carries. False: it is already, or a later one is there. May be
    repeated after a crash at any moment: the database gets its name last."""
    if epoch_in(data) >= taking.epoch:
        return False
    arrived = data / ARRIVED
    for path in data.glob(f"{ARRIVED}*"):
        path.unlink()
    arrived.touch(mode=SECRET_MODE)
    with arrived.open("wb") as file:
        unpack(taking.copy, file)
    connection = sqlite3.connect(arrived, isolation_level=None)
    try:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;" + terms.SCHEMA)
        carried = dict(connection.execute("SELECT name, content FROM carried").fetchall())
        connection.execute("BEGIN IMMEDIATE")
        _make_leading(connection, taking)
        connection.execute("DROP TABLE carried")
        connection.execute("COMMIT")
    finally:
        connection.close()
    _write_carried(data, carried)
    for old in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (data / old).unlink(missing_ok=True)
    arrived.replace(data / DATABASE)
    sync_directory(data)
    return True


def _write_carried(data: Path, carried: Mapping[str, bytes]) -> None:
    for name in CARRIED:
        if name in carried:
            write_secret(data / name, carried[name])
        else:
            (data / name).unlink(missing_ok=True)


def _make_leading(connection: sqlite3.Connection, taking: Taking) -> None:
    (host,) = [ref for ref, record in _records(connection, "host") if record["uuid"] == taking.host_uuid]
    for ref, record in _records(connection, "pool"):
        fields = msgspec.json.encode({**record, "master": host}).decode()
        connection.execute("UPDATE record SET fields = ? WHERE class = 'pool' AND ref = ?", (fields, ref))
    connection.execute("DELETE FROM host_door WHERE host = ?", (host,))
    connection.execute(
        "INSERT OR REPLACE INTO pool_term VALUES (1, ?, ?, ?)", (taking.epoch, taking.how, taking.taken_at)
    )
    if taking.how == "emergency":
        kept_changes.forget_all(connection)  # snapshots may have been written since the copy
        for ref, _ in _records(connection, "host"):
            connection.execute("INSERT OR REPLACE INTO host_to_adopt VALUES (?)", (ref,))


def _records(connection: sqlite3.Connection, class_name: str) -> list[tuple[str, dict[str, Any]]]:
    rows = connection.execute("SELECT ref, fields FROM record WHERE class = ?", (class_name,)).fetchall()
    return [(ref, msgspec.json.decode(fields)) for ref, fields in rows]
