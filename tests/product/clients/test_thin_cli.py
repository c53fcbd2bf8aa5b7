"""The stock ``xe`` at the pool's TLS door, port 443: who it lets in, what it prints, how it ends."""

import re
import socket
import ssl
from pathlib import Path

import pytest

from tests.product.clients.served_pool import ServedPool
from tests.product.clients.thin_client import ThinClient

LIMIT_S = 180.0
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def tls(pool: ServedPool) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=pool.certificate)
    plain = socket.create_connection((pool.address, 443), timeout=LIMIT_S)
    return context.wrap_socket(plain, server_hostname=pool.address)


def xe(pool: ServedPool, *words: str, typed: tuple[str, ...] = (), password: str = "") -> ThinClient:
    with tls(pool) as fetch:
        client = ThinClient(tls(pool), fetch, list(typed))
        return client.run(*words, "username=root", f"password={password or pool.password}")


def done(client: ThinClient) -> str:
    assert (client.status, client.stderr) == (0, ""), client
    return client.stdout


def test_lists_and_names(pool: ServedPool) -> None:
    pool.make_vm("by the thin client")
    uuid = done(xe(pool, "vm-list", "name-label=by the thin client", "--minimal")).strip()
    assert re.fullmatch(UUID, uuid)
    assert done(xe(pool, "vm-list", f"uuid={uuid}", "params=name-label,power-state")) == (
        "name-label ( RW)     : by the thin client\n    power-state ( RO): halted\n\n\n"
    )


def test_work_and_refusals(pool: ServedPool) -> None:
    vm = pool.get("VM", pool.make_vm("driven by the thin client"))["uuid"]
    assert done(xe(pool, "vm-start", f"uuid={vm}")) == ""
    again = xe(pool, "vm-start", f"uuid={vm}")
    assert (again.status, again.stdout) == (1, "")
    assert again.stderr.endswith(f"vm: {vm} (driven by the thin client)\nexpected: halted\nactual: running\n")
    unknown = xe(pool, "vm-dance")
    assert (unknown.status, unknown.stderr) == (1, "Unknown command: vm-dance\nFor usage run: 'xe help'\n")


def test_a_question_is_asked_and_answered(pool: ServedPool) -> None:
    vm = pool.get("VM", pool.make_vm("gone by the thin client"))["uuid"]
    kept = xe(pool, "vm-uninstall", f"uuid={vm}", typed=("no",))
    assert kept.status == 0
    assert kept.stdout.endswith("Type 'yes' to continue\nAborted (you typed: 'no')\n")
    gone = xe(pool, "vm-uninstall", f"uuid={vm}", typed=("yes",))
    assert (gone.status, gone.stdout.splitlines()[-1]) == (0, "All objects destroyed")
    assert pool.call("VM.get_by_name_label", "gone by the thin client") == []


def test_passwords(pool: ServedPool) -> None:
    wrong = xe(pool, "vm-list", password="wrong")
    assert (wrong.status, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("Authentication failed\n")
    none = ThinClient(tls(pool)).run("vm-list")
    assert (none.status, none.stderr.splitlines()[0]) == (1, "Username/password must be specified")


def test_session_instead_of_a_password(pool: ServedPool) -> None:
    """As one host of a pool hands a command on to another."""
    listed = ThinClient(tls(pool)).run(f"session_id={pool.session}", "pool-list", "params=name-label", "--minimal")
    assert done(listed) == "clients\n"
    old = ThinClient(tls(pool)).run("session_id=OpaqueRef:old", "pool-list")
    assert (old.status, old.stdout) == (1, "")


def test_audit_log_to_a_file(pool: ServedPool, tmp_path: Path) -> None:
    pool.call("pool.set_name_description", next(iter(pool.call("pool.get_all"))), "written down")
    assert done(xe(pool, "audit-log-get", f"filename={tmp_path / 'audit'}")) == ""
    text = (tmp_path / "audit").read_text()
    assert "pool.set_name_description" in text
    assert pool.password not in text
    assert done(xe(pool, "audit-log-get", f"filename={tmp_path / 'later'}", "since=20990101T00:00:00")) == ""
    assert (tmp_path / "later").read_text() == ""
    bad = xe(pool, "audit-log-get", f"filename={tmp_path / 'no'}", "since=yesterday")
    assert bad.status == 1
    assert not (tmp_path / "no").exists()


@pytest.fixture
def trusting(pool: ServedPool):
    """The pool trusts the accounts of this machine, of which every Debian has ``daemon``."""
    assert done(xe(pool, "pool-enable-external-auth", "auth-type=PAM", "service-name=")) == ""
    yield
    assert done(xe(pool, "pool-disable-external-auth")) == ""


def test_subjects_come_get_roles_and_go(pool: ServedPool, trusting: None) -> None:
    uuid = done(xe(pool, "subject-add", "subject-name=daemon")).strip()
    assert re.fullmatch(UUID, uuid)
    assert done(xe(pool, "subject-role-add", f"uuid={uuid}", "role-name=vm-operator")) == ""
    listed = done(xe(pool, "subject-list", f"uuid={uuid}", "params=subject-identifier,roles", "--minimal"))
    assert listed == "u1\n"
    roles = done(xe(pool, "role-list", "params=name", "--minimal")).strip().split(",")
    assert {"pool-admin", "vm-operator", "read-only"} <= set(roles)
    assert all("." not in role and "/" not in role for role in roles), "permissions are shown only to who asks for them"
    assert done(xe(pool, "role-list", "name=vm.start", "params=name", "--minimal")) == "vm.start\n"
    assert len(done(xe(pool, "role-list", "--all", "--minimal")).split(",")) > 1000
    assert done(xe(pool, "subject-list", f"uuid={uuid}", "params=roles", "--minimal")) == "vm-operator\n"
    assert done(xe(pool, "session-subject-identifier-list")) in ("", "\n")
    twice = xe(pool, "subject-add", "subject-name=daemon")
    assert (twice.status, twice.stdout) == (1, "")
    unknown = xe(pool, "subject-add", "subject-name=nobody-of-this-name")
    assert unknown.status == 1
    assert done(xe(pool, "subject-remove", f"subject-uuid={uuid}")) == ""
    assert pool.call("subject.get_all") == []


def test_secrets_tasks_and_messages(pool: ServedPool) -> None:
    secret = done(xe(pool, "secret-create", "value=hush")).strip()
    assert secret in done(xe(pool, "secret-list", "--minimal")).strip().split(",")
    assert done(xe(pool, "secret-destroy", f"uuid={secret}")) == ""
    vm = pool.make_vm("spoken of")
    uuid = pool.get("VM", vm)["uuid"]
    done(xe(pool, "message-create", "name=NOTE", "priority=3", "body=hello", f"vm-uuid={uuid}"))
    assert done(xe(pool, "message-list", f"obj-uuid={uuid}", "params=name", "--minimal")) == "NOTE\n"
    done(xe(pool, "message-destroy-all", "priority=3"))
    assert done(xe(pool, "message-list", f"obj-uuid={uuid}", "--minimal")) == "\n"
    task = pool.call("task.create", "of a client", "")
    assert done(xe(pool, "task-list", "name-label=of a client", "params=status", "--minimal")) == "pending\n"
    pool.call("task.destroy", task)
    assert done(xe(pool, "event-wait", "class=vm", f"uuid={uuid}", "power-state=halted")) == ""
