"""Nonsense at every door while a machine runs: it is refused, no process dies or complains of itself, and the machine
and those who ask go on."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable

import pytest

from tests.product.whole.life import HALTED, RUNNING, bring
from tests.product.whole.whole import AGENT, COORDINATOR, ENGINE, GROUP, Whole

pytestmark = pytest.mark.engine
LISTENS_S = 3.0  # to what comes back, before we hang up
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def post(body: bytes, path: bytes = b"/", **fields: str) -> bytes:
    shown = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (path, shown.encode(), len(body)) + body


def nonsense(chance: random.Random) -> list[bytes]:
    """For any door."""
    return [b"", b"\0", b"\xff" * 48, b"\r\n" * 5000, *(chance.randbytes(chance.randrange(1, 5000)) for _ in range(8))]


def bad_iscsi(chance: random.Random) -> list[bytes]:
    """PDUs of every opcode with lengths that lie, and logins that are none (RFC 7143 section 11)."""
    pdus = []
    for opcode in range(64):
        length = chance.choice([0, 1, 0xFFFFFF, chance.randrange(0xFFFFFF)])
        header = bytes([opcode | 0x40, 0x87, 0, 0, chance.choice([0, 255])]) + length.to_bytes(3, "big")
        pdus.append(header + chance.randbytes(40 + chance.randrange(400)))
    text = b"InitiatorName=\0\0=\0TargetName" + b"=" * 8000
    pdus.append(bytes([0x43, 0x87, 0, 0, 0]) + len(text).to_bytes(3, "big") + bytes(40) + text)
    return pdus


def bad_rpc() -> list[bytes]:
    entities = (
        b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;&b;">]><methodCall><methodName>&d;</methodName></methodCall>'
    )
    call = b"<methodCall><methodName>%b</methodName><params>%b</params></methodCall>"
    deep = b"<param><value>" + b"<array><data><value>" * 5000
    return [
        post(b"<methodCall>", content_type="text/xml"),
        post(entities, content_type="text/xml"),
        post(call % (b"VM.get_all", deep), content_type="text/xml"),
        post(call % (b"../../etc/passwd", b""), content_type="text/xml"),
        post(b"[" * 100_000, b"/jsonrpc", content_type="application/json"),
        post(b'{"jsonrpc": "2.0", "method": 7, "params": {}, "id": []}', b"/jsonrpc"),
        post(b"\xff\xfe{}", b"/jsonrpc"),
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"GET /../../../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
        post(b"help\n" * 3, b"/cli") + b"\xff" * 500,
        post(b"\xff\0\xff", b"/cli"),
        b"PUT /import_raw_vdi?vdi=x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc",
    ]


async def throw(connect: Callable[[], Awaitable[Connection]], data: bytes) -> None:
    """How the other end takes it is its own business; that it does not wait for us for ever is ours."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        reader, writer = await connect()
        try:
            async with asyncio.timeout(LISTENS_S):
                writer.write(data)
                await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
                await reader.read()
        finally:
            writer.transport.abort()


async def test_everything_goes_on(whole: Whole) -> None:
    await whole.make_template()
    await bring(whole, RUNNING)
    await whole.settled()
    names = (ENGINE, GROUP, COORDINATOR, AGENT)
    pids = [await whole.pid(name) for name in names]
    sizes = {name: len(whole.log(name)) for name in names[1:]}
    chance = random.Random(7)
    no_check = ssl.create_default_context()
    no_check.check_hostname, no_check.verify_mode = False, ssl.CERT_NONE
    doors: list[tuple[Callable[[], Awaitable[Connection]], list[bytes]]] = [
        (lambda: asyncio.open_connection(whole.address, 3260), bad_iscsi(chance)),
        (lambda: asyncio.open_connection("127.0.0.1", whole.group.ssh_port), [b"SSH-2.0-x\r\n" + b"\xff" * 4000]),
        (lambda: asyncio.open_connection("127.0.0.1", whole.tls_port), [b"\x16\x03\x01\xff\xff" + b"\xff" * 4000]),
        (lambda: asyncio.open_connection("127.0.0.1", whole.tls_port, ssl=no_check), bad_rpc()),
        (lambda: asyncio.open_unix_connection(whole.base / "c/xapi"), bad_rpc()),
    ]
    for connect, special in doors:
        thrown = [*nonsense(chance), *special]
        for at in range(0, len(thrown), 16):
            await asyncio.gather(*(throw(connect, data) for data in thrown[at : at + 16]))
        assert await whole.xe("vm-list name-label=web1 params=power-state --minimal") == RUNNING
    assert [await whole.pid(name) for name in names] == pids
    await whole.settled("nonsense")
    for name, size in sizes.items():
        assert "Traceback" not in whole.log(name)[size:]
    over_tls = f"nossl=false -p {whole.tls_port} -u root"
    password = (whole.base / "cd/root.password").read_text().strip()
    listed = await whole.try_xe(f"vm-list name-label=web1 params=power-state --minimal {over_tls} -pw {password}")
    assert (listed.stdout, listed.status) == (f"{RUNNING}\n", 0)
    await bring(whole, HALTED)
    await bring(whole, RUNNING)
    await whole.settled("another start")
