"""The doors: a Unix socket for this machine, TLS for everybody, plain TCP only if asked for."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvicorn

from gespann.pool.api import http_handlers
from gespann.pool.api.api import Api, CallerApi
from gespann.pool.api.caller import Caller
from gespann.pool.api.rpc import RpcApp
from gespann.pool.api.takeover import Service, protocol_class
from gespann.system.json_lines import bind_unix

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 120
CONNECTIONS_LIMIT = 2000
STOP_GRACE_S = 5
CLI_BODY_LIMIT_BYTES = 1024 * 1024
CLI_BODY_TIMEOUT_S = 30.0


class ServeCli(Protocol):
    """The thin CLI's command engine: given what a client sent, it talks to it until it closes."""

    async def __call__(
        self,
        api: Any,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        local_root: bool,
        originator: str,
    ) -> None: ...


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """``127.0.0.1:443``, ``[::1]:443``, ``:443`` for every address. ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"not ADDRESS:PORT: {text!r}")
        return cls(host.strip("[]") or "::", int(port))


class _Listener(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the process's own business


class ApiServer:
    """``cli``: who serves ``POST /cli``; none: that path is no door. ``streams``: whether images, consoles and figures
    have their doors."""

    def __init__(self, api: Api, *, cli: ServeCli | None = None, web: Path | None = None, streams: bool = True) -> None:
        self.api = api
        self._cli = cli
        self._streams = streams
        self.app = RpcApp(api, web)
        self._taken: set[asyncio.Task[None]] = set()
        self._listeners: list[tuple[_Listener, asyncio.Task[None]]] = []
        self._unix: list[Path] = []

    async def listen_unix(self, path: Path) -> None:
        await self._listen(bind_unix(path, 0o600), None)
        self._unix.append(path)

    async def listen_tcp(self, address: Address, context: ssl.SSLContext | None) -> int:
        """The port (chosen by the system if it was 0). Without context: plain."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.create_server((address.host, address.port), family=family, backlog=1024)
        # for the connections that it accepts: asyncio does so only for sockets that name their protocol, and without
        # it an answer written in two parts waits 40 ms for the client's delayed acknowledgement
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        port: int = sock.getsockname()[1]
        await self._listen(sock, context)
        return port

    async def stop(self) -> None:
        for listener, _ in self._listeners:
            listener.should_exit = True
        self.app.let_go()
        for task in list(self._taken):
            task.cancel()
        await asyncio.gather(*self._taken, return_exceptions=True)
        await asyncio.gather(*(task for _, task in self._listeners), return_exceptions=True)
        for path in self._unix:
            path.unlink(missing_ok=True)

    async def _listen(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            self.app,
            http=protocol_class(self.choose, self._taken),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whoever connects is who counts: no proxy stands before these doors
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_GRACE_S,
            limit_concurrency=CONNECTIONS_LIMIT,
            ssl_context_factory=(lambda *_: context) if context else None,
        )
        listener = _Listener(config)
        task = asyncio.create_task(listener.serve(sockets=[sock]))
        self._listeners.append((listener, task))
        while not listener.started:
            if task.done():
                task.result()
                raise RuntimeError("the server ended before it had begun")
            await asyncio.sleep(0.005)

    # -- what is not RPC

    def choose(self, method: str, path: str) -> Service | None:
        if method == "POST" and path == "/cli" and self._cli is not None:
            return self._serve_cli
        route = http_handlers.find_route(method, path)
        if route is None or not self._streams:
            return None
        return lambda head, reader, writer, caller: http_handlers.answer(self.api, route, head, reader, writer, caller)

    async def _serve_cli(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        assert self._cli is not None
        lines, _, body = head.partition(b"\r\n\r\n")
        length = _content_length(lines)
        if length is None or length > CLI_BODY_LIMIT_BYTES:
            writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            async with asyncio.timeout(CLI_BODY_TIMEOUT_S):
                if length > len(body):
                    body += await reader.readexactly(length - len(body))
        except (TimeoutError, asyncio.IncompleteReadError):
            return
        await self._cli(
            CallerApi(self.api, caller),
            body[:length],
            reader,
            writer,
            local_root=caller.local_root,
            originator=caller.originator,
        )


def _content_length(lines: bytes) -> int | None:
    for line in lines.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value) if value.strip().isdigit() and len(value) < 20 else None
    return 0
