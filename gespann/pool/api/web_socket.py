"""A connection that becomes a WebSocket (RFC 6455): the library ``websockets`` knows the handshake and the frames, here
is what moves its bytes.

    web_socket = WebSocket(request)
    if not await web_socket.is_welcome():  # answered already
        return
    await web_socket.open()
    async for data in web_socket.messages(): ...
"""

import urllib.parse
from collections.abc import AsyncIterator, Sequence

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gespann.pool.api.http_handlers import CHUNK_BYTES, HttpRequest

MESSAGE_LIMIT_BYTES = 1024 * 1024
#: what consoles in browsers ask for; those that ask for none are served too
SUBPROTOCOL = Subprotocol("binary")
_CARRY_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


def _choose(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class WebSocket:
    """The server's side. ClientGone whenever the far end has gone without a word."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._protocol = ServerProtocol(select_subprotocol=_choose, max_size=MESSAGE_LIMIT_BYTES)
        self._answer: Response | None = None

    async def is_welcome(self) -> bool:
        """Whether the request asks for a WebSocket as it should; if not, it has been answered."""
        request = self._request
        if request.headers.get("upgrade", "").lower() != "websocket":
            await request.respond(426, b"Only for WebSockets\n", {"Upgrade": "websocket"})
            return False
        if not self._is_from_here():
            await request.respond(403, b"A page of another origin must show its session in the address\n")
            return False
        self._protocol.receive_data(self._head())
        events = self._protocol.events_received()
        if not events or not isinstance(events[0], Request):
            await request.respond(400, b"Not the handshake of a WebSocket\n")
            return False
        answer = self._protocol.accept(events[0])
        if answer.status_code != 101:
            await request.respond(answer.status_code, bytes(answer.body or b""))
            return False
        self._answer = answer
        return True

    async def open(self) -> None:
        """From here on data may go both ways."""
        assert self._answer is not None
        self._protocol.send_response(self._answer)
        await self._request.switch(b"".join(self._protocol.data_to_send()))

    async def messages(self) -> AsyncIterator[bytes]:
        """What comes, in pieces as it was sent, until the far end closes."""
        while True:
            data = await self._request.reader.read(CHUNK_BYTES)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode in _CARRY_DATA:
                    yield bytes(event.data)
            await self._flush()  # answers to pings, and to a close
            if not data or self._protocol.close_expected():
                return

    async def send(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        await self._flush()

    async def close(self) -> None:
        """Says good-bye, unless that has been said."""
        if not self._protocol.close_expected():
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            await self._flush()

    async def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            await self._request.send(data)

    def _is_from_here(self) -> bool:
        """Browsers send cookies and passwords that they remember along with what any page asks for. A session in the
        address is known only to those who were given it."""
        origin = self._request.headers.get("origin", "")
        if "session_id" in self._request.query or not origin:
            return True
        return urllib.parse.urlsplit(origin).netloc.lower() == self._request.headers.get("host", "").lower()

    def _head(self) -> bytes:
        """As it came, for the library to judge."""
        lines = ["GET /console HTTP/1.1", *(f"{name}: {value}" for name, value in self._request.headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
