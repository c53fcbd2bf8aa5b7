"""Both ends of the line format that seams 4 and 5 speak (``seams.json_lines``), on a Unix socket.

client = JsonLinesClient(path, hello=Hello(version=1), events=EVENTS, on_event=tell)
reply = await client.call(VolumeList())          # SeamError: refused; SeamLost: no answer, effect unknown

server = JsonLinesServer(path, {Hello: hello})   # async def hello(request: Hello) -> HelloReply
await server.start()
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gespann.seams.engine_socket import Request
from gespann.seams.host_agent import Event
from gespann.seams.json_lines import LINE_LIMIT_BYTES, SeamError, SeamLost

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]  # OSError, TimeoutError
Handler = Callable[[Any], Awaitable[msgspec.Struct]]

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0
HELLO_WITHIN_S = 10.0  # nothing has to be done for it: a peer that needs longer hangs
IN_FLIGHT_LIMIT = 256  # requests of one connection that a server works on at a time; the rest wait in the socket
IN_FLIGHT_MOST = IN_FLIGHT_LIMIT - 8  # that a client asks at a time, so that a greeting never waits for slow work


class _Refusal(msgspec.Struct):
    code: str
    message: str = ""


class _ServerLine(msgspec.Struct):
    """What a client may read: an answer, a refusal or an event."""

    id: int | None = None
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: _Refusal | None = None
    event: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _RequestLine(msgspec.Struct):
    id: int
    op: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


def encode_line(line: Mapping[str, Any]) -> bytes:
    """One line with its newline. SeamError BAD_REQUEST if it would be longer than the format allows."""
    data = msgspec.json.encode(line) + b"\n"
    if len(data) > LINE_LIMIT_BYTES:
        raise SeamError("BAD_REQUEST", f"line of {len(data)} bytes; the limit is {LINE_LIMIT_BYTES}")
    return data


@dataclass(frozen=True)
class Watch:
    """How a client notices a peer that hangs: who has been heard of nothing for ``every_s`` is greeted, and has to
    answer the greeting, or anything else, ``within_s``."""

    every_s: float
    within_s: float


class _Connection:
    """One connected socket of a client, with the calls that wait on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.waiting: dict[int, tuple[type, asyncio.Future[Any]]] = {}
        self.next_id = 1
        self.lost: str | None = None
        self.heard = True  # something came since this was last looked at
        self._turns = asyncio.Semaphore(IN_FLIGHT_MOST)

    async def call(self, request: Request, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                await self._turns.acquire()
        except TimeoutError:
            raise SeamLost(f"{request.op}: {IN_FLIGHT_MOST} others for {timeout_s:g} s") from None
        try:
            return await self.call_now(request, timeout_s)
        finally:
            self._turns.release()

    async def call_now(self, request: Request, timeout_s: float) -> Any:
        """However much is under way."""
        if self.lost is not None:
            raise SeamLost(self.lost)
        call_id = self.next_id
        self.next_id += 1
        data = encode_line({"id": call_id, "op": request.op, "args": request})
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[call_id] = (request.reply, future)
        try:
            async with asyncio.timeout(timeout_s):
                self.writer.write(data)
                await self.writer.drain()
                return await future
        except TimeoutError:
            raise SeamLost(f"{request.op}: no answer within {timeout_s:g} s") from None
        except (ConnectionError, OSError) as error:
            raise SeamLost(f"{request.op}: {error}") from error
        finally:
            self.waiting.pop(call_id, None)
            if future.done() and not future.cancelled():
                future.exception()  # seen, even when a time-out came first

    def answer(self, line: _ServerLine) -> None:
        if line.id is None:
            if line.error is not None:  # about a line the server could not read: ours, and nobody knows which
                raise SeamLost(f"{line.error.code}: {line.error.message}")
            return
        reply_type, future = self.waiting.get(line.id, (None, None))
        if reply_type is None or future is None or future.done():
            return  # its caller has given up
        if line.error is not None:
            future.set_exception(SeamError(line.error.code, line.error.message))
            return
        try:
            future.set_result(msgspec.json.decode(line.ok, type=reply_type))
        except msgspec.MsgspecError as error:
            future.set_exception(SeamLost(f"answer not understood: {error}"))

    def hangs(self, why: str) -> None:
        """What it has not taken yet, it might never take."""
        self.fail(why)
        self.writer.transport.abort()

    def fail(self, why: str) -> None:
        self.lost = why
        self.writer.close()
        for _, future in list(self.waiting.values()):
            if not future.done():
                future.set_exception(SeamLost(why))


class JsonLinesClient:
    """Connects when first needed and again after each loss. Calls may overlap.

    ``hello`` is sent first on each connection, and its answer given to ``on_up``. ``on_event`` gets each event, in
    order; events of unknown name are dropped, so that an older client survives a newer server. ``on_down`` is told why
    a connection ended. Who wants events without calling anything calls ``start``, which keeps a connection open.
    ``connect``: another way than the Unix socket; the path is then only its name. ``watch``: a connection whose peer
    hangs is given up, with all calls that wait on it; the next one finds out by a new connection.
    """

    def __init__(
        self,
        socket_path: Path | str,
        *,
        connect: Connect | None = None,
        hello: Request | None = None,
        events: Sequence[type[Event]] = (),
        on_event: Callable[[Any], None] | None = None,
        on_up: Callable[[Any], None] | None = None,
        on_down: Callable[[str], None] | None = None,
        timeout_s: float = 30.0,
        watch: Watch | None = None,
    ) -> None:
        self.socket_path = Path(socket_path)
        self.on_event = on_event
        self.on_up = on_up
        self.on_down = on_down
        self.timeout_s = timeout_s
        self._connect_other = connect
        self._hello = hello
        self._event_types = {event.event: event for event in events}
        self._watch = watch
        self._connection: _Connection | None = None
        self._attempt: asyncio.Task[_Connection] | None = None  # to connect: one for all who wait for it
        self._readers: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def call(self, request: Request, timeout_s: float | None = None) -> Any:
        """The reply struct of ``request``. SeamError: refused. SeamLost: no answer; the effect may have happened."""
        deadline_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(deadline_s):
                connection = await self._connected()
        except TimeoutError:
            raise SeamLost(f"{self.socket_path}: no connection within {deadline_s:g} s") from None
        return await connection.call(request, deadline_s)

    def start(self) -> None:
        """Keeps a connection open until ``close``, for the sake of events."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
        if self._connection is not None:
            self._connection.fail("closed")
        for task in list(self._readers):
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _keep(self) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._connected()
                wait_s = RETRY_FIRST_S
                await asyncio.gather(*self._readers, return_exceptions=True)
            except (SeamLost, SeamError):
                wait_s = min(wait_s * 2, RETRY_MOST_S)
            await asyncio.sleep(wait_s)

    async def _connected(self) -> _Connection:
        """An attempt that fails has failed for all who wait for it: at a peer that hangs, each would otherwise wait
        through the attempts of everybody before."""
        if self._connection is not None:
            return self._connection
        if self._closed:
            raise SeamLost(f"{self.socket_path}: client closed")
        attempt = self._attempt
        if attempt is None:
            attempt = self._attempt = asyncio.create_task(self._connect())
            attempt.add_done_callback(self._attempt_over)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            if attempt.cancelled():
                raise SeamLost(f"{self.socket_path}: client closed") from None
            raise

    def _attempt_over(self, attempt: asyncio.Task[_Connection]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # seen, even when nobody waits any more

    async def _connect(self) -> _Connection:
        try:
            if self._connect_other is not None:
                reader, writer = await self._connect_other()
            else:
                reader, writer = await asyncio.open_unix_connection(str(self.socket_path), limit=LINE_LIMIT_BYTES)
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or error or type(error).__name__
            raise SeamLost(f"{self.socket_path}: {why}") from error
        connection = _Connection(reader, writer)
        task = asyncio.create_task(self._read(connection))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)
        if self._hello is not None:
            try:
                reply = await connection.call_now(self._hello, min(self.timeout_s, HELLO_WITHIN_S))
            except BaseException:
                connection.hangs("no hello")
                raise
            if self.on_up is not None:
                self.on_up(reply)
        if connection.lost is not None:
            raise SeamLost(connection.lost)
        self._connection = connection
        return connection

    async def _watch_over(self, connection: _Connection, watch: Watch) -> None:
        assert self._hello is not None
        while connection.lost is None:
            await asyncio.sleep(watch.every_s)
            if connection.heard:
                connection.heard = False
                continue
            try:
                await connection.call_now(self._hello, watch.within_s)
            except SeamError:
                pass  # it is there to refuse
            except SeamLost:
                if not connection.heard and connection.lost is None:
                    connection.hangs(f"{self.socket_path}: no answer to anything for {watch.within_s:g} s")

    async def _read(self, connection: _Connection) -> None:
        why = f"{self.socket_path}: connection closed"
        watching = None if self._watch is None else asyncio.create_task(self._watch_over(connection, self._watch))
        try:
            while True:
                data = await connection.reader.readuntil(b"\n")
                connection.heard = True
                line = msgspec.json.decode(data, type=_ServerLine)
                if line.event is not None:
                    self._tell(line)
                else:
                    connection.answer(line)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (asyncio.LimitOverrunError, msgspec.MsgspecError, SeamLost, OSError) as error:
            why = f"{self.socket_path}: {error}"
        finally:
            if watching is not None:
                watching.cancel()
            if self._connection is connection:
                self._connection = None
            connection.fail(connection.lost or why)
            if self.on_down is not None:
                self.on_down(connection.lost or why)

    def _tell(self, line: _ServerLine) -> None:
        event_type = self._event_types.get(line.event or "")
        if event_type is None or self.on_event is None:
            return
        try:
            self.on_event(msgspec.json.decode(line.args, type=event_type))
        except Exception:  # an event that breaks its receiver must not cost the connection
            log.exception("event %s", line.event)


class JsonLinesServer:
    """Serves ``handlers`` (request class -> async function of the decoded request) on a Unix socket of ``mode``.

    Requests of one connection run side by side. A handler refuses by raising SeamError; anything else it raises is
    logged and answered with ``failure_code``. A handler runs to its end even when its caller has gone.
    """

    def __init__(
        self,
        socket_path: Path | str,
        handlers: Mapping[type[Any], Handler],
        mode: int = 0o600,
        *,
        failure_code: str = "IO",
    ) -> None:
        self.socket_path = Path(socket_path)
        self.mode = mode
        self._failure_code = failure_code
        self._handlers = {request.op: (request, handler) for request, handler in handlers.items()}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """OSError EADDRINUSE if another live server has the socket; a dead one's is replaced."""
        listener = bind_unix(self.socket_path, self.mode)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_LIMIT_BYTES)

    async def stop(self, grace_s: float = 5.0) -> None:
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
        with contextlib.suppress(FileNotFoundError):
            self.socket_path.unlink()
        self._server = None

    def broadcast(self, event: Event) -> None:
        """Tells every connection, in the order of the calls. A reader that lets 64 MiB pile up is cut off."""
        data = encode_line({"event": event.event, "args": event})
        for writer in list(self._writers):
            if writer.transport.get_write_buffer_size() > 4 * LINE_LIMIT_BYTES:
                writer.transport.abort()
            else:
                writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        slots = asyncio.Semaphore(IN_FLIGHT_LIMIT)
        try:
            while True:
                try:
                    data = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    text = f"line longer than {LINE_LIMIT_BYTES} bytes"
                    self._send(writer, {"id": None, "error": {"code": "BAD_REQUEST", "message": text}})
                    break
                await slots.acquire()
                task = asyncio.create_task(self._answer(data, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: slots.release())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        call_id: int | None = None
        try:
            line = msgspec.json.decode(data, type=_RequestLine)
            call_id = line.id
            answer = {"id": call_id, "ok": await self._dispatch(line)}
        except msgspec.MsgspecError as error:
            answer = {"id": call_id, "error": {"code": "BAD_REQUEST", "message": str(error)}}
        except SeamError as error:
            answer = {"id": call_id, "error": {"code": error.code, "message": error.message}}
        except Exception as error:
            log.exception("request %s failed", call_id)
            answer = {"id": call_id, "error": {"code": self._failure_code, "message": type(error).__name__}}
        try:
            self._send(writer, answer)
        except SeamError as error:
            self._send(writer, {"id": call_id, "error": {"code": self._failure_code, "message": error.message}})

    async def _dispatch(self, line: _RequestLine) -> msgspec.Struct:
        known = self._handlers.get(line.op)
        if known is None:
            raise SeamError("BAD_REQUEST", f"unknown op {line.op[:64]!r}")
        request_type, handler = known
        return await handler(msgspec.json.decode(line.args, type=request_type))

    @staticmethod
    def _send(writer: asyncio.StreamWriter, line: Mapping[str, Any]) -> None:
        if not writer.is_closing():
            writer.write(encode_line(line))


def bind_unix(path: Path, mode: int) -> socket.socket:
    """A listening-ready socket at ``path`` that never exists with wider rights than ``mode``: it is bound beside it,
    given its mode, and renamed into place."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            pass
        else:
            raise OSError(98, "another process serves this socket", str(path))
    beside = path.with_name(f".{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(beside))
        os.chmod(beside, mode)
        listener.listen(64)  # before the rename: who sees the path can connect
        os.rename(beside, path)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
