"""``VM.import``: an archive that the coordinator fetches from a web server; here one on this machine."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import web_source
from tests.unit.pool.classes.test_pool_archives import contents, disks, export, make_vm
from tests.unit.pool.world import World, until

Page = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    """Answers each path as it is told to; remembers what it was asked."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def gives(self, path: str, body: bytes, length: int | None = None, head: str = "200 OK", more: str = "") -> None:
        async def page(writer: asyncio.StreamWriter) -> None:
            said = f"HTTP/1.1 {head}\r\nContent-Length: {len(body) if length is None else length}\r\n{more}\r\n"
            writer.write(said.encode() + body)
            await writer.drain()

        self.pages[path] = page

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            await self.pages[head.split(" ")[1]](writer)
        writer.close()


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebServer]:
    web = WebServer()
    server = await asyncio.start_server(web.answer, "127.0.0.1", 0, ssl=tls)
    web.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield web
    finally:
        server.close()


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with serving() as made:
        yield made


async def refused(world: World, url: str, sr: str = NULL_REF) -> XenApiError:
    """And nothing has happened."""
    before = world.snapshot()
    with pytest.raises(XenApiError) as error:
        await world.call("VM.import", url, sr, False, False)
    assert world.snapshot() == before
    assert world.work.journal.entries() == []
    assert world.openings() == []
    return error.value


async def test_an_archive_is_fetched(
    world: World, door: Path, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    sr, other = await world.make_sr(), await world.make_sr("other")
    vm = await make_vm(world, sr)
    web.gives("/web1.xva?a=b", await export(world, door, vm, "&use_compression=true"))
    url = f"{web.url}/web1.xva?a=b".replace("://", "://ad%40min:se%3Acret@")
    (made,) = await world.call("VM.import", url, other, False, False)
    assert contents(world, made) == contents(world, vm)
    assert {world.get("VDI", vdi)["SR"] for vdi in disks(world, made)} == {other}
    uuid = world.get("VM", vm)["uuid"]
    assert "Authorization: Basic YWRAbWluOnNlOmNyZXQ=\r\n" in web.asked[0]
    task = await world.call("Async.VM.import", url, sr, True, True)  # in place of the one it was
    await until(lambda: world.get("task", task)["status"] != "pending")
    assert world.get("task", task)["status"] == "success"
    assert world.db.by_uuid("VM", uuid) in world.get("task", task)["result"]
    for secret in ("se%3Acret", "se:cret", "YWRAbWluOnNlOmNyZXQ"):
        assert secret not in caplog.text
        assert secret not in str(world.db.all("task"))


async def test_redirections(world: World, door: Path, web: WebServer) -> None:
    """The password stays with the host that it was meant for."""
    sr = await world.make_sr()
    archive = await export(world, door, await make_vm(world, sr))
    web.gives("/here", b"", head="302 Found", more="Location: /there\r\n")
    async with serving() as other:
        web.gives("/there", b"", head="307 Temporary Redirect", more=f"Location: {other.url}/web1.xva\r\n")
        other.gives("/web1.xva", archive)
        await world.call("VM.import", f"{web.url}/here".replace("://", "://u:p@"), sr, False, False)
        assert ["Authorization" in head for head in (*web.asked, *other.asked)] == [True, True, False]
    web.gives("/round", b"", head="301 Moved", more="Location: /round\r\n")
    assert "leads on and on" in (await refused(world, f"{web.url}/round", sr)).params[0]
    web.gives("/file", b"", head="302 Found", more="Location: file:///etc/passwd\r\n")
    assert "only http and https are read" in (await refused(world, f"{web.url}/file", sr)).params[0]


@pytest.mark.parametrize(
    "url",
    [
        *("", "web1.xva", "file:///etc/passwd", "ftp://h/a", "http://", "http:///a", "http://h:0/", "http://h:99999/a"),
        *("http://h/a b", "http://h/a\r\nX: y", "http://[::1/a", "http://h\u00e4/", "gopher://u:secret@h/"),
    ],
)
async def test_what_is_no_url(world: World, url: str) -> None:
    error = await refused(world, url, await world.make_sr())
    assert (error.code, error.params[0]) == ("INVALID_VALUE", "url")
    assert "secret" not in str(error)


async def test_a_server_that_does_not_give_it(world: World, door: Path, web: WebServer) -> None:
    sr = await world.make_sr()
    archive = await export(world, door, await make_vm(world, sr))
    web.gives("/missing", b"no", head="404 Not Found")
    assert (await refused(world, f"{web.url}/missing", sr)).params == [f"{web.url} answers 404"]
    for end in (700, len(archive) // 2):
        web.gives("/short", archive[:end], length=len(archive))
        error = await refused(world, f"{web.url}/short", sr)
        assert (error.code, "ended too early" in error.params[0]) == ("IMPORT_ERROR", True)
    web.gives("/other", b"<html>" * 1000)
    assert (await refused(world, f"{web.url}/other", sr)).code == "IMPORT_ERROR"

    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ftp ready\r\n")

    web.pages["/nonsense"] = nonsense
    assert "does not answer as a web server" in (await refused(world, f"{web.url}/nonsense", sr)).params[0]
    assert "cannot be reached" in (await refused(world, "http://127.0.0.1:1/a", sr)).params[0]
    assert (await refused(world, f"{web.url}/missing")).code == "DEFAULT_SR_NOT_FOUND"


@pytest.mark.parametrize("sent", [0, 1_000_000])
async def test_cancelled_while_nothing_comes(world: World, door: Path, web: WebServer, sent: int) -> None:
    """Before the archive has said what is in it, and in the middle of a disk."""
    sr = await world.make_sr()
    archive = await export(world, door, await make_vm(world, sr))
    reached = asyncio.Event()

    async def page(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + archive[:sent])
        await writer.drain()
        reached.set()
        await asyncio.Event().wait()

    web.pages["/slow"] = page
    before = world.snapshot()
    task = await world.call("Async.VM.import", f"{web.url}/slow", sr, False, False)
    await reached.wait()
    if sent:
        await until(lambda: bool(world.openings()))
    await until(lambda: "cancel" in world.get("task", task)["allowed_operations"])
    await world.call("task.cancel", task)
    await until(lambda: world.get("task", task)["status"] == "cancelled")
    await until(lambda: world.work.journal.entries() == [])
    assert world.snapshot() == before


async def test_silence_ends_it(world: World, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.Event().wait()

    web.pages["/silent"] = page
    monkeypatch.setattr(web_source, "SILENCE_TIMEOUT_S", 0.2)
    assert "nothing came" in (await refused(world, f"{web.url}/silent", await world.make_sr())).params[0]


def certificate(directory: Path) -> Path:
    """Of 127.0.0.1, signed by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(days=1))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    path = directory / "web.pem"
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    return path


async def test_a_certificate_must_be_trusted(
    world: World, door: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sr, path = await world.make_sr(), certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    archive = await export(world, door, await make_vm(world, sr))
    async with serving(tls) as web, serving() as plain:
        web.gives("/web1.xva", archive)
        assert "is not trusted" in (await refused(world, f"{web.url}/web1.xva", sr)).params[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert len(await world.call("VM.import", f"{web.url}/web1.xva", sr, False, False)) == 1
        elsewhere = f"{web.url}/web1.xva".replace("127.0.0.1", "localhost")
        assert "is not trusted" in (await refused(world, elsewhere, sr)).params[0]
        web.gives("/down", b"", head="302 Found", more=f"Location: {plain.url}/web1.xva\r\n")
        assert "leads away from https" in (await refused(world, f"{web.url}/down", sr)).params[0]
