"""TLS to a pool, and how the client knows that it is the right one.

With ``GESPANN_CA`` or ``ca=`` in ``~/.xe`` the server's certificate must come from that file: signed by an authority in
it for the name of the server, or be itself one of the certificates in it. Without, the first certificate seen of a
server is remembered and any other is refused afterwards.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys

from gespann.xe.client.connection import ConnectionRefused, tcp
from gespann.xe.client.options import Options

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def known_pools_path() -> str:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "gespann", "known_pools")


def connect_tls(options: Options, server: str, port: int) -> socket.socket:
    if options.ca_file:
        return _connect_verified(options.ca_file, server, port)
    stream = _wrap(_unverified(), server, port)
    try:
        _check_known(f"{server}:{port}", fingerprint(stream.getpeercert(binary_form=True) or b""))
    except BaseException:
        stream.close()
        raise
    return stream


def _unverified() -> ssl.SSLContext:
    """For connections whose certificate is compared afterwards, before anything is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _wrap(context: ssl.SSLContext, server: str, port: int) -> ssl.SSLSocket:
    stream = tcp(server, port)
    try:
        return context.wrap_socket(stream, server_hostname=server)
    except ssl.SSLCertVerificationError:
        stream.close()
        raise
    except (ssl.SSLError, OSError) as error:
        stream.close()
        raise ConnectionRefused(f"No TLS with {server} port {port}: {error}") from error


def _connect_verified(ca_file: str, server: str, port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(ca_file)
        with open(ca_file, encoding="ascii", errors="replace") as file:
            pinned = [ssl.PEM_cert_to_DER_cert(pem) for pem in _PEM.findall(file.read())]
    except (OSError, ValueError) as error:
        raise ConnectionRefused(f"The certificates in {ca_file} cannot be read: {error}") from error
    try:
        return _wrap(context, server, port)
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
    stream = _wrap(_unverified(), server, port)
    if stream.getpeercert(binary_form=True) in pinned:
        return stream
    stream.close()
    raise ConnectionRefused(f"The certificate of {server} is not one that {ca_file} vouches for: {reason}")


def fingerprint(certificate: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"


def _check_known(pool: str, seen: str) -> None:
    path = known_pools_path()
    known = _read_known(path)
    if pool not in known:
        _remember(path, pool, seen)
        print(f"First connection to {pool}: its certificate {seen} is remembered in {path}", file=sys.stderr)
    elif known[pool] != seen:
        raise ConnectionRefused(
            f"The certificate of {pool} has changed, and somebody else may be answering there.\n"
            f"Known: {known[pool]}\nNow:   {seen}\n"
            f"If the pool really has a new certificate, remove its line from {path}"
        )


def _read_known(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConnectionRefused(f"{path} cannot be read: {error.strerror}") from error
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _remember(path: str, pool: str, seen: str) -> None:
    """Appends one line in one write, so that two clients at once lose nothing."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{pool} {seen}\n".encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise ConnectionRefused(f"The certificate of {pool} cannot be remembered in {path}: {error}") from error
