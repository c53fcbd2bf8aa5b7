"""TLS between the hosts of a pool: both ends show a certificate, and each takes exactly the one it was told of before.

There is no authority that could vouch for a stranger: a certificate signs nothing but itself, and it is pinned as a
whole. So names and dates in it say nothing; who is to be let in no longer is taken off the list.

    identity = ensure_identity(data / "identity.pem")          # key and certificate, mode 0600
    server_context(identity, [peer_certificate])               # TLS 1.3 (RFC 8446), client certificate required
    reader, writer = await connect_pinned(host, port, identity, peer_certificate, timeout_s=10)
"""

import asyncio
import hashlib
import secrets
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gespann.seams.json_lines import LINE_LIMIT_BYTES
from gespann.system.files import read_secret, write_secret

COMMON_NAME = "gespann"
#: a peer that sends nothing, and does not acknowledge either, is gone after so long
SILENCE_S = 15


def ensure_identity(path: Path) -> Path:
    """A PEM file with key and certificate, made if it is not there. PermissionError if others may read it."""
    if path.exists():
        read_secret(path)
    else:
        write_secret(path, _make_identity())
    return path


def _make_identity() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    # a name of its own: where several are expected, OpenSSL looks for the one that fits by its name
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{COMMON_NAME} {secrets.token_hex(8)}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))  # RFC 5280 section 4.1.2.5: no date on which it ends
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def certificate_of(identity: Path) -> str:
    """The certificate alone, as PEM: what others are to be told."""
    return checked_certificate(read_secret(identity).decode())


def checked_certificate(pem: str) -> str:
    """The one certificate in ``pem``, in our own writing. ValueError if there is none."""
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(pem: str) -> str:
    """SHA-256 of the certificate, in hex."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(checked_certificate(pem))).hexdigest()


def server_context(identity: Path, peers: Iterable[str]) -> ssl.SSLContext:
    """Lets in who shows one of the certificates ``peers`` (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _pinned(context, identity, peers)


def client_context(identity: Path, peer: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is the name
    return _pinned(context, identity, [peer])


def _pinned(context: ssl.SSLContext, identity: Path, peers: Iterable[str]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    read_secret(identity)
    context.load_cert_chain(identity)
    for peer in peers:
        context.load_verify_locations(cadata=checked_certificate(peer))
    return context


def peer_fingerprint(writer: asyncio.StreamWriter) -> str:
    """Of the certificate that the other end has proved to have. "" if there is none."""
    tls = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True) if tls is not None else None
    return hashlib.sha256(shown).hexdigest() if shown else ""


async def connect_pinned(
    host: str, port: int, identity: Path, peer: str, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """OSError (also ssl.SSLError) or TimeoutError: nobody there, or somebody else."""
    context = client_context(identity, peer)
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=LINE_LIMIT_BYTES)
    if peer_fingerprint(writer) != fingerprint(peer):
        writer.transport.abort()
        raise ssl.SSLError(f"{host}:{port} shows another certificate")
    notice_silence(writer)
    return reader, writer


def notice_silence(writer: asyncio.StreamWriter) -> None:
    """A peer that lost power sends no farewell: the kernel asks, and gives it up."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
