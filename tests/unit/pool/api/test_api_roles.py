"""Subjects of a directory, the roles that they have, and what the audit log keeps of what they did."""

import hashlib
import shutil
from typing import ClassVar

import pytest

from gespann.pool.api import audit
from gespann.pool.api.audit import AuditLog, quoted
from gespann.pool.api.caller import Caller
from gespann.pool.api.directory import NoSuchSubject, PamDirectory, WrongPassword
from gespann.pool.api.dispatch import least_roles
from gespann.pool.api.http_handlers import ROUTES
from gespann.pool.classes import HANDLER_MODULES
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, ROLES, role_ref
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.clock import ManualClock
from tests.unit.pool.world import until

assert HANDLER_MODULES
PASSWORD = "staple battery"
FAR = Caller("192.0.2.9")


class PaperDirectory:
    """``anna`` is in the group ``staff``, ``ben`` in none."""

    users: ClassVar = {"anna": ("u1000", ["g50"]), "ben": ("u1001", [])}
    names: ClassVar = {"u1000": "anna", "u1001": "ben", "g50": "staff"}

    async def authenticate(self, user: str, password: str) -> str:
        if user not in self.users or password != PASSWORD:
            raise WrongPassword("no")
        return self.users[user][0]

    async def identifier(self, name: str) -> str:
        for identifier, known in self.names.items():
            if known == name:
                return identifier
        raise NoSuchSubject

    async def information(self, identifier: str) -> dict[str, str]:
        if identifier not in self.names:
            raise NoSuchSubject
        return {"subject-name": self.names[identifier]}

    async def groups(self, identifier: str) -> list[str]:
        return next(groups for known, groups in self.users.values() if known == identifier)


async def refusal(work) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await work
    return [caught.value.code, *caught.value.params]


@pytest.fixture
async def directory(world):
    """The pool trusts a directory."""
    world.api.subjects._directory = PaperDirectory()
    await world.call("pool.enable_external_auth", world.pool, {}, "paper", "PAM")
    return world


async def login(world, user: str, password: str = PASSWORD) -> str:
    _, ref = await world.api.invoke("session.login_with_password", [user, password], FAR)
    return ref


async def subject(world, identifier: str, *roles: str) -> str:
    ref = await world.call("subject.create", {"subject_identifier": identifier, "other_config": {}})
    for role in roles:
        await world.call("subject.add_to_roles", ref, role_ref(role))
    return ref


# -- roles and permissions


async def test_each_role_has_what_those_below_have_and_more(world):
    known: set[str] = set()
    for role in ROLES:
        mine = set(await world.call("role.get_permissions_name_label", role_ref(role)))
        assert known < mine or role == "client-cert"
        known = mine
    assert {"vm.start", "pool.set_name_label", "http/get_audit_log"} <= known
    assert known == {name for name, _ in least_roles()}


async def test_permissions_are_roles_that_can_be_read(world):
    for ref in await world.call("role.get_permissions", role_ref("vm-operator")):
        record = await world.call("role.get_record", ref)
        assert record["subroles"] == []
        assert record["name_label"]
        assert await world.call("role.get_permissions", ref) == [ref]


async def test_who_has_a_permission(world):
    (permission,) = await world.call("role.get_by_name_label", "vm.start")
    names = {await world.call("role.get_name_label", r) for r in await world.call("role.get_by_permission", permission)}
    assert names == {"vm-operator", "vm-admin", "vm-power-admin", "pool-operator", "pool-admin"}
    by_name = await world.call("role.get_by_permission_name_label", "vm.start")
    assert set(by_name) == set(await world.call("role.get_by_permission", permission))
    assert await world.call("role.get_by_permission_name_label", "vm.fly") == []
    with pytest.raises(XenApiError, match="HANDLE_INVALID"):
        await world.call("role.get_by_permission", NULL_REF)


async def test_roles_are_told_from_permissions(world):
    roles = await world.call("role.get_all_records_where", "subroles<>[]")
    assert {record["name_label"] for record in roles.values()} == set(ROLES)
    permissions = await world.call("role.get_all_records_where", "subroles=[]")
    assert {*roles, *permissions} == set(await world.call("role.get_all"))
    (one,) = await world.call("role.get_all_records_where", 'field "name_label" = "vm-admin"')
    assert one == role_ref("vm-admin")


async def test_roles_are_told_to_nobody_who_waits_since_they_never_change(world):
    batch = await world.call("event.from", ["*"], "", 0.0)
    assert not [event for event in batch["events"] if event["class"] == "role"]


def test_http_actions_ask_for_the_published_role():
    published = {(a["method"], a["uri"]): a for a in datamodel._load("facts/http_actions.json")}
    own = {"/pool_member"}  # where coordinators of this product meet
    assert {route.prefix for route in ROUTES} > own
    for route in (route for route in ROUTES if route.prefix not in own):
        action = published[route.method, route.prefix]
        assert route.role == min(action["roles"], key=ROLES.index), route


# -- subjects


async def test_without_a_directory_only_root_comes_in(world):
    await subject(world, "u1000", "pool-admin")
    world.api.subjects._directory = PaperDirectory()
    assert (await refusal(login(world, "anna")))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert await refusal(world.call("auth.get_subject_identifier", "anna")) == ["AUTH_IS_DISABLED"]


async def test_subject_with_a_role_may_do_what_the_role_may(directory):
    ref = await subject(directory, "u1000", "vm-operator")
    session = await login(directory, "anna")
    record = await directory.api.call("session.get_record", session, session)
    assert (record["subject"], record["auth_user_sid"], record["is_local_superuser"]) == (ref, "u1000", False)
    await directory.api.call("VM.add_tags", session, directory.vm, "blue")
    denied = await refusal(directory.api.call("pool.set_name_label", session, directory.pool, "x"))
    assert denied[:2] == ["RBAC_PERMISSION_DENIED", "pool.set_name_label"]
    assert await directory.call("session.get_all_subject_identifiers") == ["u1000"]


async def test_group_of_a_user_lets_in_with_the_highest_role_of_both(directory):
    await subject(directory, "u1000", "read-only")
    await subject(directory, "g50", "pool-operator")
    session = await login(directory, "anna")
    await directory.api.call("pool.set_name_description", session, directory.pool, "ours")
    assert (await refusal(login(directory, "ben")))[0] == "SESSION_AUTHORIZATION_FAILED"


async def test_wrong_password_unknown_user_and_no_role(directory):
    await subject(directory, "u1000")
    assert (await refusal(login(directory, "anna", "wrong")))[:2] == ["SESSION_AUTHENTICATION_FAILED", "anna"]
    assert (await refusal(login(directory, "carl")))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert (await refusal(login(directory, "anna")))[:2] == ["RBAC_PERMISSION_DENIED", "session.login_with_password"]
    assert not directory.api.sessions.subject_identifiers()


async def test_directory_never_stands_for_root(directory):
    directory.api.subjects._directory.users = {"root": ("u0", [])}
    await subject(directory, "g50")
    assert (await refusal(login(directory, "root", PASSWORD)))[0] == "SESSION_AUTHENTICATION_FAILED"


async def test_change_of_roles_holds_for_open_sessions(directory):
    ref = await subject(directory, "u1000", "pool-admin")
    session = await login(directory, "anna")
    await directory.call("subject.add_to_roles", ref, role_ref("read-only"))
    await directory.call("subject.remove_from_roles", ref, role_ref("pool-admin"))
    denied = await refusal(directory.api.call("VM.set_name_label", session, directory.vm, "x"))
    assert denied[0] == "RBAC_PERMISSION_DENIED"
    shown = await directory.api.call("session.get_rbac_permissions", session, session)
    assert "vm.get_all" in shown
    assert "vm.set_name_label" not in shown
    await directory.call("subject.remove_from_roles", ref, role_ref("read-only"))
    assert await refusal(directory.api.call("VM.get_all", session)) == ["SESSION_INVALID", session]


@pytest.mark.parametrize("how", ["destroy", "logout", "disable"])
async def test_sessions_of_a_subject_end_with_it(directory, how):
    ref = await subject(directory, "u1000", "pool-admin")
    session = await login(directory, "anna")
    if how == "destroy":
        await directory.call("subject.destroy", ref)
    elif how == "logout":
        await directory.call("session.logout_subject_identifier", "u1000")
    else:
        await directory.call("pool.disable_external_auth", directory.pool, {})
    assert await refusal(directory.api.call("VM.get_all", session)) == ["SESSION_INVALID", session]
    await directory.call("VM.get_all")  # root's goes on


async def test_subjects_are_made_once_and_from_what_the_directory_knows(directory):
    ref = await subject(directory, "u1000")
    assert await directory.call("subject.get_other_config", ref) == {"subject-name": "anna"}
    assert await directory.call("subject.get_roles", ref) == []
    again = {"subject_identifier": "u1000", "other_config": {}}
    assert await refusal(directory.call("subject.create", again)) == ["SUBJECT_ALREADY_EXISTS"]
    nobody = {"subject_identifier": "u7", "other_config": {}}
    assert await refusal(directory.call("subject.create", nobody)) == ["SUBJECT_CANNOT_BE_RESOLVED"]
    empty = {"subject_identifier": "", "other_config": {}}
    assert (await refusal(directory.call("subject.create", empty)))[0] == "INVALID_VALUE"


async def test_roles_of_a_subject(directory):
    ref = await subject(directory, "g50", "read-only")
    names = await directory.call("subject.get_permissions_name_label", ref)
    assert "vm.get_record" in names
    assert "vm.start" not in names
    assert await refusal(directory.call("subject.add_to_roles", ref, role_ref("read-only"))) == ["ROLE_ALREADY_EXISTS"]
    assert await refusal(directory.call("subject.add_to_roles", ref, NULL_REF)) == ["ROLE_NOT_FOUND"]
    other = role_ref("pool-admin")
    assert await refusal(directory.call("subject.remove_from_roles", ref, other)) == ["ROLE_NOT_FOUND"]


async def test_questions_to_the_directory(directory):
    assert await directory.call("auth.get_subject_identifier", "staff") == "g50"
    assert await directory.call("auth.get_subject_information_from_identifier", "g50") == {"subject-name": "staff"}
    assert await directory.call("auth.get_group_membership", "u1000") == ["g50"]
    assert await refusal(directory.call("auth.get_subject_identifier", "carl")) == ["SUBJECT_CANNOT_BE_RESOLVED"]


async def test_trusting_a_directory_and_no_longer(world):
    host = world.host
    unknown = await refusal(world.call("host.enable_external_auth", host, {}, "d", "LDAP"))
    assert unknown == ["AUTH_UNKNOWN_TYPE", "LDAP"]
    assert (await refusal(world.call("pool.enable_external_auth", world.pool, {}, "d", "AD")))[0] == (
        "POOL_AUTH_ENABLE_FAILED"
    )
    await world.call("host.enable_external_auth", host, {}, "d", "PAM")
    again = await refusal(world.call("host.enable_external_auth", host, {}, "d", "PAM"))
    assert again == ["AUTH_ALREADY_ENABLED", "PAM", "d"]
    assert (await refusal(world.call("pool.enable_external_auth", world.pool, {}, "d", "PAM")))[0] == (
        "POOL_AUTH_ALREADY_ENABLED"
    )
    await world.call("host.disable_external_auth", host, {}, False)
    assert await world.call("host.get_external_auth_type", host) == ""


async def test_accounts_of_this_machine():
    directory = PamDirectory()
    assert await directory.identifier("root") == "u0"
    known = await directory.information("u0")
    assert known["subject-name"] == "root"
    assert known["subject-is-group"] == "false"
    assert "g0" in await directory.groups("u0")
    assert (await directory.information("g0"))["subject-is-group"] == "true"
    for wrong in ("", "u", "u4294967294", "root", "x0", "u" + "9" * 9):
        with pytest.raises(NoSuchSubject):
            await directory.information(wrong)
    with pytest.raises(NoSuchSubject):
        await directory.identifier("no-such-user")


async def test_password_that_this_machine_does_not_know():
    with pytest.raises(WrongPassword):
        await PamDirectory().authenticate("no-such-user", "x")


# -- sessions of a host


async def test_hosts_that_show_a_pool_secret_are_refused(world):
    for method, params in (("slave_login", [world.host, "s3cret-of-pool"]), ("slave_local_login", ["s3cret-of-pool"])):
        code, _, text = await refusal(world.api.call(f"session.{method}", *params))
        assert (code, text) == ("SESSION_AUTHENTICATION_FAILED", "Pool credentials invalid")


# -- the audit log


def told(world) -> list[str]:
    return [line.decode() for line in world.api.audit.lines()]


async def test_change_is_told_with_names_and_reads_are_not(world):
    await world.call("VM.get_all_records")
    await world.call("VM.set_name_label", world.vm, "x")
    await world.call("VM.add_tags", world.vm, "blue")
    renamed, tagged = told(world)
    track = "trackid=" + hashlib.sha256(world.root.encode()).hexdigest()[:32]
    uuid = world.api.pool.db.get("VM", world.vm)["uuid"]
    assert f"('{track}' 'LOCAL_SUPERUSER' 'root' 'ALLOWED' 'OK' 'API' 'VM.set_name_label'" in renamed
    assert f"(('self' 'web1' '{uuid}' '{world.vm}'))" in renamed
    assert f"'VM.add_tags' (('self' 'x' '{uuid}' '{world.vm}'))" in tagged
    assert world.root not in renamed


async def test_refusals_are_told(world):
    reader = world.session("read-only", "mallory")
    await refusal(world.api.call("VM.set_name_label", reader, world.vm, "x"))
    await refusal(world.call("role.get_permissions", world.vm))
    await refusal(world.call("message.create", "", 1, "VM", "no-such-uuid", "b"))
    denied, failed = told(world)
    assert "'mallory' 'DENIED' 'ERROR:RBAC_PERMISSION_DENIED' 'API' 'VM.set_name_label'" in denied
    assert "'ALLOWED' 'ERROR:INVALID_VALUE' 'API' 'message.create'" in failed


async def test_logins_are_told_and_passwords_never(world):
    await world.api.invoke("session.login_with_password", ["root", "correct horse", "1.0", "unit"], FAR)
    await refusal(world.api.invoke("session.login_with_password", ["root", "wrong horse"], FAR))
    good, bad = told(world)
    assert "'root' 'ALLOWED' 'OK' 'API' 'session.login_with_password' (('uname' 'root'" in good
    assert "'' 'DENIED' 'ERROR:SESSION_AUTHENTICATION_FAILED' 'API' 'session.login_with_password'" in bad
    assert "horse" not in good + bad
    await world.call("secret.create", {"value": "hush hush", "other_config": {}})
    assert "hush" not in "".join(told(world))


async def test_asynchronous_call_is_told_when_it_ends(world):
    task = await world.call("Async.subject.create", {"subject_identifier": "u5", "other_config": {}})
    await until(lambda: world.api.pool.db.get("task", task)["status"] == "success")
    assert "'OK' 'API' 'subject.create' (('subject_identifier' 'u5' '' ''))" in told(world)[-1]


def test_what_is_told_cannot_forge_a_line():
    assert quoted("a'b\\c\nd") == r"'a\'b\\c\010d'"
    assert len(quoted("x" * 5000)) < 1100


def test_older_files_are_kept_and_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "FILE_LIMIT_BYTES", 400)
    monkeypatch.setattr(audit, "FILES_KEPT", 3)
    clock = ManualClock()
    kept = AuditLog(tmp_path / "audit.log", clock)
    for number in range(40):
        kept.write(["t", "", f"user{number}"], True, "", "API", "VM.start")
    shown = [int(line.decode().partition("'user")[2].partition("'")[0]) for line in kept.lines()]
    assert shown == list(range(shown[0], 40))
    assert shown[0] > 0
    assert {f"audit.log.{number}" for number in (1, 2, 3)} == {p.name for p in tmp_path.iterdir()} - {"audit.log"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    kept.close()


def test_since_leaves_out_what_is_older(tmp_path):
    clock = ManualClock()
    kept = AuditLog(tmp_path / "audit.log", clock)
    kept.write(["t", "", "early"], True, "", "API", "VM.start")
    clock.advance(3600)
    between = clock.now()
    kept.write(["t", "", "late"], True, "", "API", "VM.start")
    kept.close()
    for since in (between.strftime("%Y%m%dT%H:%M:%S"), between.strftime("%Y-%m-%dT%H:%M:%SZ")):
        (line,) = kept.lines(since)
        assert b"late" in line
    assert len(list(kept.lines())) == 2


async def test_full_disk_loses_a_line_and_no_call(world, caplog):
    path = world.api.audit.path
    world.api.audit.close()
    path.unlink(missing_ok=True)
    path.mkdir()
    await world.call("VM.set_name_label", world.vm, "y")
    assert "audit line lost" in caplog.text
    shutil.rmtree(path)
