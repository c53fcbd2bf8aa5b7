"""The pool's database: whole transactions, relations, what survives a restart."""

import sqlite3
from pathlib import Path

import pytest

from gespann.pool.model.database import SCHEMA_VERSION, Database, DatabaseTooNew
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pool.db"


@pytest.fixture
def db() -> Database:
    return Database(None)


def test_new_record_has_every_field_and_a_uuid(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "web1"})
    record = db.get("VM", vm)
    assert record["name_label"] == "web1"
    assert record["power_state"] == "Halted"
    assert db.by_uuid("VM", record["uuid"]) == vm
    assert db.by_name_label("VM", "web1") == [vm]


def test_exception_changes_nothing(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "before"})
    generation, told = db.generation, []
    db.on_commit(lambda: told.append(1))

    def fail_halfway() -> None:
        with db.transaction() as tx:
            tx.set("VM", vm, name_label="after")
            tx.create("VBD", {"VM": vm})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert db.get("VM", vm)["name_label"] == "before"
    assert db.get("VM", vm)["VBDs"] == []
    assert db.all("VBD") == {}
    assert (db.generation, told) == (generation, [])


def test_failed_write_to_disk_changes_nothing(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "before"})

    def write_what_the_disk_refuses() -> None:
        with db.transaction() as tx:
            tx.set("VM", vm, name_label="after")
            tx.execute("INSERT INTO no_such_table VALUES (1)")

    with pytest.raises(sqlite3.OperationalError):
        write_what_the_disk_refuses()
    assert db.get("VM", vm)["name_label"] == "before"
    with db.transaction() as tx:
        tx.set("VM", vm, name_label="later")
    assert db.get("VM", vm)["name_label"] == "later"


def test_nothing_changed_is_no_commit(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "same"})
    generation = db.generation
    with db.transaction() as tx:
        tx.set("VM", vm, name_label="same")
    assert db.generation == generation


def test_transactions_do_not_nest(db):
    with pytest.raises(RuntimeError), db.transaction(), db.transaction():
        pass


def test_values_are_not_shared_with_who_gave_them(db):
    config = {"a": "1"}
    with db.transaction() as tx:
        vm = tx.create("VM", {"other_config": config})
    config["a"] = "2"
    assert db.get("VM", vm)["other_config"] == {"a": "1"}


def test_defaults_are_not_shared_between_records(db):
    with db.transaction() as tx:
        one, other = tx.create("VM", {}), tx.create("VM", {})
        tx.create("VBD", {"VM": one})
    assert db.get("VM", other)["VBDs"] == []


def test_transaction_reads_its_own_changes(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {"name_label": "a"})
        assert tx.get("VM", vm)["name_label"] == "a"
        tx.destroy("VM", vm)
        assert not tx.exists("VM", vm)
        with pytest.raises(XenApiError, match="HANDLE_INVALID"):
            tx.get("VM", vm)
    assert db.find("VM", vm) is None


def test_destroy_lets_go_of_both_sides(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {})
        vdi = tx.create("VDI", {})
        vbd = tx.create("VBD", {"VM": vm, "VDI": vdi})
    with db.transaction() as tx:
        tx.destroy("VM", vm)
        tx.destroy("VM", vm)  # a repeat is harmless
    assert db.get("VBD", vbd)["VM"] == NULL_REF
    with db.transaction() as tx:
        tx.destroy("VBD", vbd)
    assert db.get("VDI", vdi)["VBDs"] == []


def test_task_and_session_can_be_destroyed(db):
    """Their published relation has a side that is no field."""
    with db.transaction() as tx:
        session, task = tx.create("session", {}), tx.create("task", {})
    with db.transaction() as tx:
        tx.destroy("task", task)
        tx.destroy("session", session)
    assert not db.all("task")


def test_taken_uuid_is_refused(db):
    with db.transaction() as tx:
        vm = tx.create("VM", {})
    uuid = db.get("VM", vm)["uuid"]
    with pytest.raises(XenApiError, match="DB_UNIQUENESS_CONSTRAINT_VIOLATION"), db.transaction() as tx:
        tx.create("VM", {"uuid": uuid})
    with db.transaction() as tx:
        tx.create("VM", {"uuid": "twice"})
        with pytest.raises(XenApiError, match="DB_UNIQUENESS_CONSTRAINT_VIOLATION"):
            tx.create("VM", {"uuid": "twice"})
    with db.transaction() as tx:  # given up in the same transaction: free
        tx.destroy("VM", vm)
        again = tx.create("VM", {"uuid": uuid})
    assert db.by_uuid("VM", uuid) == again


def test_renamed_is_found_by_its_new_name_only(db):
    with db.transaction() as tx:
        one, other = tx.create("VM", {"name_label": "a"}), tx.create("VM", {"name_label": "a"})
    assert db.by_name_label("VM", "a") == [one, other]
    with db.transaction() as tx:
        tx.set("VM", one, name_label="b")
    assert (db.by_name_label("VM", "a"), db.by_name_label("VM", "b")) == ([other], [one])
    with db.transaction() as tx:
        tx.destroy("VM", other)
    assert db.by_name_label("VM", "a") == []


def test_restart_finds_everything_that_was_committed(path):
    first = Database(path)
    with first.transaction() as tx:
        vm = tx.create("VM", {"name_label": "wéb\n1", "other_config": {"a": "b"}, "memory_static_max": 2**62})
        vbd = tx.create("VBD", {"VM": vm})
    expected = dict(first.get("VM", vm))
    first.close()
    second = Database(path)
    assert second.get("VM", vm) == expected
    assert second.get("VM", vm)["VBDs"] == [vbd]
    assert second.by_uuid("VM", expected["uuid"]) == vm


def test_restart_forgets_volatile_records_and_who_pointed_at_them(path):
    first = Database(path)
    with first.transaction() as tx:
        metrics = tx.create("VM_metrics", {})
        vm = tx.create("VM", {"metrics": metrics})
        tx.create("console", {"VM": vm})
    assert len(first.get("VM", vm)["consoles"]) == 1
    first.close()
    second = Database(path)
    assert second.all("VM_metrics") == {}
    assert second.get("VM", vm)["metrics"] == NULL_REF
    assert second.get("VM", vm)["consoles"] == []


def test_restart_computes_many_sides_anew(path):
    first = Database(path)
    with first.transaction() as tx:
        vm = tx.create("VM", {})
        tx.create("VBD", {"VM": vm})
    first.sqlite.execute("DELETE FROM record WHERE class = 'VBD'")
    first.close()
    assert Database(path).get("VM", vm)["VBDs"] == []


def test_fields_of_a_later_version_are_passed_over_and_new_ones_get_defaults(path):
    first = Database(path)
    first.sqlite.execute("INSERT INTO record VALUES ('VM', 'OpaqueRef:x', '{\"name_label\":\"old\",\"no_such\":1}')")
    first.sqlite.execute("INSERT INTO record VALUES ('NoSuchClass', 'OpaqueRef:y', '{}')")
    first.close()
    record = Database(path).get("VM", "OpaqueRef:x")
    assert (record["name_label"], record["power_state"]) == ("old", "Halted")
    assert "no_such" not in record


def test_generations_never_come_again(path):
    first = Database(path)
    with first.transaction() as tx:
        tx.create("VM", {})
    last = first.generation
    first.close()
    assert Database(path).generation > last


def test_database_of_a_later_version_is_left_alone(path):
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(DatabaseTooNew):
        Database(path)
    assert path.read_bytes() == before


def test_file_is_for_its_owner_alone(path):
    db = Database(path)
    with db.transaction() as tx:
        tx.create("secret", {"value": "hush"})
    for file in path.parent.glob("pool.db*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_deriver_runs_inside_the_transaction(db):
    def derive(tx, changed):
        for class_name, ref in changed:
            if class_name == "VM" and tx.exists("VM", ref):
                tx.set("VM", ref, name_description=tx.get("VM", ref)["power_state"])

    db.derive(derive)
    with db.transaction() as tx:
        vm = tx.create("VM", {})
    assert db.get("VM", vm)["name_description"] == "Halted"
