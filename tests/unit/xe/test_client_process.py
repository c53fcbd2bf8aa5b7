"""The thin client as users run it."""

import asyncio
import datetime
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.own_nets import free_port
from tests.unit.xe.fake_xenapi import PASSWORD, USER
from tests.unit.xe.worlds import small_pool
from tests.unit.xe.xe_process import ROOT, Door, run_xe, run_xe_on_bytes, server_tls

DISK = "00000000-0000-4000-8000-000000000015"
LOGIN = ("-u", USER, "-pw", PASSWORD)


@pytest.fixture
def door() -> Door:
    return Door(small_pool(), local_root=True)


@pytest.fixture
async def unix(door: Door, tmp_path: Path) -> AsyncIterator[str]:
    path = tmp_path / "xapi"
    server = await asyncio.start_unix_server(door, path)
    async with server:
        yield str(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


async def test_over_the_unix_socket_without_a_password(unix: str, home: Path, door: Door) -> None:
    ended = await run_xe(home, "vm-list", "params=name-label", "--minimal", GESPANN_XAPI_SOCKET=unix)
    assert (ended.stdout, ended.stderr, ended.status) == ("web1,db1\n", "", 0)
    assert door.requests[0].startswith(b"POST /cli HTTP/1.0\r\nUser-agent: xe-cli/Unix/0.2\r\noriginator: cli\r\n")


async def test_help_with_what_every_client_adds(unix: str, home: Path) -> None:
    ended = await run_xe(home, "help", "--minimal", "--all", GESPANN_XAPI_SOCKET=unix)
    assert ended.stdout.startswith("appliance-create,appliance-destroy,")
    assert ended.stdout.count(",") > 400
    ended = await run_xe(home, "help", "vm-start", GESPANN_XAPI_SOCKET=unix)
    assert ended.stdout.startswith("command name            : vm-start\n        reqd params     : \n")


async def test_errors_go_to_stderr_with_status_1(unix: str, home: Path) -> None:
    ended = await run_xe(home, "vm-start", "vm=nobody", GESPANN_XAPI_SOCKET=unix)
    assert (ended.stdout, ended.stderr, ended.status) == ("", "Error: No matching VMs found\n", 1)
    ended = await run_xe(home, "sr-create", "name-label=x", "type=equal", "shared=true", GESPANN_XAPI_SOCKET=unix)
    assert ended.stderr.startswith("Error code: SR_BACKEND_FAILURE_163\nError parameters: , Equallogic")


async def test_prompts_read_a_line(unix: str, home: Path) -> None:
    ended = await run_xe(home, "vm-uninstall", "vm=web1", typed="no\n", GESPANN_XAPI_SOCKET=unix)
    assert ended.stdout.endswith("Type 'yes' to continue\nAborted (you typed: 'no')\n")
    assert ended.status == 0
    ended = await run_xe(home, "vm-uninstall", "vm=web1", GESPANN_XAPI_SOCKET=unix)  # stdin ends at once
    assert ended.stdout.endswith("Aborted (you typed: '')\n")
    ended = await run_xe(home, "vm-uninstall", "vm=web1", typed="yes\n", GESPANN_XAPI_SOCKET=unix)
    assert ended.stdout.endswith("All objects destroyed\n")


async def test_usage_goes_to_stderr_with_status_0(home: Path) -> None:
    for words in ([], ["--help"]):
        ended = await run_xe(home, *words)
        assert ended.stderr.startswith("Usage:")
        assert (ended.stdout, ended.status) == ("", 0)


async def test_nobody_there(home: Path, tmp_path: Path) -> None:
    ended = await run_xe(home, "vm-list", GESPANN_XAPI_SOCKET=str(tmp_path / "none"))
    assert ended.stderr.startswith("Error: No such file or directory (calling connect ")
    ended = await run_xe(home, "vm-list", "-p", str(free_port()))
    assert (ended.stderr, ended.status) == ("Error: Connection refused (calling connect )\n", 1)


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_something_else_answers(home: Path, tmp_path: Path) -> None:
    async with await asyncio.start_unix_server(_answers, tmp_path / "web"):
        ended = await run_xe(home, "vm-list", GESPANN_XAPI_SOCKET=str(tmp_path / "web"))
    assert ended.stderr.startswith(
        "Failed to contact a running management agent.\nTry specifying a server name and port."
    )
    assert ended.status == 1


async def test_output_that_nobody_reads(unix: str, home: Path) -> None:
    """As in ``xe vm-list | true``."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(str(ROOT / "bin/xe"), "vm-list"),
        env={"HOME": str(home), "GESPANN_XAPI_SOCKET": unix},
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_files_are_sent_only_if_named(unix: str, home: Path, tmp_path: Path, door: Door) -> None:
    (tmp_path / "pool").write_text("default")
    words = ("sr-create", "name-label=x", "type=equal", "shared=true", "--minimal")
    named = f"device-config-filename:storagepool={tmp_path / 'pool'}"
    ended = await run_xe(home, *words, named, GESPANN_XAPI_SOCKET=unix)
    assert (ended.stderr, ended.status) == ("", 0)
    assert any(pbd["device_config"] == {"storagepool": "default"} for pbd in door.api.db["PBD"].values())


async def _greedy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that asks for a file that nobody named."""
    await reader.readuntil(b"\r\n\r\n")
    greeting = b"XenSource thin CLI protocol\0\0\0\0\x02\0\0\0"
    path = b"/etc/passwd"
    load = b"\x09\0\0\0\x01\0\0\0" + len(path).to_bytes(4, "little") + path
    writer.write(greeting + len(load).to_bytes(4, "little") + load)
    await reader.readuntil(b"\x0a\0\0\0\x06\0\0\0")  # Response Failed
    writer.write(b"\x0c\0\0\0\x09\0\0\0\x04\0\0\0\x07\0\0\0")
    writer.close()


async def test_a_greedy_server_gets_nothing(home: Path, tmp_path: Path) -> None:
    async with await asyncio.start_unix_server(_greedy, tmp_path / "greedy"):
        ended = await run_xe(home, "vm-list", GESPANN_XAPI_SOCKET=str(tmp_path / "greedy"))
    assert (ended.stderr, ended.status) == ("File not permitted: /etc/passwd\n", 7)


async def test_disks_to_and_from_files(unix: str, home: Path, tmp_path: Path, door: Door) -> None:
    door.files["/export_raw_vdi"] = bytes(range(256)) * 100
    out = tmp_path / "disk.raw"
    ended = await run_xe(home, "vdi-export", f"uuid={DISK}", f"filename={out}", GESPANN_XAPI_SOCKET=unix)
    assert (ended.stdout, ended.stderr, ended.status) == ("", "", 0)
    assert out.read_bytes() == door.files["/export_raw_vdi"]
    ended = await run_xe(home, "vdi-import", f"uuid={DISK}", f"filename={out}", GESPANN_XAPI_SOCKET=unix)
    assert (ended.stdout, ended.stderr, ended.status) == ("", "", 0)
    assert door.files["/import_raw_vdi"] == out.read_bytes()
    assert f"vdi={DISK}&format=raw" in door.puts[0]
    ended = await run_xe(home, "vdi-export", f"uuid={DISK}", f"filename={out}", GESPANN_XAPI_SOCKET=unix)
    assert "exists already" in ended.stderr
    assert ended.status == 1
    assert out.stat().st_size == 25600


async def test_disks_through_pipes(unix: str, home: Path, door: Door) -> None:
    """As in ``xe vdi-export ... filename= | gzip`` and ``gunzip | xe vdi-import ... filename=/dev/stdin``."""
    data = bytes(range(256)) * 100
    door.files["/export_raw_vdi"] = data
    sent = await run_xe_on_bytes(home, "vdi-export", f"uuid={DISK}", "filename=", GESPANN_XAPI_SOCKET=unix)
    assert sent == (data, "", 0)
    words = ("vdi-import", f"uuid={DISK}", "filename=/dev/stdin")
    for stream in (data * 100, b""):
        assert await run_xe_on_bytes(home, *words, typed=stream, GESPANN_XAPI_SOCKET=unix) == (b"", "", 0)
        assert door.files["/import_raw_vdi"] == stream


async def test_an_argument_with_a_line_break(unix: str, home: Path, door: Door) -> None:
    """On the wire it would be two, and the second one an order that nobody gave."""
    ended = await run_xe(home, "vm-param-set", "uuid=x", "name-label=a\nforce=true", GESPANN_XAPI_SOCKET=unix)
    assert (ended.stderr, ended.status) == ("Error: an argument cannot contain a line break: name-label\n", 1)
    assert not door.requests


async def test_a_refused_transfer_leaves_no_file(unix: str, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "disk.raw"
    ended = await run_xe(home, "vdi-export", f"uuid={DISK}", f"filename={out}", GESPANN_XAPI_SOCKET=unix)
    assert ended.stderr.startswith(f"{out} could not be received: the server answers 404\nError code: CLIENT_ERROR\n")
    assert not out.exists()


async def test_an_export_that_fails_at_its_end_leaves_no_file(
    unix: str, home: Path, tmp_path: Path, door: Door
) -> None:
    """On a Unix socket, an answer that was broken off cannot be told from a whole one: only the task knows."""
    door.files["/export_raw_vdi"], door.fails = bytes(100), ["SR_BACKEND_FAILURE_46", "", "cannot be read", ""]
    out = tmp_path / "disk.raw"
    ended = await run_xe(home, "vdi-export", f"uuid={DISK}", f"filename={out}", GESPANN_XAPI_SOCKET=unix)
    assert (ended.status, "SR_BACKEND_FAILURE_46" in ended.stderr) == (1, True), ended
    assert not out.exists()


async def test_a_console(unix: str, home: Path, door: Door) -> None:
    door.files["/console"] = b"Debian login: "
    ended = await run_xe(home, "console", "vm=db1", typed="\x1d", GESPANN_XAPI_SOCKET=unix)
    assert ended.status == 0
    ended = await run_xe(home, "console", "vm=db1", typed="", GESPANN_XAPI_SOCKET=unix)
    assert door.requests[-1].startswith(b"CONNECT /console?uuid=1&session_id=OpaqueRef:local HTTP/1.0\r\n")


async def test_a_password_file(unix: str, home: Path, door: Door, tmp_path: Path) -> None:
    door.local_root = False
    (tmp_path / "pw").write_text(f"{USER}\n{PASSWORD}\n")
    ended = await run_xe(home, "vm-list", "--minimal", "-pwf", str(tmp_path / "pw"), GESPANN_XAPI_SOCKET=unix)
    assert (ended.stderr, ended.status) == ("", 0)
    ended = await run_xe(home, "vm-list", "-pwf", str(tmp_path / "none"), GESPANN_XAPI_SOCKET=unix)
    assert ended.stderr == f"Error: {tmp_path / 'none'}: No such file or directory\n"


async def _stays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_no_secret_is_in_the_process_list(home: Path, tmp_path: Path) -> None:
    async with await asyncio.start_unix_server(_stays, tmp_path / "xapi"):
        process = await asyncio.create_subprocess_exec(
            *(str(ROOT / "bin/xe"), "sr-create", "-u", "root", "-pw", "hush1", "device-config:password=hush2"),
            env={"HOME": str(home), "GESPANN_XAPI_SOCKET": str(tmp_path / "xapi")},
            stdin=asyncio.subprocess.DEVNULL,
        )
        shown = b""
        async with asyncio.timeout(120):
            while b"*" not in shown:
                shown = await asyncio.to_thread(Path(f"/proc/{process.pid}/cmdline").read_bytes)
        process.kill()
        await process.wait()
    assert b"hush" not in shown
    assert shown.endswith(b"sr-create\0-u\0root\0-pw\0*\0device-config:password=*\0")


async def test_secrets_arrive_all_the_same(unix: str, home: Path, door: Door) -> None:
    door.local_root = False
    words = ("secret-create", "value=hush hush", "-u", USER, "-pw", PASSWORD)
    assert (await run_xe(home, *words, GESPANN_XAPI_SOCKET=unix)).status == 0
    assert [secret["value"] for secret in door.api.db["secret"].values()] == ["hush hush"]


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for 127.0.0.2, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 50))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.2"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@asynccontextmanager
async def tls_door(door: Door, certificate: Path, key: Path, host: str, port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(door, host, port, ssl=server_tls(certificate, key))
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_first_certificate_is_remembered_and_another_refused(home: Path, tmp_path: Path, door: Door) -> None:
    door.local_root = False
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    words = ("vm-list", "--minimal", "-s", "127.0.0.2", *LOGIN)
    async with tls_door(door, *first, "127.0.0.2") as port:
        ended = await run_xe(home, *words, "-p", str(port))
        assert ended.status == 0
        assert ended.stderr.startswith(f"First connection to 127.0.0.2:{port}: its certificate sha256:")
        assert ended.stderr.count("\n") == 1
        known = home / ".config/gespann/known_pools"
        assert known.stat().st_mode & 0o777 == 0o600
        assert (await run_xe(home, *words, "-p", str(port))).stderr == ""
    requests = len(door.requests)
    async with tls_door(door, *second, "127.0.0.2", port):
        ended = await run_xe(home, *words, "-p", str(port))
    assert ended.status == 1
    assert ended.stderr.startswith(f"Error: The certificate of 127.0.0.2:{port} has changed")
    assert len(door.requests) == requests, "the password must not be sent to a stranger"


async def test_a_certificate_from_a_file(home: Path, tmp_path: Path, door: Door) -> None:
    door.local_root = False
    mine, other = make_certificate(tmp_path, "mine"), make_certificate(tmp_path, "other")
    words = ("vm-list", "--minimal", *LOGIN)
    async with tls_door(door, *mine, "127.0.0.2") as port:
        at = (*words, "-s", "127.0.0.2", "-p", str(port))
        assert (await run_xe(home, *at, GESPANN_CA=str(mine[0]))).status == 0
        ended = await run_xe(home, *at, GESPANN_CA=str(other[0]))
        assert ended.stderr.startswith("Error: The certificate of 127.0.0.2 is not one that")
        ended = await run_xe(home, *at, GESPANN_CA=str(tmp_path / "none"))
        assert "cannot be read" in ended.stderr
    async with tls_door(door, *mine, "127.0.0.3") as port:  # a name that it was not made for, but the very certificate
        at = (*words, "-s", "127.0.0.3", "-p", str(port))
        assert (await run_xe(home, *at, GESPANN_CA=str(mine[0]))).status == 0
        (home / ".xe").write_text(f"ca={other[0]}\n")
        assert (await run_xe(home, *at)).status == 1
    assert not (home / ".config").exists()


HEAVY = {
    *("asyncio", "dataclasses", "getpass", "hashlib", "http", "inspect", "json", "logging", "msgspec", "pathlib"),
    *("re", "ssl", "subprocess", "tempfile", "termios", "typing", "urllib"),
}


async def test_a_command_imports_nothing_heavy(unix: str, home: Path) -> None:
    """Start-up time is import time: the modules loaded after a whole command are counted, not seconds."""
    code = (
        "import sys; sys.path[0] = sys.argv.pop(1)\n"
        "from gespann.main.xe import main\n"
        "status = main()\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *("/usr/bin/python3", "-SE", "-c", code, str(ROOT), "vm-list", "--minimal"),
        env={"HOME": str(home), "GESPANN_XAPI_SOCKET": unix},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.startswith(b"0000")
    loaded = set(err.decode().split())
    assert "gespann.xe.client.session" in loaded
    assert not loaded & HEAVY
    assert not [name for name in loaded if name.startswith(("gespann.seams", "gespann.system"))]
