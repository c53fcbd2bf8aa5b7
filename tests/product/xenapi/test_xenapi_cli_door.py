"""``xe``, the real client, at the coordinator's doors: its protocol has no HTTP answer."""

import os
import socket
import subprocess
from pathlib import Path

from tests.product.xenapi.conftest import PASSWORD

XE = Path(__file__).resolve().parents[3] / "bin/xe"


def xe(doors, *words: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "GESPANN_XAPI_SOCKET": str(doors.run / "xapi"), "XE_EXTRA_ARGS": ""}
    return subprocess.run([XE, *words], env=env, capture_output=True, text=True, timeout=120)


def remote(doors, password: str, *words: str) -> subprocess.CompletedProcess:
    server = ("-s", "127.0.0.1", "-p", str(doors.plain_port), "--nossl", "-u", "root", "-pw", password)
    return xe(doors, *server, *words)


async def test_root_of_this_machine_through_the_unix_socket(doors):
    (pool,) = doors.db.all("pool").values()
    listed = await doors.thread(xe, doors, "pool-list", "--minimal")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, f"{pool['uuid']}\n", "")
    changed = await doors.thread(xe, doors, "pool-param-set", f"uuid={pool['uuid']}", "name-label=päivä")
    assert changed.returncode == 0, changed.stderr
    (pool,) = doors.db.all("pool").values()
    assert pool["name_label"] == "päivä"
    assert not doors.db.all("session")


async def test_password_over_tcp(doors):
    (pool,) = doors.db.all("pool").values()
    right = await doors.thread(remote, doors, PASSWORD, "pool-list", "--minimal")
    assert (right.returncode, right.stdout) == (0, f"{pool['uuid']}\n")
    wrong = await doors.thread(remote, doors, "wrong", "pool-list", "--minimal")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "Authentication failed" in wrong.stderr


async def test_bodies_that_never_come_or_are_too_long(doors):
    def client():
        for length, expected in (("10", b""), ("99999999999", b"413"), ("x", b"413")):
            with socket.create_connection(("127.0.0.1", doors.plain_port), timeout=120) as stream:
                stream.sendall(f"POST /cli HTTP/1.0\r\ncontent-length: {length}\r\n\r\nabc".encode())
                stream.shutdown(socket.SHUT_WR)
                received = b""
                while data := stream.recv(1000):
                    received += data
            assert expected in received

    await doors.thread(client)
