"""A coordinator in this process, with its real doors: Unix socket, TLS, plain TCP. Clients run in threads."""

import asyncio
import http.client
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from gespann.main.coordinator import Coordinator, Settings
from gespann.pool.api.server import Address

PASSWORD = "correct horse"


@dataclass
class Doors:
    coordinator: Coordinator
    run: Path
    data: Path

    @property
    def tls_port(self) -> int:
        return self.coordinator.ports[0]

    @property
    def plain_port(self) -> int:
        return self.coordinator.ports[1]

    @property
    def db(self):
        return self.coordinator.pool.db

    def plain(self) -> XenAPI.Session:
        return XenAPI.Session(f"http://127.0.0.1:{self.plain_port}/")

    def tls(self) -> XenAPI.Session:
        return XenAPI.Session(f"https://127.0.0.1:{self.tls_port}/", ignore_ssl=True)

    def pinned_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=(self.data / "pool.pem").read_text())

    def unix(self) -> XenAPI.Session:
        path = str(self.run / "xapi")
        assert "_" not in path, "the SDK writes / as _"
        return XenAPI.Session(f"http://{path.replace('/', '_')}/", transport=XenAPI.UDSTransport())

    def logged_in(self) -> XenAPI.Session:
        session = self.plain()
        session.xenapi.login_with_password("root", PASSWORD, "1.0", "test")
        return session

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=120)

    def post(self, path: str, body: bytes | str, headers: dict[str, str] | None = None):
        """Status, headers, body of one request on a connection of its own."""
        connection = self.http()
        try:
            connection.request("POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method: str, *params: Any, **extra: Any) -> Any:
        request = {"jsonrpc": "2.0", "method": method, "params": list(params), "id": 1, **extra}
        _, _, body = self.post("/jsonrpc", json.dumps(request))
        return json.loads(body)

    async def thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)


@pytest.fixture
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    base = tmp_path_factory.mktemp("c", numbered=True)
    if "_" in str(base):  # see unix()
        base = Path(tempfile.mkdtemp(prefix="gespann-"))
    data, run = base / "data", base / "run"
    for directory in (data, run):
        directory.mkdir(parents=True, mode=0o700)
    password = base / "password"
    password.write_text(PASSWORD)
    loopback = Address("127.0.0.1", 0)
    settings = Settings(
        data=data, run=run, listen=(loopback,), plain=(loopback,), name_label="test", root_password_file=password
    )
    async with Coordinator(settings, drivers={}) as coordinator:
        db = coordinator.pool.db
        if not db.all("pool"):
            with db.transaction() as tx:
                host = tx.create("host", {"name_label": "test", "API_version_major": 2, "API_version_minor": 23})
                tx.create("pool", {"master": host, "name_label": "test"})
        yield Doors(coordinator, run, data)
