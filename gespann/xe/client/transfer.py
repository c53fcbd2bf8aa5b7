"""Files between the client and an HTTP handler of the pool, over a connection of their own."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from gespann.xe.client.connection import ConnectionRefused, WrongServer, connect, connect_to, read_header
from gespann.xe.client.options import LOCAL_SERVERS, Options

PIECE_BYTES = 1024 * 1024
HEARTBEAT_S = 10.0
REDIRECTS = 5


def open_url(options: Options, url: str) -> tuple[socket.socket, str]:
    """A stream to whoever serves ``url``, which may be just a path, and the path to ask it for."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    if not parts.hostname:
        return connect(options), path
    tls = parts.scheme == "https"
    if not tls and options.tls is not False and parts.hostname not in LOCAL_SERVERS and not options.local:
        raise ConnectionRefused(f"The server points to {parts.hostname} without TLS, which was not asked for")
    return connect_to(options, parts.hostname, parts.port or (443 if tls else 80), tls), path


class _Heart:
    """Tells the engine now and then that the transfer goes on."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat, self._last_s = beat, time.monotonic()

    def tick(self) -> None:
        if time.monotonic() - self._last_s >= HEARTBEAT_S:
            self._beat()
            self._last_s = time.monotonic()


def _explain(text: str) -> bool:
    print(text, file=sys.stderr)
    return False


def upload(options: Options, path: str, url: str, beat: Callable[[], None]) -> bool:
    """PUT of a whole file, or of what comes through a pipe or from a disk. False, with a line on stderr: it did not
    arrive."""
    try:
        with open(path, "rb", buffering=0) as file:
            kind = os.fstat(file.fileno())
            # of anything but a file nobody knows how long it is; an empty file must not look like a mere question
            size_bytes = (kind.st_size if stat.S_ISREG(kind.st_mode) else 0) or None
            for attempt in range(REDIRECTS):
                if attempt:
                    file.seek(0)  # OSError of a pipe: what it gave once it does not give again
                redirect = _put(options, file.fileno(), size_bytes, url, _Heart(beat))
                if redirect is None:
                    return True
                url = urljoin(url, redirect)
        return _explain("The server redirects without end")
    except (OSError, ConnectionRefused, WrongServer) as error:
        return _explain(f"{path} could not be sent: {error or 'no answer that could be understood'}")


def _put(options: Options, fd: int, size_bytes: int | None, url: str, heart: _Heart) -> str | None:
    """None once the server has it, or where it sends us instead. ``size_bytes``: none if it ends when it ends. OSError:
    it refuses."""
    stream, target = open_url(options, url)
    with stream:
        if size_bytes is None:
            head = f"PUT {target} HTTP/1.1\r\nhost: {options.server}\r\nconnection: close\r\n"
            stream.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        else:
            stream.sendall(f"PUT {target} HTTP/1.0\r\ncontent-length: {size_bytes}\r\n\r\n".encode())
        try:
            while data := os.read(fd, PIECE_BYTES):
                stream.sendall(data if size_bytes is not None else b"%x\r\n%b\r\n" % (len(data), data))
                heart.tick()
            if size_bytes is None:
                stream.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that answers early, with a redirect or a refusal, says why in its answer
        status, fields, _ = read_header(stream)
        if status in (301, 302, 307, 308) and "location" in fields:
            return fields["location"]
        if status >= 300:
            raise OSError(f"the server answers {status}")
        while stream.recv(PIECE_BYTES):
            heart.tick()
    return None


def download(options: Options, path: str, url: str, beat: Callable[[], None]) -> bool:
    """GET into a new file, or to the standard output if the path is empty. False, with a line on stderr: it is not all
    there, and what there is was removed."""
    if path and os.path.exists(path):
        return _explain(f"{path} exists already; it is not overwritten")
    try:
        for _ in range(REDIRECTS):
            stream, target = open_url(options, url)
            with stream:
                stream.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
                status, fields, rest = read_header(stream)
                if status in (301, 302, 307, 308) and "location" in fields:
                    url = urljoin(url, fields["location"])
                    continue
                if status >= 300:
                    raise OSError(f"the server answers {status}")
                _receive(stream, path, rest, fields.get("content-length"), _Heart(beat))
                return True
        return _explain("The server redirects without end")
    except (OSError, ConnectionRefused, WrongServer) as error:
        return _explain(f"{path or 'It'} could not be received: {error or 'no answer that could be understood'}")


def _receive(stream: socket.socket, path: str, rest: bytes, length: str | None, heart: _Heart) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600) if path else os.dup(sys.stdout.fileno())
    try:
        with os.fdopen(fd, "wb") as file:
            received = file.write(rest)
            while data := stream.recv(PIECE_BYTES):
                received += file.write(data)
                heart.tick()
        if length is not None and length.isdigit() and received != int(length):
            raise OSError(f"{received} bytes came, {length} were announced")
    except BaseException:
        if path:
            os.unlink(path)
        raise
