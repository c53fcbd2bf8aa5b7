"""Reads what is behind a URL, over http or https, as it comes: bytes of any size, nothing kept.

Certificates are verified against those that the machine trusts. Credentials of the URL go to its own host, by HTTP's
basic authentication, and into no text of ours. Redirections lead to http and https only, and never from https to http.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import h11

CONNECT_TIMEOUT_S = 30.0
SILENCE_TIMEOUT_S = 60.0  # the longest that nothing comes
REDIRECTIONS_MOST = 5
PIECE_BYTES = 256 * 1024
_REDIRECTIONS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


class BadUrl(Exception):
    """Not one that can be read; the text has no secret in it."""


class Unreadable(Exception):
    """Whoever is there does not give it out, or not wholly."""


@dataclass(frozen=True)
class _Place:
    scheme: str
    host: str
    port: int
    path: str
    authorization: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def check(url: str) -> None:
    """BadUrl if this cannot be read."""
    _place(url)


def _place(url: str) -> _Place:
    if not url.isascii() or any(ord(sign) <= 32 or ord(sign) == 127 for sign in url):
        raise BadUrl("it has blanks or signs that a URL cannot have")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrl("it cannot be read") from None
    if parts.scheme not in _PORTS:
        raise BadUrl("only http and https are read")
    if not parts.hostname or port == 0:
        raise BadUrl("it names no host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path, _authorization(parts))


def _authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _redirected(place: _Place, location: str) -> _Place:
    """Credentials stay with the host that they were meant for."""
    try:
        following = _place(urljoin(f"{place.shown}{place.path}", location))
    except BadUrl as error:
        raise Unreadable(f"{place.shown} leads to what is no place to read from: {error}") from None
    if place.scheme == "https" and following.scheme != "https":
        raise Unreadable(f"{place.shown} leads away from https")
    same = (following.scheme, following.host, following.port) == (place.scheme, place.host, place.port)
    authorization = following.authorization or (place.authorization if same else "")
    return _Place(following.scheme, following.host, following.port, following.path, authorization)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """What is there, in pieces. BadUrl; Unreadable, also while it is read."""
    place = _place(url)
    trust = ssl.create_default_context()
    for _ in range(REDIRECTIONS_MOST + 1):
        async with _answered(place, trust) as (response, answer):
            if response.status_code not in _REDIRECTIONS:
                if response.status_code != 200:
                    raise Unreadable(f"{place.shown} answers {response.status_code}")
                yield answer.body()
                return
            location = dict(response.headers).get(b"location", b"").decode("ascii", "replace")
            if not location:
                raise Unreadable(f"{place.shown} leads nowhere")
            place = _redirected(place, location)
    raise Unreadable(f"{place.shown} leads on and on")


@contextlib.asynccontextmanager
async def _answered(place: _Place, trust: ssl.SSLContext) -> AsyncIterator[tuple[h11.Response, "_Answer"]]:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                place.host, place.port, ssl=trust if place.scheme == "https" else None, limit=PIECE_BYTES
            )
    except ssl.SSLCertVerificationError as error:
        raise Unreadable(f"the certificate of {place.shown} is not trusted: {error.verify_message}") from None
    except (OSError, TimeoutError, ValueError) as error:  # ssl's errors are OSErrors; ValueError: an impossible name
        raise Unreadable(f"{place.shown} cannot be reached: {error or 'it does not answer'}") from None
    try:
        answer = _Answer(place, reader)
        headers = [("Host", place.shown.partition("://")[2]), ("User-Agent", "gespann"), ("Connection", "close")]
        headers += [("Authorization", place.authorization)] if place.authorization else []
        request = h11.Request(method="GET", target=place.path, headers=headers)
        writer.write((answer.protocol.send(request) or b"") + (answer.protocol.send(h11.EndOfMessage()) or b""))
        yield await answer.head(), answer
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


class _Answer:
    def __init__(self, place: _Place, reader: asyncio.StreamReader) -> None:
        self.protocol = h11.Connection(h11.CLIENT)
        self._place = place
        self._reader = reader

    async def head(self) -> h11.Response:
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise Unreadable(f"{self._place.shown} does not answer as a web server does")
        return event

    async def body(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def _event(self) -> object:
        try:
            while (event := self.protocol.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(SILENCE_TIMEOUT_S):
                    self.protocol.receive_data(await self._reader.read(PIECE_BYTES))
        except h11.RemoteProtocolError:
            raise Unreadable(f"{self._place.shown} does not answer as a web server does, or ended too early") from None
        except TimeoutError:
            raise Unreadable(f"nothing came from {self._place.shown} for {SILENCE_TIMEOUT_S:.0f} seconds") from None
        except OSError as error:
            raise Unreadable(f"the connection to {self._place.shown} broke: {error}") from None
        return event
