"""Consoles in browsers: RFB and serial lines inside a WebSocket, by a library that others wrote."""

import http.client
import socket
import ssl
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from gespann.host.fake.consoles import GREETING, RFB_VERSION
from tests.product.clients.served_pool import ServedPool

LIMIT_S = 180.0


@pytest.fixture(scope="module")
def vm(pool: ServedPool) -> Iterator[str]:
    ref = pool.make_vm("seen")
    pool.call("VM.start", ref, False, False)
    yield ref
    pool.call("VM.hard_shutdown", ref)


def console(pool: ServedPool, vm: str, protocol: str) -> dict[str, str]:
    consoles = [pool.get("console", ref) for ref in pool.get("VM", vm)["consoles"]]
    (found,) = (record for record in consoles if record["protocol"] == protocol)
    return found


def web_socket(pool: ServedPool, target: str, **options) -> ClientConnection:
    context = ssl.create_default_context(cafile=pool.certificate)
    options = {"ssl": context, "open_timeout": LIMIT_S, "close_timeout": LIMIT_S, "proxy": None, **options}
    return connect(f"wss://{pool.address}{target}", **options)


def test_screen_as_consoles_in_browsers_open_it(pool: ServedPool, vm: str) -> None:
    """The address is the console's own, with another scheme and the session."""
    location = console(pool, vm, "rfb")["location"]
    assert location.startswith(f"{pool.url}/console?")
    target = location.removeprefix(pool.url) + f"&session_id={pool.session}"
    with web_socket(pool, target, subprotocols=[Subprotocol("binary")]) as screen:
        assert screen.subprotocol == "binary"
        assert screen.recv(LIMIT_S) == RFB_VERSION
        screen.send(b"RFB 003.008\n")
        assert screen.recv(LIMIT_S) == b"RFB 003.008\n"  # the fake machine echoes
        screen.ping().wait(LIMIT_S)


def test_session_as_a_cookie_from_a_page_of_the_pool(pool: ServedPool, vm: str) -> None:
    target = f"/console?uuid={console(pool, vm, 'vt100')['uuid']}"
    cookie = {"Cookie": f"session_id={pool.session}"}
    with web_socket(pool, target, additional_headers=cookie, origin=Origin(pool.url)) as line:
        received = b""
        while len(received) < len(GREETING):
            received += line.recv(LIMIT_S)
        assert received == GREETING
        line.send([b"in ", b"pieces"])  # one message in several frames
        while not received.endswith(b"in pieces"):
            received += line.recv(LIMIT_S)


def test_pages_of_others_cannot_use_the_cookie(pool: ServedPool, vm: str) -> None:
    target = f"/console?uuid={console(pool, vm, 'rfb')['uuid']}"
    cookie = {"Cookie": f"session_id={pool.session}"}
    with pytest.raises(InvalidStatus) as caught:
        web_socket(pool, target, additional_headers=cookie, origin=Origin("https://elsewhere.example"))
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    ("query", "status"), [("", 401), ("&session_id=OpaqueRef:none", 401), ("&ref=OpaqueRef:none&session_id=", 404)]
)
def test_strangers_and_consoles_that_are_not(pool: ServedPool, vm: str, query: str, status: int) -> None:
    if query.endswith("="):
        query += pool.session
    with pytest.raises(InvalidStatus) as caught:
        web_socket(pool, f"/console?uuid={console(pool, vm, 'rfb')['uuid']}{query}")
    assert caught.value.response.status_code == status


def test_machine_that_stops_closes_the_web_socket(pool: ServedPool) -> None:
    vm = pool.make_vm("seen to its end")
    pool.call("VM.start", vm, False, False)
    target = f"/console?uuid={console(pool, vm, 'rfb')['uuid']}&session_id={pool.session}"
    with web_socket(pool, target) as screen:
        assert screen.recv(LIMIT_S) == RFB_VERSION
        pool.call("VM.hard_shutdown", vm)
        with pytest.raises(ConnectionClosedOK):
            screen.recv(LIMIT_S)
    with pytest.raises(InvalidStatus):
        web_socket(pool, target)


def send_too_much(screen: ClientConnection) -> None:
    """More than any console sends at once; the refusal may be seen while it is still being sent."""
    screen.send(b"x" * 2 * 1024 * 1024)
    screen.recv(LIMIT_S)


def test_large_messages_both_ways(pool: ServedPool, vm: str) -> None:
    target = f"/console?uuid={console(pool, vm, 'rfb')['uuid']}&session_id={pool.session}"
    sent = bytes(range(256)) * 1000
    with web_socket(pool, target) as screen:
        received = screen.recv(LIMIT_S)
        screen.send(sent)
        while len(received) < len(RFB_VERSION) + len(sent):
            received += screen.recv(LIMIT_S)
        assert received == RFB_VERSION + sent
        with pytest.raises(ConnectionClosed):
            send_too_much(screen)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "websocket"}, 426),
        (
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"},
            400,
        ),
    ],
)
def test_what_is_no_handshake(pool: ServedPool, vm: str, headers: dict[str, str], status: int) -> None:
    plain = http.client.HTTPConnection(pool.address, 80, timeout=LIMIT_S)
    uuid = console(pool, vm, "rfb")["uuid"]
    plain.request("GET", f"/console?uuid={uuid}&session_id={pool.session}", headers=headers)
    assert plain.getresponse().status == status
    plain.close()


def test_garbage_after_the_handshake_harms_nobody_else(pool: ServedPool, vm: str) -> None:
    uuid = console(pool, vm, "rfb")["uuid"]
    lines = ["Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    head = "\r\n".join([f"GET /console?uuid={uuid}&session_id={pool.session} HTTP/1.1", *lines, "", ""])
    with socket.create_connection((pool.address, 80), timeout=LIMIT_S) as stream:
        stream.sendall(head.encode() + b"\xff" * 1000)
        received = b""
        while data := stream.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 101 ")
    with web_socket(pool, f"/console?uuid={uuid}&session_id={pool.session}") as screen:
        assert screen.recv(LIMIT_S) == RFB_VERSION
