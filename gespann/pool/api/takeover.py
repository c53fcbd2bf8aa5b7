"""Connections that stop being ordinary HTTP: taken over from uvicorn before it looks at them.

At each place where a request may begin, its head is gathered first. If its method and path are another's (the thin
CLI, whose answer has no HTTP head; CONNECT; streams), the transport gets a new protocol, and uvicorn never sees it.
Otherwise all bytes go on to uvicorn as they came.

    head ──complete, ours──────► taken over for good
      └────complete, not ours──► body (uvicorn) ──its answer sent──► head
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gespann.pool.api.caller import Caller

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0
READ_LIMIT_BYTES = 1024 * 1024

#: (head with what came after it, reader, writer, caller)
Service = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter, Caller], Awaitable[None]]
#: (method, path) -> who takes the connection, or None
Chooser = Callable[[str, str], Service | None]


def protocol_class(choose: Chooser, taken: set[asyncio.Task[None]]) -> "type[TakeoverProtocol]":
    """What ``uvicorn.Config(http=...)`` wants. ``taken`` holds the services that run."""
    return type("BoundTakeoverProtocol", (TakeoverProtocol,), {"chooser": staticmethod(choose), "taken": taken})


class TakeoverProtocol(HttpToolsProtocol):
    chooser: Chooser
    taken: set[asyncio.Task[None]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = bytearray()
        self._in_head = True
        self._taken_over = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "local_root": is_local_root(transport)}
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_head:
            super().data_received(data)
            return
        self._unset_keepalive_if_required()
        self._arm()
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= HEAD_LIMIT_BYTES:
            return
        self._disarm()
        gathered, self._head = bytes(self._head), bytearray()
        if not 0 <= end <= HEAD_LIMIT_BYTES:
            self.send_400_response("Head too large.")
            return
        service = self._choose(gathered)
        if service is not None:
            self._take_over(service, gathered)
            return
        self._in_head = False
        super().data_received(gathered)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # a request that was sent before this answer is in uvicorn's queue, and uvicorn's
        if not self.pipeline and self.cycle.response_complete and not self.cycle.more_body:
            self._in_head = True

    def _choose(self, gathered: bytes) -> Service | None:
        words = gathered.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            return None
        method, target = words[0].decode("latin-1"), words[1].decode("latin-1")
        return self.chooser(method, target.partition("?")[0])

    def _take_over(self, service: Service, gathered: bytes) -> None:
        self.connections.discard(self)
        caller = Caller(self.client[0] if self.client else "", self.app_state["local_root"], _originator(gathered))
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
        transport = self.transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        writer = asyncio.StreamWriter(transport, protocol, reader, self.loop)
        task = self.loop.create_task(_serve(service, gathered, reader, writer, caller))
        self.taken.add(task)
        task.add_done_callback(self.taken.discard)

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


async def _serve(
    service: Service, gathered: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
) -> None:
    try:
        await service(gathered, reader, writer, caller)
    except ConnectionError:
        pass
    except Exception:
        log.exception("a connection's service failed")
    finally:
        writer.close()


def _originator(head: bytes) -> str:
    for line in head.split(b"\r\n\r\n", 1)[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"originator":
            return value.strip().decode("latin-1")[:256]
    return ""


def is_local_root(transport: asyncio.BaseTransport) -> bool:
    """Whether the far end is a process of root of this machine, or of the user that this process runs as."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return False
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
