"""Programs that use the Python SDK (PyPI ``XenAPI``), unmodified: what they do with machines, errors, events, tasks and
files. Its logging in, TLS and what survives a restart are in ``tests/product/xenapi/test_xenapi_python_sdk.py``."""

import http.client
import ssl
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import XenAPI

from gespann.pool.api import sessions as sessions_module
from tests.product.clients.served_pool import ServedPool
from tests.unit.pool.world import MIB, vdi_fields

LIMIT_S = 180.0
NOWHERE = "OpaqueRef:00000000-0000-0000-0000-000000000000"


@pytest.fixture
def session(pool: ServedPool) -> Iterator[Any]:
    with XenAPI.Session(pool.url, ignore_ssl=True) as opened:
        opened.login_with_password("root", pool.password, "1.0", "sdk test")
        yield opened
        if opened.handle is not None:
            opened.xenapi.session.logout()


def refusal(call: Callable[..., Any], *params: Any) -> list[str]:
    with pytest.raises(XenAPI.Failure) as caught:
        call(*params)
    details: list[str] = caught.value.details
    assert all(isinstance(word, str) for word in details)
    return details


# -- coming in


@pytest.mark.parametrize("more", [(), ("1.0",), ("1.0", "my script")])
def test_login_takes_a_version_and_a_name_of_the_program(pool: ServedPool, more: tuple[str, ...]) -> None:
    session = XenAPI.Session(pool.url, ignore_ssl=True)
    session.xenapi.login_with_password("root", pool.password, *more)
    record = session.xenapi.session.get_record(session.handle)
    assert record["originator"] == (more[1] if len(more) > 1 else "")
    assert session.xenapi.session.get_this_host(session.handle) == pool.host
    session.logout()
    assert session.handle is None
    missing = refusal(session.login_with_password, "root")
    assert missing == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password", "4", "1"]


def test_a_member_names_the_coordinator_to_which_a_script_then_goes(pool: ServedPool, member_url: str) -> None:
    code, address = refusal(XenAPI.Session(member_url).login_with_password, "root", pool.password)
    assert code == "HOST_IS_SLAVE"
    session = XenAPI.Session(f"https://{address}", ignore_ssl=True)
    session.login_with_password("root", pool.password)
    assert list(session.xenapi.pool.get_all_records()) == [next(iter(pool.call("pool.get_all")))]
    session.xenapi.session.logout()


LOCAL_SCRIPT = """
import XenAPI
session = XenAPI.xapi_local()
session.login_with_password("", "")
print(session.xenapi.pool.get_all_records().popitem()[1]["name_label"], session.API_version)
session.xenapi.session.logout()
"""


def test_xapi_local_where_scripts_look_for_the_socket(pool: ServedPool) -> None:
    """The path is part of the SDK; the machine keeps its own /var/lib."""
    where = "mount -t tmpfs none /var/lib && mkdir /var/lib/xcp && ln -s $1 /var/lib/xcp/xapi && shift && exec $@"
    words = ["unshare", "-m", "sh", "-c", where, "sh", pool.base / "run/xapi", sys.executable, "-"]
    ended = subprocess.run(words, input=LOCAL_SCRIPT, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.stdout == "clients 2.23\n", ended.stderr


def test_a_session_left_idle_ends_and_the_sdk_opens_another(pool: ServedPool, session: Any) -> None:
    first = session.handle
    kept = pool.coordinator.api.sessions.find(first)
    assert kept is not None
    kept.last_used_s -= sessions_module.IDLE_LIMIT_S + 1
    assert pool.host in session.xenapi.host.get_all()
    assert session.handle != first
    assert session.host.get_all(first) == {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", first]}


def test_who_opens_too_many_loses_the_oldest_and_nobody_else(
    pool: ServedPool, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_LIMIT", 3)
    raw = xmlrpc.client.ServerProxy(pool.url, context=ssl._create_unverified_context())
    opened = [raw.session.login_with_password("root", pool.password, "1.0", "leaky")["Value"] for _ in range(5)]
    alive = [raw.pool.get_all(ref)["Status"] for ref in opened]
    assert alive == ["Failure", "Failure", "Success", "Success", "Success"]
    assert raw.pool.get_all(opened[0])["ErrorDescription"] == ["SESSION_INVALID", opened[0]]
    assert session.xenapi.pool.get_all()
    for ref in opened[2:]:
        assert raw.session.logout(ref) == {"Status": "Success", "Value": ""}


# -- values and errors


def test_failures_have_the_details_that_scripts_look_at(pool: ServedPool, session: Any) -> None:
    api = session.xenapi
    vm = pool.make_vm("failing")
    assert refusal(api.VM.get_record, NOWHERE) == ["HANDLE_INVALID", "VM", NOWHERE]
    assert refusal(api.VM.get_by_uuid, "none") == ["UUID_INVALID", "VM", "none"]
    assert refusal(api.VM.hard_shutdown, vm) == ["VM_BAD_POWER_STATE", vm, "paused, running, suspended", "halted"]
    assert refusal(api.VM.start, vm) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"]
    assert refusal(api.VM.set_tags, vm, "blue") == ["FIELD_TYPE_ERROR", "value"]
    assert refusal(api.VM.set_actions_after_crash, vm, "dance") == ["INVALID_VALUE", "value", "dance"]
    assert refusal(api.VM.add_to_other_config, vm, "k", 5)[0] == "FIELD_TYPE_ERROR"
    api.VM.add_to_other_config(vm, "k", "v")
    uuid = api.VM.get_uuid(vm)
    assert refusal(api.VM.add_to_other_config, vm, "k", "w") == ["MAP_DUPLICATE_KEY", "VM", "other_config", uuid, "k"]


def test_names_in_any_script(pool: ServedPool, session: Any) -> None:
    vm = pool.make_vm("plain")
    for name in (
        "Größe & <Maß> ]]>",
        "仮想マシン",
        "🐎🐂",
        "a\tb\nc",
        " leading and trailing ",
        "\u202eright to left",
        "",
    ):
        session.xenapi.VM.set_name_label(vm, name)
        assert session.xenapi.VM.get_name_label(vm) == name
        assert vm in session.xenapi.VM.get_by_name_label(name)
    with pytest.raises(xmlrpc.client.ProtocolError) as caught:  # what no XML can carry
        session.xenapi.VM.set_name_label(vm, "\x07")
    assert caught.value.errcode == 400
    assert session.xenapi.VM.get_name_label(vm) == ""


def test_numbers_larger_than_its_own_integers(pool: ServedPool, session: Any) -> None:
    """Its XML-RPC has integers of 32 bits: larger ones go both ways as texts."""
    size = 600 * 15 * MIB  # whole pages of the array
    assert size > 2**32
    vdi = session.xenapi.VDI.create(vdi_fields(pool.sr, "large", virtual_size=str(size)))
    assert session.xenapi.VDI.get_virtual_size(vdi) == str(size)
    session.xenapi.VDI.resize(vdi, str(size + 15 * MIB))
    assert session.xenapi.VDI.get_record(vdi)["virtual_size"] == str(size + 15 * MIB)
    with pytest.raises(OverflowError):
        session.xenapi.VDI.resize(vdi, 2 * size)
    session.xenapi.VDI.destroy(vdi)
    vm = pool.make_vm("with numbers")
    session.xenapi.VM.set_VCPUs_max(vm, 2)
    assert session.xenapi.VM.get_VCPUs_max(vm) == "2"


def test_dates_go_both_ways(pool: ServedPool, session: Any) -> None:
    shown = session.xenapi.host.get_servertime(pool.host)
    assert isinstance(shown, xmlrpc.client.DateTime)
    told = datetime.strptime(shown.value, "%Y%m%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - told).total_seconds()) < 3600
    vm = session.xenapi.VM.get_uuid(pool.make_vm("dated"))
    message = session.xenapi.message.create("DATED", "3", "VM", vm, "words")
    assert message in session.xenapi.message.get_since(xmlrpc.client.DateTime("20200101T00:00:00Z"))
    assert message in session.xenapi.message.get_since(datetime(2020, 1, 1))
    assert message not in session.xenapi.message.get_since(xmlrpc.client.DateTime("29990101T00:00:00Z"))


# -- work


def waited(session: Any, task: str) -> str:
    """As the SDK's own examples do: events of this task until it is no longer pending; its result, and it is gone."""
    token = ""
    while session.xenapi.task.get_status(task) == "pending":
        token = session.xenapi.event_from([f"task/{task}"], token, 5.0)["token"]
    record = session.xenapi.task.get_record(task)
    session.xenapi.task.destroy(task)
    if record["status"] != "success":
        raise XenAPI.Failure(record["error_info"])
    return str(record["result"]).removeprefix("<value>").removesuffix("</value>")


def test_work_by_tasks(pool: ServedPool, session: Any) -> None:
    template = pool.make_vm("sdk template")
    vm = waited(session, session.xenapi.Async.VM.clone(template, "sdk clone"))
    assert session.xenapi.VM.get_name_label(vm) == "sdk clone"
    assert waited(session, session.xenapi.Async.VM.start(vm, False, False)) == ""
    assert session.xenapi.VM.get_power_state(vm) == "Running"
    again = session.xenapi.Async.VM.start(vm, False, False)
    assert refusal(waited, session, again) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    snapshot = waited(session, session.xenapi.Async.VM.snapshot(vm, "of it"))
    assert session.xenapi.VM.get_is_a_snapshot(snapshot) is True
    waited(session, session.xenapi.Async.VM.hard_shutdown(vm))
    assert refusal(session.xenapi.task.get_record, again) == ["HANDLE_INVALID", "task", again]


def test_a_program_that_lives_by_events(pool: ServedPool, session: Any) -> None:
    """A picture kept up to date by events alone is what the pool then says."""
    vm = pool.make_vm("followed")
    listened = XenAPI.Session(pool.url, ignore_ssl=True)
    listened.login_with_password("root", pool.password)
    picture: dict[str, dict[str, Any]] = {}
    counts: list[int] = []
    started, enough = threading.Event(), threading.Event()

    def follow() -> None:
        token = ""
        while not enough.is_set():
            batch = getattr(listened.xenapi.event, "from")(["vm"], token, 1.0)
            token = batch["token"]
            for event in batch["events"]:
                if event["operation"] == "del":
                    picture.pop(event["ref"], None)
                else:
                    picture[event["ref"]] = event["snapshot"]
            counts.append(batch["valid_ref_counts"]["vm"])
            started.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert started.wait(LIMIT_S)
    session.xenapi.VM.start(vm, False, False)
    session.xenapi.VM.hard_shutdown(vm)
    copy = session.xenapi.VM.clone(vm, "followed too")
    session.xenapi.VM.destroy(copy)
    session.xenapi.VM.add_tags(vm, "last")

    def agrees() -> bool:
        """The pool goes on by itself: something may change between the last event and the question."""
        told = session.xenapi.VM.get_all_records()
        return (set(picture), picture.get(vm), counts[-1]) == (set(told), told[vm], len(told))

    deadline_s = time.monotonic() + LIMIT_S
    while not agrees():
        assert thread.is_alive()
        assert time.monotonic() < deadline_s, (picture.get(vm), session.xenapi.VM.get_record(vm))
        time.sleep(0.01)
    enough.set()
    thread.join(LIMIT_S)
    listened.logout()
    assert picture[vm]["tags"] == ["last"]


def test_an_old_program_registers_and_waits_for_what_is_next(pool: ServedPool, session: Any) -> None:
    vm = pool.make_vm("registered")
    assert refusal(session.xenapi.event.next)[0] == "SESSION_NOT_REGISTERED"
    session.xenapi.event.register(["VM"])
    session.xenapi.VM.add_tags(vm, "seen")
    seen = [event for event in session.xenapi.event.next() if event["ref"] == vm]
    assert {(event["class"], event["operation"]) for event in seen} == {("vm", "mod")}
    assert seen[-1]["snapshot"]["tags"] == ["seen"]
    session.xenapi.event.unregister(["VM"])


# -- files, by HTTP with its session


def http_call(
    pool: ServedPool, method: str, path: str, body: bytes | None = None, cookie: str = ""
) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(pool.certificate))
    connection = http.client.HTTPSConnection(pool.address, 443, timeout=LIMIT_S, context=context)
    try:
        connection.request(method, path, body, {"Cookie": f"session_id={cookie}"} if cookie else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_machine_goes_out_and_in_with_the_session_of_the_sdk(pool: ServedPool, session: Any) -> None:
    uuid = session.xenapi.VM.get_uuid(pool.make_vm("carried by the sdk"))
    status, archive = http_call(pool, "GET", f"/export?uuid={uuid}&session_id={session.handle}")
    assert (status, archive[:7]) == (200, b"ova.xml")

    task = session.xenapi.task.create("import", "by the sdk")
    status, _ = http_call(pool, "PUT", f"/import?task_id={task}&sr_id={pool.sr}", archive, cookie=session.handle)
    assert status == 200
    result = session.xenapi.task.get_result(task)
    assert session.xenapi.task.get_status(task) == "success"
    (came,) = set(session.xenapi.VM.get_by_name_label("carried by the sdk")) - {session.xenapi.VM.get_by_uuid(uuid)}
    assert came in result
    session.xenapi.task.destroy(task)

    ended = session.handle
    session.xenapi.session.logout()
    for path in (f"/export?uuid={uuid}&session_id={ended}", f"/export?uuid={uuid}"):
        assert http_call(pool, "GET", path)[0] in (401, 403)
