"""The pool's TLS certificate: made once, signed by itself, and shown to be pinned (its SHA-256 is logged). An
administrator may put another in its place while the doors are open (``certificate_check`` says which)."""

import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gespann.system import files
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

VALID_DAYS = 3650


def ensure_certificate(directory: Path, addresses: Iterable[str], now: datetime) -> Path:
    """The PEM file with key and certificate, mode 0600; made if it is not there. ``pool.crt`` beside it is the
    certificate alone, to be given to clients."""
    path = directory / "pool.pem"
    if not path.exists():
        files.write_secret(path, make_pem(addresses, now))
    certificate = x509.load_pem_x509_certificate(files.read_secret(path))
    files.write_durable(directory / "pool.crt", certificate.public_bytes(serialization.Encoding.PEM))
    log.info("pool certificate SHA-256 %s", certificate.fingerprint(hashes.SHA256()).hex(":"))
    return path


def make_pem(addresses: Iterable[str], now: datetime) -> bytes:
    """``addresses``: IP addresses and names under which the pool is reached."""
    hostname = socket.gethostname()[:64] or "localhost"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names([hostname, "localhost", "127.0.0.1", *addresses])), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _names(addresses: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for address in dict.fromkeys(addresses):
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            names.append(x509.DNSName(address))
        else:
            if not ip.is_unspecified:
                names.append(x509.IPAddress(ip))
    return names


class ServerCertificate:
    """``pool.services["certificate"]``: what the doors show. ``names``: addresses and names that a certificate made
    here is for. Whoever connects after a change sees the new one; connections that are open stay."""

    def __init__(self, directory: Path, names: Iterable[str], clock: Clock) -> None:
        self._directory, self._names, self._clock = directory, list(names), clock
        self._current = _context(ensure_certificate(directory, self._names, clock.now()))
        # a context keeps a key of each kind that it was ever given, so that a replaced one might still be shown: the
        # door has a context of its own, which passes each newcomer on to the current one
        self.door = _context(directory / "pool.pem")
        self.door.sni_callback = self._show

    def _show(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def text(self) -> str:
        """The certificate alone, PEM."""
        return (self._directory / "pool.crt").read_text(encoding="ascii")

    def subject(self) -> str:
        """A name that it is for: one that stands for itself, else one with a wildcard, else ""."""
        certificate = x509.load_pem_x509_certificate(self.text().encode())
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ""
        found = sorted(names.get_values_for_type(x509.DNSName), key=lambda name: "*" in name)
        return found[0] if found else ""

    def install(self, pem: bytes) -> None:
        """``pem``: a private key, its certificate, and those that vouch for it, as ``certificate_check`` gives them."""
        files.write_secret(self._directory / "pool.pem", pem)
        self._current = _context(ensure_certificate(self._directory, self._names, self._clock.now()))

    def reset(self) -> None:
        """Back to one that this pool signs itself: a new one."""
        self.install(make_pem(self._names, self._clock.now()))


def _context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pem)
    return context
