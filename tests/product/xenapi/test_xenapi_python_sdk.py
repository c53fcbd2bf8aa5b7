"""The Python SDK of XenServer, unmodified, against the real doors."""

import socket
import ssl
import threading
import xmlrpc.client

import pytest
import XenAPI

from tests.product.xenapi.conftest import PASSWORD


async def test_log_in_list_set_and_log_out(doors):
    def client():
        session = doors.logged_in()
        assert session.API_version == "2.23"
        pools = session.xenapi.pool.get_all_records()
        (ref, record) = next(iter(pools.items()))
        assert record["name_label"] == "test"
        assert record["ha_host_failures_to_tolerate"] == "0"
        assert record["ha_enabled"] is False
        assert isinstance(record["last_update_sync"], xmlrpc.client.DateTime)
        session.xenapi.pool.set_name_label(ref, "päiväkoti & <co>")
        session.xenapi.pool.add_to_other_config(ref, "kéy", "v\nw")
        assert session.xenapi.pool.get_name_label(ref) == "päiväkoti & <co>"
        assert session.xenapi.pool.get_other_config(ref) == {"kéy": "v\nw"}
        assert session.xenapi.VM.get_all() == []
        session.xenapi.session.logout()

    await doors.thread(client)


async def test_failure_is_the_sdks_failure(doors):
    def client():
        session = doors.logged_in()
        with pytest.raises(XenAPI.Failure) as caught:
            session.xenapi.VM.get_record("OpaqueRef:none")
        assert caught.value.details == ["HANDLE_INVALID", "VM", "OpaqueRef:none"]
        with pytest.raises(XenAPI.Failure) as caught:
            session.xenapi.VM.no_such_thing()
        assert caught.value.details == ["MESSAGE_METHOD_UNKNOWN", "VM.no_such_thing"]

    await doors.thread(client)


async def test_wrong_password(doors):
    def client():
        with pytest.raises(XenAPI.Failure) as caught:
            doors.plain().xenapi.login_with_password("root", "wrong")
        assert caught.value.details[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]

    await doors.thread(client)


async def test_sdk_logs_in_again_when_its_session_has_ended(doors):
    def client():
        session = doors.logged_in()
        doors.json("session.logout", session.handle)
        assert session.xenapi.VM.get_all() == []

    await doors.thread(client)


async def test_tls(doors):
    def client():
        session = doors.tls()
        session.xenapi.login_with_password("root", PASSWORD)
        assert len(session.xenapi.pool.get_all()) == 1
        with socket.create_connection(("127.0.0.1", doors.tls_port)) as plain:
            tls = doors.pinned_context().wrap_socket(plain, server_hostname="127.0.0.1")
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
            tls.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            xmlrpc.client.ServerProxy(f"https://127.0.0.1:{doors.tls_port}/").system.listMethods()

    await doors.thread(client)
    assert (doors.data / "pool.pem").stat().st_mode & 0o777 == 0o600


async def test_unix_socket_lets_root_in_without_a_password(doors):
    def client():
        session = doors.unix()
        session.xenapi.login_with_password("root", "")
        assert session.xenapi.session.get_is_local_superuser(session.handle) is True
        assert len(session.xenapi.pool.get_all()) == 1

    await doors.thread(client)
    assert (doors.run / "xapi").stat().st_mode & 0o777 == 0o600


async def test_events_reach_a_waiting_client(doors):
    def client():
        session, other = doors.logged_in(), doors.logged_in()
        (pool,) = session.xenapi.pool.get_all()
        token = session.xenapi.event_from(["pool"], "", 1.0)["token"]
        answers = []
        ask = lambda: answers.append(session.xenapi.event_from(["pool"], token, 3600.0))  # noqa: E731
        waiter = threading.Thread(target=ask, daemon=True)
        waiter.start()
        other.xenapi.pool.set_name_description(pool, "changed")
        waiter.join(120)
        assert not waiter.is_alive(), "told when it happens, not when the time is over"
        (answer,) = answers
        (event,) = answer["events"]
        assert (event["class"], event["operation"], event["ref"]) == ("pool", "mod", pool)
        assert event["snapshot"]["name_description"] == "changed"
        assert answer["valid_ref_counts"]["pool"] == 1

    await doors.thread(client)


async def test_asynchronous_call_is_followed_by_its_task(doors):
    def client():
        session = doors.logged_in()
        task = session.xenapi.Async.secret.create({"value": "hush", "other_config": {}})
        while session.xenapi.task.get_status(task) == "pending":
            session.xenapi.event_from([f"task/{task}"], "", 1.0)
        secret = session.xenapi.task.get_result(task).removeprefix("<value>").removesuffix("</value>")
        assert session.xenapi.secret.get_value(secret) == "hush"
        session.xenapi.task.destroy(task)

    await doors.thread(client)


async def test_what_a_client_sets_survives_a_restart(doors):
    def client():
        session = doors.logged_in()
        (pool,) = session.xenapi.pool.get_all()
        session.xenapi.pool.set_name_label(pool, "kept")

    await doors.thread(client)
    await doors.coordinator.stop()
    doors.coordinator.ports.clear()
    await doors.coordinator.start()

    def later():
        session = doors.logged_in()
        (record,) = session.xenapi.pool.get_all_records().values()
        assert record["name_label"] == "kept"

    await doors.thread(later)
