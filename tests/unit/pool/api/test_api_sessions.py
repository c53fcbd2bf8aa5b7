"""Who may come in, for how long, and what guessing costs."""

import asyncio
import logging

import pytest

from gespann.pool.api import accounts as accounts_module
from gespann.pool.api import sessions as sessions_module
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api, CallerApi
from gespann.pool.api.caller import Caller
from gespann.pool.model.database import Database
from gespann.pool.pool import Pool
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.clock import ManualClock

STRANGER = Caller("192.0.2.7")
PASSWORD = "correct horse"


@pytest.fixture
def api(tmp_path, monkeypatch) -> Api:
    monkeypatch.setattr(accounts_module, "_COST", 16)  # what a hash costs is not the question here: hundreds are made
    accounts = Accounts(tmp_path)
    accounts.open(PASSWORD)
    return Api(Pool(Database(None), {}, {}, ManualClock()), accounts)


async def login(api: Api, password: str = PASSWORD, user: str = "root", caller: Caller = STRANGER) -> str:
    _, ref = await api.invoke("session.login_with_password", [user, password], caller)
    return ref


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def code_of(task: asyncio.Task) -> str:
    error = task.exception()
    assert isinstance(error, XenApiError)
    return error.code


async def test_right_password_opens_a_session(api):
    ref = await login(api)
    record = await api.call("session.get_record", ref, ref)
    assert record["auth_user_name"] == "root"
    assert record["is_local_superuser"] is True
    assert PASSWORD not in repr(record)


@pytest.mark.parametrize(
    ("user", "password"), [("root", "wrong"), ("root", ""), ("", PASSWORD), ("nobody", PASSWORD), ("root", "x" * 5000)]
)
async def test_wrong_login(api, user, password):
    with pytest.raises(XenApiError) as caught:
        await login(api, password, user)
    assert caught.value.code == "SESSION_AUTHENTICATION_FAILED"
    assert caught.value.params[0] == user
    assert not api.pool.db.all("session")


async def test_each_failure_makes_the_address_wait_longer(api):
    clock = api.pool.clock
    with pytest.raises(XenApiError):
        await login(api, "wrong")
    waits = []
    for _ in range(4):
        attempt = asyncio.ensure_future(login(api, "wrong"))
        await settle()
        waited = 0.0
        while clock.sleepers:
            clock.advance(0.25)
            waited += 0.25
            await settle()
        await asyncio.wait([attempt])
        assert code_of(attempt) == "SESSION_AUTHENTICATION_FAILED"
        waits.append(waited)
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


async def test_attempts_side_by_side_do_not_save_time(api):
    clock = api.pool.clock
    with pytest.raises(XenApiError):
        await login(api, "wrong")
    attempts = [asyncio.ensure_future(login(api, "wrong")) for _ in range(8)]
    await settle()
    assert clock.sleepers == 8
    clock.advance(sessions_module.DELAY_FIRST_S)
    await settle()
    assert clock.sleepers == 7
    clock.advance(1000)
    await asyncio.wait(attempts)


async def test_attempts_do_not_queue_up_without_end(api):
    """Whoever shares the address must come in again soon, and the queue holds memory."""
    with pytest.raises(XenApiError):
        await login(api, "wrong")
    attempts = [asyncio.ensure_future(login(api, "wrong")) for _ in range(1000)]
    await settle()
    refused = [attempt for attempt in attempts if attempt.done()]
    assert len(refused) > 700
    assert {code_of(attempt) for attempt in refused} == {"SESSION_AUTHENTICATION_FAILED"}
    while not all(attempt.done() for attempt in attempts):
        api.pool.clock.advance(1000)
        await asyncio.sleep(0.001)  # for the threads that make the hashes
    again = asyncio.ensure_future(login(api))
    while not again.done():
        api.pool.clock.advance(1)
        await asyncio.sleep(0.001)
    assert await again


async def test_other_addresses_do_not_wait(api):
    with pytest.raises(XenApiError):
        await login(api, "wrong")
    assert await login(api, caller=Caller("192.0.2.8"))


async def test_success_clears_the_account_of_failures(api):
    with pytest.raises(XenApiError):
        await login(api, "wrong")
    attempt = asyncio.ensure_future(login(api))
    await settle()
    api.pool.clock.advance(10)
    assert await attempt
    assert await login(api)  # at once


async def test_root_of_this_machine_needs_no_password_and_others_there_do(api):
    assert await login(api, "", caller=Caller(local_root=True))
    with pytest.raises(XenApiError):
        await login(api, "", caller=Caller(local_root=False))


async def test_command_engine_checks_a_password_that_is_given_even_for_root(api):
    door = CallerApi(api, Caller(local_root=True))
    with pytest.raises(XenApiError):
        await door.call("session.login_with_password", "root", "wrong")
    session = await door.local_session()
    assert await door.call("pool.get_all", session) == []


async def test_logout_ends_it(api):
    ref = await login(api)
    await api.call("session.logout", ref)
    with pytest.raises(XenApiError, match="SESSION_INVALID"):
        await api.call("pool.get_all", ref)


async def test_idle_session_ends_and_a_used_one_does_not(api):
    used, idle = await login(api), await login(api)
    for _ in range(3):
        api.pool.clock.advance(sessions_module.IDLE_LIMIT_S / 2 - 1)
        await api.call("pool.get_all", used)
    with pytest.raises(XenApiError, match="SESSION_INVALID"):
        await api.call("pool.get_all", idle)
    assert list(api.pool.db.all("session")) == [used]


async def test_longest_unused_goes_when_there_are_too_many(api, monkeypatch):
    monkeypatch.setattr(sessions_module, "SESSIONS_LIMIT", 3)
    first, second, third = [await login(api) for _ in range(3)]
    await api.call("pool.get_all", first)
    await login(api, caller=Caller(local_root=True), user="other")  # another user's do not count
    await login(api)
    assert api.sessions.find(second) is None
    assert api.sessions.find(first) is not None
    assert api.sessions.find(third) is not None


async def test_last_active_follows(api):
    ref = await login(api)
    before = api.pool.db.get("session", ref)["last_active"]
    api.pool.clock.advance(120)
    await api.call("pool.get_all", ref)
    assert api.pool.db.get("session", ref)["last_active"] > before


async def test_changing_the_password(api, tmp_path):
    ref = await login(api)
    with pytest.raises(XenApiError, match="SESSION_AUTHENTICATION_FAILED"):
        await api.call("session.change_password", ref, "wrong", "new password")
    with pytest.raises(XenApiError, match="CHANGE_PASSWORD_REJECTED"):
        await api.call("session.change_password", ref, PASSWORD, "short")
    assert await login(api)
    await api.call("session.change_password", ref, PASSWORD, "new password")
    assert await login(api, "new password")
    with pytest.raises(XenApiError):
        await login(api)
    again = Accounts(tmp_path)
    again.open()
    assert await again.check("root", "new password") is not None
    assert await again.check("root", PASSWORD) is None


async def test_readers_do_not_change_passwords(api):
    reader = api.sessions.begin("someone", "read-only").ref
    with pytest.raises(XenApiError, match="RBAC_PERMISSION_DENIED"):
        await api.call("session.change_password", reader, PASSWORD, "new password")


async def test_first_start_makes_a_password_for_root_and_later_ones_do_not(tmp_path):
    accounts = Accounts(tmp_path)
    accounts.open()
    assert accounts.password_path.stat().st_mode & 0o777 == 0o600
    password = accounts.password_path.read_text().strip()
    assert len(password) >= 20
    again = Accounts(tmp_path)
    again.open("another")
    assert await again.check("root", password) is not None
    await again.change_password("root", password, "new password")
    assert not again.password_path.exists()
    assert (tmp_path / "accounts.json").stat().st_mode & 0o777 == 0o600
    assert password.encode() not in (tmp_path / "accounts.json").read_bytes()


async def test_first_start_that_was_cut_off_between_the_files(tmp_path):
    Accounts(tmp_path).open()
    password = (tmp_path / "root.password").read_text().strip()
    (tmp_path / "accounts.json").unlink()
    again = Accounts(tmp_path)
    again.open()
    assert await again.check("root", password) is not None


async def test_passwords_are_not_logged(api, caplog):
    caplog.set_level(logging.DEBUG)
    ref = await login(api)
    with pytest.raises(XenApiError):
        await login(api, "a-wrong-password", caller=Caller("192.0.2.9"))
    await api.call("session.change_password", ref, PASSWORD, "a-new-password")
    for secret in (PASSWORD, "a-wrong-password", "a-new-password", ref):
        assert secret not in caplog.text
