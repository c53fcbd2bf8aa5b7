"""A database of an earlier release is taken over; one of a later release is refused."""

import sqlite3

import pytest

from gespann.array.model import database as module
from gespann.array.model.database import SCHEMA_VERSION, Database
from gespann.array.model.records import Snapshot
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.storage_pools import StoragePools
from gespann.array.model.volumes import Volumes

VOLUME = """INSERT INTO volume VALUES (7, 'v', 'naa', 'iqn', 1, 1, 1, 0, 10, 60, 100, 'offline', 100, 10,
    'delete-oldest', '', '', 1, 0, 0, 512, 1, '')"""


def test_volumes_of_the_first_release_are_still_there(tmp_path):
    path = tmp_path / "group.sqlite"
    old = sqlite3.connect(path)
    old.executescript(f"BEGIN; {module._SCHEMA} {VOLUME}; PRAGMA user_version = 1; COMMIT;")
    old.close()
    database = Database(path)
    volume = Volumes(database).get("v")
    assert (volume.id, volume.template, volume.bases) == (7, False, "[]")
    assert StoragePools(database).get("default").warn_percent == 90
    snapshots = Snapshots(database)
    draft = Snapshot(volume_id=7, name="s", naa="n", target_name="t", asked_bytes=1, size_bytes=1)
    snapshots.settle(snapshots.add([draft]))
    assert [one.name for one in snapshots.of(7)] == ["s"]
    database.close()


def test_a_later_release_is_refused(tmp_path):
    Database(tmp_path / "group.sqlite").close()
    with sqlite3.connect(tmp_path / "group.sqlite") as later:
        later.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(RuntimeError, match="newer release"):
        Database(tmp_path / "group.sqlite")
