"""Connections to the pool: the Unix socket of this host, plain TCP to this host, TLS to any other."""

from __future__ import annotations

import os
import socket

from gespann.xe.client.options import Options

DEFAULT_SOCKET = "/var/lib/xcp/xapi"
CONNECT_TIMEOUT_S = 60.0
HEADER_LIMIT_BYTES = 65536


class ConnectionRefused(Exception):
    """No connection; the text says why and what to do."""


class WrongServer(Exception):
    """Something answers there, but it is no pool."""


def unix_socket_path() -> str:
    return os.environ.get("GESPANN_XAPI_SOCKET") or DEFAULT_SOCKET


def connect(options: Options) -> socket.socket:
    """A stream to the server of the options: a socket, or one wrapped in TLS."""
    if options.local and options.port is None:
        try:
            return _unix(unix_socket_path())
        except OSError as error:
            # With a socket of its own named there is no other server to fall back to.
            if "GESPANN_XAPI_SOCKET" in os.environ:
                raise ConnectionRefused(f"{error.strerror} (calling connect {unix_socket_path()})") from error
    tls = options.tls if options.tls is not None else not options.local
    port = options.port or (443 if tls else 80)
    return connect_to(options, options.server, port, tls)


def connect_to(options: Options, server: str, port: int, tls: bool) -> socket.socket:
    if tls:
        from gespann.xe.client.certificates import connect_tls

        return connect_tls(options, server, port)
    return tcp(server, port)


def _unix(path: str) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(path)
    except OSError:
        stream.close()
        raise
    return stream


def tcp(server: str, port: int) -> socket.socket:
    try:
        stream = socket.create_connection((server, port), CONNECT_TIMEOUT_S)
    except socket.gaierror as error:
        raise ConnectionRefused(f"{server}: {error.strerror}") from error
    except TimeoutError as error:
        raise ConnectionRefused(f"No answer from {server} port {port} (calling connect )") from error
    except OSError as error:
        raise ConnectionRefused(f"{error.strerror} (calling connect )") from error
    stream.settimeout(None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def read_header(stream: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields by lower-case name, and what came after the header already."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(4096)
        if not piece or len(data) > HEADER_LIMIT_BYTES:
            raise WrongServer
        data += piece
    header, _, rest = data.partition(b"\r\n\r\n")
    lines = header.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise WrongServer
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return int(words[1]), fields, rest
