"""The doors as raw HTTP: what JavaScript clients depend on, and what strangers send."""

import asyncio
import json
import os
import socket
import struct
import threading
import time
import xmlrpc.client

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gespann.pool.api import http_handlers, rpc, takeover
from gespann.pool.api.http_handlers import ClientGone, http
from tests.product.xenapi.conftest import PASSWORD


async def until(condition) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 what it waits for tells nobody
            await asyncio.sleep(0.01)


def put(target: str, *lines: str) -> bytes:
    """The head of a PUT request."""
    return "\r\n".join([f"PUT {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def login(doors) -> str:
    return doors.json("session.login_with_password", "root", PASSWORD)["result"]


# -- JSON-RPC


async def test_content_type_is_exactly_what_clients_compare_with(doors):
    status, headers, body = await doors.thread(
        doors.post, "/jsonrpc", '{"jsonrpc":"2.0","method":"system.listMethods","params":[],"id":0}'
    )
    assert (status, headers["content-type"]) == (200, "application/json")
    answer = json.loads(body)
    assert answer["id"] == 0
    assert "VM.get_all_records" in answer["result"]


async def test_every_listed_class_answers_get_all_records(doors):
    def client():
        session = login(doors)
        listed = [m for m in doors.json("system.listMethods")["result"] if m.endswith(".get_all_records")]
        assert len(listed) > 20
        for method in listed:
            assert isinstance(doors.json(method, session)["result"], dict), method

    await doors.thread(client)


async def test_both_versions(doors):
    def client():
        session = login(doors)
        _, _, body = doors.post("/jsonrpc", json.dumps({"method": "VM.get_all", "params": [session], "id": "a"}))
        assert json.loads(body) == {"result": [], "error": None, "id": "a"}
        _, _, body = doors.post("/jsonrpc/", json.dumps({"method": "VM.get_all", "params": ["x"], "id": 3}))
        assert json.loads(body) == {"result": None, "error": ["SESSION_INVALID", "x"], "id": 3}
        assert doors.json("VM.get_all", "x") == {
            "jsonrpc": "2.0",
            "error": {"code": 1, "message": "SESSION_INVALID", "data": ["x"]},
            "id": 1,
        }

    await doors.thread(client)


async def test_older_path_speaks_json_too(doors):
    def client():
        _, headers, body = doors.post("/json", json.dumps({"method": "system.isAlive", "params": [], "id": 7}))
        assert headers["Content-Type"] == "application/json"
        assert json.loads(body) == {"result": True, "error": None, "id": 7}

    await doors.thread(client)


async def test_integers_are_strings_but_for_counts_of_references(doors):
    def client():
        session = login(doors)
        (record,) = doors.json("pool.get_all_records", session)["result"].values()
        assert record["ha_host_failures_to_tolerate"] == "0"
        batch = doors.json("event.from", session, ["pool"], "", 1.0)["result"]
        assert batch["valid_ref_counts"]["pool"] == 1
        assert isinstance(batch["events"][0]["id"], str)

    await doors.thread(client)


async def test_start_token_and_barrier_of_the_node_client(doors):
    def client():
        session = login(doors)
        (pool,) = doors.json("pool.get_all", session)["result"]
        token = doors.json("event.inject", session, "pool", pool)["result"]
        doors.json("pool.add_to_other_config", session, pool, "xo:barrier", "1")
        batch = doors.json("event.from", session, ["*"], token, 60.1)["result"]
        assert any(e["class"] == "pool" and "xo:barrier" in e["snapshot"]["other_config"] for e in batch["events"])

    await doors.thread(client)


async def test_options_for_browsers(doors):
    def client():
        for path in ("/", "/jsonrpc", "/json"):
            connection = doors.http()
            connection.request("OPTIONS", path)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert answer.headers["Access-Control-Allow-Headers"] == "X-Requested-With"
            connection.close()

    await doors.thread(client)


async def test_any_post_path_is_xml_rpc(doors):
    body = "<methodCall><methodName>system.listMethods</methodName><params/></methodCall>"
    for path in ("/", "/RPC2", "/xmlrpc", "/anything/else"):
        status, headers, answer = await doors.thread(doors.post, path, body)
        assert (status, headers["content-type"]) == (200, "text/xml")
        assert b"VM.get_all_records" in answer
        assert b"Status" not in answer


async def test_many_calls_on_one_connection(doors):
    def client():
        session = login(doors)
        connection = doors.http()
        for number in range(50):
            body = json.dumps({"method": "VM.get_all", "params": [session], "id": number})
            connection.request("POST", "/jsonrpc", body)
            assert json.loads(connection.getresponse().read())["id"] == number
        connection.close()

    await doors.thread(client)


async def test_pipelined_requests_are_answered_in_order(doors):
    def client():
        body = b'{"method":"system.isAlive","params":[],"id":%d}'
        requests = b"".join(
            b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body % n), body % n)
            for n in range(5)
        )
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(requests)
            received = b""
            while received.count(b'"id":') < 5:
                received += stream.recv(65536)
        positions = [received.index(b'"id":%d' % n) for n in range(5)]
        assert positions == sorted(positions)

    await doors.thread(client)


async def test_request_byte_by_byte(doors):
    def client():
        body = b'{"method":"system.isAlive","params":[],"id":1}'
        request = b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            for at in range(len(request)):
                stream.sendall(request[at : at + 1])
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")

    await doors.thread(client)


# -- strangers


@pytest.mark.parametrize("path", ["/", "/jsonrpc"])
@pytest.mark.parametrize("body", [b"", b"garbage", b"\x00\xff" * 50, b"[" * 100_000, b"<" * 100_000, b"{}", b"<a/>"])
async def test_malformed_bodies(doors, path, body):
    status, headers, answer = await doors.thread(doors.post, path, body)
    assert status == 400
    if path == "/":
        assert headers["content-type"] == "text/xml"
        with pytest.raises(xmlrpc.client.Fault) as fault:
            xmlrpc.client.loads(answer)
        assert fault.value.faultCode in (-32700, -32600)
    else:
        assert headers["content-type"] == "application/json"
        said = json.loads(answer)
        assert (said["id"], said["error"]["code"] in (-32700, -32600)) == (None, True)


async def test_what_is_shown_of_a_malformed_body_is_no_html(doors):
    _, _, answer = await doors.thread(doors.post, "/jsonrpc", b'{"method": "<script>')
    assert b"<script>" not in answer


async def test_too_large_a_body_is_refused_before_it_is_read(doors):
    def client():
        connection = doors.http()
        connection.putrequest("POST", "/jsonrpc")
        connection.putheader("Content-Length", str(rpc.BODY_LIMIT_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()

    await doors.thread(client)


async def test_bodies_that_arrive_side_by_side_are_bounded_together(doors, monkeypatch):
    monkeypatch.setattr(rpc, "BODIES_LIMIT_BYTES", 10_000)
    app = doors.coordinator.server.app

    def client():
        head = b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", doors.plain_port)) as slow:
            slow.sendall(head + b" " * 7000)
            deadline = time.monotonic() + 120
            while app.arriving_bytes < 7000 and time.monotonic() < deadline:
                time.sleep(0.005)
            connection = doors.http()
            connection.request("POST", "/jsonrpc", b"x" * 7000)
            assert connection.getresponse().status == 503
            connection.close()
        while app.arriving_bytes and time.monotonic() < deadline:
            time.sleep(0.005)
        assert app.arriving_bytes == 0
        assert doors.post("/jsonrpc", b"x" * 7000)[0] == 400

    await doors.thread(client)


async def test_too_large_a_chunked_body_is_refused(doors, monkeypatch):
    monkeypatch.setattr(rpc, "BODY_LIMIT_BYTES", 10_000)

    def client():
        connection = doors.http()
        connection.request("POST", "/jsonrpc", iter([b"x" * 5000] * 3), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()

    await doors.thread(client)


async def test_string_of_ten_megabytes_is_an_invalid_value(doors):
    def client():
        session = login(doors)
        (pool,) = doors.json("pool.get_all", session)["result"]
        answer = doors.json("pool.set_name_label", session, pool, "x" * 10_000_000)
        assert answer["error"]["message"] == "INVALID_VALUE"
        assert len(json.dumps(answer)) < 1000
        assert doors.json("pool.get_name_label", session, pool)["result"] == "test"

    await doors.thread(client)


async def test_head_without_end_is_refused(doors):
    def client():
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(b"POST / HTTP/1.1\r\nX: " + b"x" * (takeover.HEAD_LIMIT_BYTES + 10))
            assert stream.recv(65536).startswith(b"HTTP/1.1 400")

    await doors.thread(client)


async def test_silent_connection_is_closed(doors, monkeypatch):
    monkeypatch.setattr(takeover, "HEAD_TIMEOUT_S", 0.05)

    def client():
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(b"POST / HT")
            assert stream.recv(10) == b""

    await doors.thread(client)


@settings(max_examples=settings().max_examples * 2 // 5)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda b: b"POST /cli HTTP/1.0\r\n" + b + b"\r\n\r\n"),
        st.binary(max_size=100).map(lambda b: b"CONNECT /console?" + b + b" HTTP/1.0\r\n\r\n"),
        st.binary(max_size=100).map(lambda b: b"POST / HTTP/1.1\r\nContent-Length: " + b + b"\r\n\r\n"),
        st.binary(max_size=100).map(lambda b: b"PUT /" + b + b" HTTP/1.1\r\n\r\n"),
    )
)
async def test_hostile_bytes_harm_nobody_else(doors, junk):
    def client():
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(junk)
            stream.shutdown(socket.SHUT_WR)
        assert doors.json("system.isAlive")["result"] is True

    await doors.thread(client)


async def test_junk_at_the_tls_door(doors):
    def client():
        for junk in (b"POST / HTTP/1.0\r\n\r\n", b"\x16\x03\x01" + os.urandom(200), b""):
            with socket.create_connection(("127.0.0.1", doors.tls_port), timeout=120) as stream:
                stream.sendall(junk)
        session = doors.tls()
        session.xenapi.login_with_password("root", PASSWORD)

    await doors.thread(client)


async def test_waiting_call_ends_when_its_client_goes(doors):
    def client():
        session = login(doors)
        token = doors.json("event.from", session, ["pool"], "", 1.0)["result"]["token"]
        body = json.dumps({"method": "event.from", "params": [session, ["pool"], token, 3000.0], "id": 1}).encode()
        stream = socket.create_connection(("127.0.0.1", doors.plain_port))
        stream.sendall(b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return stream

    stream = await doors.thread(client)
    calls = doors.coordinator.server.app.waiting
    await until(lambda: len(calls) == 1)
    stream.close()
    await until(lambda: not calls)


@pytest.mark.parametrize("method", ["event.from", "event.next"])
async def test_waiting_call_is_told_at_once_that_its_session_has_ended(doors, method):
    def client():
        waiting, other = login(doors), login(doors)
        token = doors.json("event.from", waiting, ["pool"], "", 1.0)["result"]["token"]
        doors.json("event.register", waiting, ["pool"])
        params = [["pool"], token, 3000.0] if method == "event.from" else []
        answers = []
        thread = threading.Thread(target=lambda: answers.append(doors.json(method, waiting, *params)))
        thread.start()
        deadline = time.monotonic() + 120
        while not doors.coordinator.server.app.waiting and time.monotonic() < deadline:
            time.sleep(0.005)
        doors.json("session.logout", waiting)
        thread.join(120)
        assert answers[0]["error"] == {"code": 1, "message": "SESSION_INVALID", "data": [waiting]}
        assert "result" in doors.json("pool.get_all", other)

    await doors.thread(client)


async def test_waiting_call_is_answered_when_the_coordinator_stops(doors):
    session = doors.coordinator.api.local_session()
    token = (await doors.coordinator.api.call("event.from", session, ["pool"], "", 1.0))["token"]
    body = json.dumps({"method": "event.from", "params": [session, ["pool"], token, 3000.0], "id": 1})
    answer = asyncio.ensure_future(doors.thread(doors.post, "/jsonrpc", body))
    await until(lambda: len(doors.coordinator.server.app.waiting) == 1)
    await doors.coordinator.stop()
    status, _, _ = await answer
    assert status == 503


# -- handlers that are not RPC


@pytest.fixture
def route(doors):
    """A handler for PUT and CONNECT on /test_stream; what it saw is in the list."""
    seen = []
    before = list(http_handlers.ROUTES)

    @http("PUT", "/test_stream", role="vm-admin")
    async def put(request):
        request.task.set_progress(0.5)
        try:
            async for chunk in request.body(early_eof_ok=True):
                seen.append(chunk)
        except ClientGone:
            seen.append("gone")
            raise
        await request.respond(200, b"thanks")
        seen.append("end")

    @http("GET", "/test_stream")
    async def get(request):
        await request.begin_response(200, {"Content-Type": "application/octet-stream"})
        for _ in range(10):
            await request.send(b"x" * 100_000)

    @http("CONNECT", "/test_stream")
    async def connect(request):
        await request.established()
        while data := await request.reader.read(100):
            request.writer.write(data.upper())
            await request.writer.drain()

    yield seen
    http_handlers.ROUTES[:] = before


def exchange(doors, *parts: bytes, half_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
        for part in parts:
            stream.sendall(part)
        if half_close:
            stream.shutdown(socket.SHUT_WR)
        received = b""
        while data := stream.recv(65536):
            received += data
        return received


async def test_put_streams_its_body(doors, route):
    def client():
        session = login(doors)
        task = doors.json("task.create", session, "upload", "")["result"]
        head = f"PUT /test_stream/?session_id={session}&task_id={task} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
        answer = exchange(doors, head.encode(), b"abc", b"def")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nthanks")
        record = doors.json("task.get_record", session, task)["result"]
        assert (record["status"], record["progress"]) == ("success", 1.0)

    await doors.thread(client)
    assert b"".join(route[:-1]) == b"abcdef"


async def test_put_of_unknown_length_ends_with_the_connection(doors, route):
    def client():
        session = login(doors)
        head = f"PUT /test_stream?session_id={session} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 50}\r\n\r\n"
        assert b"200 OK" in exchange(doors, head.encode(), b"abc", half_close=True)

    await doors.thread(client)
    assert route == [b"abc", "end"]


async def test_put_of_unknown_length_is_answered_before_it_ends(doors, route):
    """The Node client cuts the connection only when it has seen the answer's head."""

    def client():
        session = login(doors)
        task = doors.json("task.create", session, "upload", "")["result"]
        head = put(f"/test_stream?session_id={session}&task_id={task}", f"Content-Length: {1 << 50}")
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(head + b"abc")
            assert stream.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            assert doors.json("task.get_status", session, task)["result"] == "pending"
        deadline = time.monotonic() + 120
        while doors.json("task.get_status", session, task)["result"] == "pending" and time.monotonic() < deadline:
            time.sleep(0.005)
        assert doors.json("task.get_status", session, task)["result"] == "success"

    await doors.thread(client)
    assert route == [b"abc", "end"]


async def test_put_of_unknown_length_may_end_by_a_reset(doors, route):
    def client():
        session = login(doors)
        head = put(f"/test_stream?session_id={session}", f"Content-Length: {1 << 50}")
        stream = socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.sendall(head + b"abc")
        return stream

    stream = await doors.thread(client)
    await until(lambda: b"abc" in route)
    stream.close()
    await until(lambda: route[-1] != b"abc")
    assert route == [b"abc", "end"]


async def test_put_that_is_cut_off_fails_its_task(doors, route):
    def client():
        session = login(doors)
        task = doors.json("task.create", session, "upload", "")["result"]
        head = f"PUT /test_stream?session_id={session}&task_id={task} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        exchange(doors, head.encode(), b"abc", half_close=True)
        record = doors.json("task.get_record", session, task)["result"]
        assert record["status"] == "failure"

    await doors.thread(client)
    assert route[-1] == "gone"


async def test_put_in_chunks(doors, route):
    def client():
        session = login(doors)
        head = put("/test_stream", f"Cookie: session_id={session}", "Transfer-Encoding: chunked")
        assert b"200 OK" in exchange(doors, head, b"3\r\nabc\r\n", b"0\r\n\r\n")

    await doors.thread(client)
    assert route == [b"abc", "end"]


async def test_client_that_waits_to_be_told_to_continue(doors, route):
    def client():
        session = login(doors)
        lines = ["Host: x", "Content-Length: 3", "Expect: 100-continue"]
        head = "\r\n".join([f"PUT /test_stream?session_id={session} HTTP/1.1", *lines, "", ""])
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(head.encode())
            assert stream.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            stream.sendall(b"abc")
            assert b"200 OK" in stream.recv(1000)

    await doors.thread(client)


async def test_get_streams_its_answer(doors, route):
    def client():
        session = login(doors)
        answer = exchange(doors, f"GET /test_stream?session_id={session} HTTP/1.0\r\n\r\n".encode())
        assert answer.count(b"x") >= 1_000_000

    await doors.thread(client)


async def test_connect_gives_a_raw_channel(doors, route):
    def client():
        session = login(doors)
        head = f"CONNECT /test_stream?session_id={session} HTTP/1.0\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(head + b"early")
            received = b""
            while not received.endswith(b"EARLY"):
                received += stream.recv(1000)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            stream.sendall(b"later")
            assert stream.recv(1000) == b"LATER"

    await doors.thread(client)


async def test_connect_over_tls(doors, route):
    def client():
        session = login(doors)
        with socket.create_connection(("127.0.0.1", doors.tls_port), timeout=120) as plain:
            stream = doors.pinned_context().wrap_socket(plain, server_hostname="127.0.0.1")
            stream.sendall(f"CONNECT /test_stream?session_id={session} HTTP/1.0\r\n\r\n".encode())
            assert stream.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            stream.sendall(b"abc")
            assert stream.recv(1000) == b"ABC"
            stream.close()

    await doors.thread(client)


async def test_takeover_on_a_connection_that_was_used_for_rpc(doors, route):
    def client():
        session = login(doors)
        body = b'{"method":"system.isAlive","params":[],"id":1}'
        with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
            stream.sendall(b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            received = b""
            while b'"result":true' not in received:
                received += stream.recv(10_000)
            stream.sendall(f"CONNECT /test_stream?session_id={session} HTTP/1.0\r\n\r\n".encode())
            assert stream.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")

    await doors.thread(client)


@pytest.mark.parametrize(
    ("query", "extra", "status"),
    [
        ("", "", b"401"),
        ("?session_id=OpaqueRef:none", "", b"401"),
        ("", "Authorization: Basic !!\r\n", b"400"),
        ("", "Authorization: Basic cm9vdDp3cm9uZw==\r\n", b"401"),
        ("", "Cookie: session_id=OpaqueRef%3Anone\r\n", b"401"),
    ],
)
async def test_strangers_are_refused(doors, route, query, extra, status):
    head = f"PUT /test_stream{query} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: 0\r\n\r\n"
    answer = await doors.thread(exchange, doors, head.encode())
    assert answer.split(b" ")[1] == status
    assert route == []


async def test_basic_password_opens_a_session_for_the_one_request(doors, route):
    head = put("/test_stream", "Authorization: Basic cm9vdDpjb3JyZWN0IGhvcnNl", "Content-Length: 0")
    answer = await doors.thread(exchange, doors, head)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not doors.db.all("session")


async def test_role_is_checked(doors, route):
    reader = doors.coordinator.api.sessions.begin("someone", "read-only").ref
    head = f"PUT /test_stream?session_id={reader} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    answer = await doors.thread(exchange, doors, head.encode())
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"RBAC_PERMISSION_DENIED" in answer
    assert route == []


async def test_unknown_task_is_refused(doors, route):
    def client():
        session = login(doors)
        head = put(f"/test_stream?session_id={session}&task_id=OpaqueRef:none", "Content-Length: 0")
        assert exchange(doors, head).startswith(b"HTTP/1.1 404")

    await doors.thread(client)


async def test_a_transfer_takes_only_a_task_that_is_its_users_and_free(doors, route):
    """It ends its task: neither another's, nor that of work under way, may be ended so."""
    api = doors.coordinator.api
    operator = api.sessions.begin("somebody", "vm-admin").ref

    def refused(session, task, why):
        head = put(f"/test_stream?session_id={session}&task_id={task}", "Content-Length: 0")
        answer = exchange(doors, head)
        assert not answer.startswith(b"HTTP/1.1 200")
        assert why in answer

    def client():
        session = login(doors)
        task = doors.json("task.create", session, "upload", "")["result"]
        refused(operator, task, b"RBAC_PERMISSION_DENIED")
        assert doors.json("task.get_status", session, task)["result"] == "pending"
        assert doors.json("task.get_status", session, work.ref)["result"] == "pending"
        refused(session, work.ref, b"OPERATION_NOT_ALLOWED The task belongs to work that is under way")
        assert doors.json("task.get_status", session, work.ref)["result"] == "pending"
        head = put(f"/test_stream?session_id={session}&task_id={task}", "Content-Length: 0")
        assert exchange(doors, head).startswith(b"HTTP/1.1 200")
        refused(session, task, b"OPERATION_NOT_ALLOWED The task has ended already")

    work = api.tasks.begin("Async.VM.start", "", "root")
    work.show()
    await doors.thread(client)


async def test_paths_that_are_nobodys(doors):
    def client():
        for method, status in (("GET", 404), ("PUT", 405), ("DELETE", 405)):
            connection = doors.http()
            connection.request(method, "/nobody")
            assert connection.getresponse().status == status
            connection.close()

    await doors.thread(client)
