"""The stock ``xe`` on the wire, where files of its user go up or come down: what it is asked to load, disks and whole
machines both ways, reports of hosts."""

import io
import socket
import ssl
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.product.clients.served_pool import ServedPool
from tests.product.clients.test_thin_cli import LIMIT_S, done, tls, xe
from tests.product.clients.thin_client import ThinClient
from tests.unit.pool.world import MIB

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate(key: Key, name: str, *, issuer: str = "", signer: Key | None = None, days: int = 10) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
        .sign(signer or key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def shown(pool: ServedPool) -> str:
    return ssl.get_server_certificate((pool.address, 443))


@pytest.fixture
def offered(tmp_path: Path) -> dict[str, Path]:
    """A certificate of an authority for an RSA key, what belongs to it, and what does not."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    files = {
        "key": key_pem(own),
        "certificate": certificate(own, "pool.example", issuer="authority", signer=authority),
        "chain": certificate(authority, "authority"),
        "stranger": certificate(ec.generate_private_key(ec.SECP256R1()), "stranger"),
        "old": certificate(own, "pool.example", days=-1),
        "short key": key_pem(rsa.generate_private_key(65537, 1024)),
        "no pem": b"\xff\xfe not at all",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in files}


def install(pool: ServedPool, certificate: Path, key: Path, chain: Path | None = None) -> ThinClient:
    more = [f"certificate-chain={chain}"] if chain else []
    return whoever(pool, "host-server-certificate-install", f"certificate={certificate}", f"private-key={key}", *more)


def whoever(pool: ServedPool, *words: str) -> ThinClient:
    """By a client that takes any certificate, as the stock one does unless told otherwise."""
    stream = ssl._create_unverified_context().wrap_socket(socket.create_connection((pool.address, 443), LIMIT_S))
    return ThinClient(stream).run(*words, "host=fakehost", "username=root", f"password={pool.password}")


@pytest.fixture
def own_pool() -> Iterator[ServedPool]:
    """The others' clients hold on to the certificate of theirs."""
    with ServedPool() as served:
        yield served


def test_a_certificate_is_loaded_from_files_and_shown_at_once(own_pool: ServedPool, offered: dict[str, Path]) -> None:
    pool = own_pool
    before = shown(pool)
    assert pool.call("host.get_server_certificate", pool.host) == before
    with tls(pool) as open_already:
        assert done(install(pool, offered["certificate"], offered["key"], offered["chain"])) == ""
        assert shown(pool) == offered["certificate"].read_text()
        open_already.sendall(b"OPTIONS / HTTP/1.0\r\n\r\n")
        assert b" 200 " in open_already.recv(1000)
    with tls_by(offered["chain"], pool) as trusted:
        assert trusted.version() == "TLSv1.3"
    assert done(whoever(pool, "host-get-server-certificate")).strip() == offered["certificate"].read_text().strip()
    assert (pool.base / "data/pool.pem").stat().st_mode & 0o777 == 0o600

    refused = {
        "SERVER_CERTIFICATE_KEY_MISMATCH": (offered["stranger"], offered["key"], None),
        "SERVER_CERTIFICATE_CHAIN_INVALID": (offered["certificate"], offered["key"], offered["stranger"]),
        "SERVER_CERTIFICATE_EXPIRED": (offered["old"], offered["key"], None),
        "SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED": (offered["certificate"], offered["short key"], None),
        "SERVER_CERTIFICATE_KEY_INVALID": (offered["certificate"], offered["chain"], None),
        "SERVER_CERTIFICATE_INVALID": (offered["key"], offered["key"], None),
    }
    for code, files in refused.items():
        contents = [path.read_text() if path else "" for path in files]
        with pytest.raises(Exception, match=code):
            pool.call("host.install_server_certificate", pool.host, *contents)
        assert install(pool, *files).status == 1
    assert "is not a PEM file" in install(pool, offered["no pem"], offered["key"]).stderr
    missing = install(pool, offered["key"].parent / "missing", offered["key"])
    assert (missing.status, missing.stderr) == (1, f"Failed to read {offered['key'].parent / 'missing'}\n")
    assert shown(pool) == offered["certificate"].read_text()

    assert done(whoever(pool, "host-reset-server-certificate")) == ""
    assert shown(pool) not in (before, offered["certificate"].read_text())
    assert (pool.base / "data/pool.crt").read_text() == shown(pool)


def tls_by(authority: Path, pool: ServedPool) -> ssl.SSLSocket:
    """Trusting the authority, without a look at the name."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    return context.wrap_socket(socket.create_connection((pool.address, 443), timeout=LIMIT_S))


def test_a_disk_up_and_down(pool: ServedPool, tmp_path: Path) -> None:
    uuid = pool.get("VDI", pool.make_vdi("by files", 15 * MIB))["uuid"]
    (tmp_path / "up").write_bytes(bytes(range(256)) * (15 * MIB // 256))
    assert done(xe(pool, "vdi-import", f"uuid={uuid}", f"filename={tmp_path / 'up'}")) == ""
    assert done(xe(pool, "vdi-export", f"uuid={uuid}", f"filename={tmp_path / 'down'}")) == ""
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()

    (tmp_path / "longer").write_bytes(bytes(16 * MIB))
    refused = xe(pool, "vdi-import", f"uuid={uuid}", f"filename={tmp_path / 'longer'}")
    assert (refused.status, refused.stdout) == (1, "")
    assert pool.call("task.get_by_name_label", f"Importing {uuid}") == []


def test_a_machine_down_and_up(pool: ServedPool, tmp_path: Path) -> None:
    vm = pool.get("VM", pool.make_vm("by its archive"))["uuid"]
    assert done(xe(pool, "vm-export", f"uuid={vm}", f"filename={tmp_path / 'xva'}")) == "Export succeeded\n"
    came = done(xe(pool, "vm-import", f"filename={tmp_path / 'xva'}", f"sr-uuid={pool.get('SR', pool.sr)['uuid']}"))
    assert came.strip() != vm
    assert done(xe(pool, "vm-list", f"uuid={came.strip()}", "params=name-label", "--minimal")) == "by its archive\n"


def test_reports_of_a_host(pool: ServedPool, tmp_path: Path) -> None:
    pool.hypervisor.kernel_lines[:] = ["a card came up", "a card went down"]
    assert done(xe(pool, "host-dmesg", "host=fakehost")) == "a card came up\na card went down\n\n"
    assert "a card went down" in pool.call("host.dmesg_clear", pool.host)
    assert pool.call("host.dmesg", pool.host) == ""
    assert done(xe(pool, "host-is-in-emergency-mode")) == "false\n"
    assert done(xe(pool, "host-all-editions")) == "free\n"
    capabilities = done(xe(pool, "host-get-system-status-capabilities"))
    assert 'key="database"' in capabilities

    secret = pool.call("secret.create", {"value": "hush hush hush", "other_config": {}})
    pool.call("pool.set_name_description", pool.call("pool.get_all")[0], "to be seen")
    assert done(xe(pool, "host-get-system-status", f"filename={tmp_path / 'status'}")) == ""
    data = (tmp_path / "status").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        database = archive.extractfile("database.json")
        assert database is not None
        assert b"to be seen" in database.read()
    host = pool.get("host", pool.host)["uuid"]
    assert {"audit.log", "logs/coordinator.log", f"hosts/{host}/facts.json", f"hosts/{host}/kernel.log"} <= set(names)
    for hidden in (b"hush hush hush", pool.password.encode(), pool.session.encode()):
        assert hidden not in data
    pool.call("secret.destroy", secret)

    some = xe(pool, "host-get-system-status", f"filename={tmp_path / 'some'}", "entries=hosts", "output=tar.bz2")
    assert done(some) == ""
    with tarfile.open(tmp_path / "some", "r:bz2") as archive:
        assert {name.partition("/")[0] for name in archive.getnames()} == {"hosts"}
    assert xe(pool, "host-get-system-status", f"filename={tmp_path / 'no'}", "entries=everything").status == 1
    assert not (tmp_path / "no").exists()
    assert done(xe(pool, "host-logs-download", f"file-name={tmp_path / 'logs'}")) == ""
    with tarfile.open(tmp_path / "logs", "r:gz") as archive:
        assert f"logs/{host}.log" in archive.getnames()


def test_an_event_is_waited_for(pool: ServedPool) -> None:
    """By what the client sees: it hangs until another client does it."""
    vm = pool.get("VM", pool.make_vm("waited for"))["uuid"]
    with ThreadPoolExecutor(2) as at_once:
        up = at_once.submit(xe, pool, "event-wait", "class=vm", f"uuid={vm}", "power-state=running")
        changed = at_once.submit(xe, pool, "event-wait", "class=vm", f"uuid={vm}", "power-state=/=halted")
        assert done(xe(pool, "vm-start", f"uuid={vm}")) == ""
        assert (done(up.result(LIMIT_S)), done(changed.result(LIMIT_S))) == ("", "")
    assert xe(pool, "event-wait", "class=vm", "colour=red").status == 1
    assert xe(pool, "event-wait", "class=dance").status == 1
