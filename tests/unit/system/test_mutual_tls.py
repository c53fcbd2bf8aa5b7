"""TLS between hosts: who is expected comes in, whoever else is expected too; nobody else does."""

import asyncio
import itertools
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gespann.system.mutual_tls import (
    certificate_of,
    connect_pinned,
    ensure_identity,
    fingerprint,
    peer_fingerprint,
    server_context,
)


@asynccontextmanager
async def serving(identity: Path, expected: list[str]) -> AsyncIterator[int]:
    """Answers with the fingerprint of whoever came in."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(peer_fingerprint(writer).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(identity, expected))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(port: int, identity: Path, peer: str) -> str:
    reader, writer = await connect_pinned("127.0.0.1", port, identity, peer, 20)
    try:
        line = await reader.readuntil(b"\n")
    finally:
        writer.transport.abort()
    return line.decode().strip()


def identities(path: Path, *names: str) -> list[Path]:
    return [ensure_identity(path / f"{name}.pem") for name in names]


async def test_each_of_several_expected_comes_in_in_whatever_order_they_were_named(tmp_path: Path) -> None:
    server, *guests = identities(tmp_path, "server", "one", "two", "three")
    for order in itertools.permutations([certificate_of(guest) for guest in guests]):
        async with serving(server, list(order)) as port:
            for guest in guests:
                assert await ask(port, guest, certificate_of(server)) == fingerprint(certificate_of(guest))


async def test_a_stranger_does_not_come_in_and_is_not_taken_for_the_server(tmp_path: Path) -> None:
    server, guest, stranger = identities(tmp_path, "server", "guest", "stranger")
    async with serving(server, [certificate_of(guest)]) as port:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(port, stranger, certificate_of(server))
        with pytest.raises(ssl.SSLError):
            await ask(port, guest, certificate_of(stranger))
    async with serving(server, []) as port:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(port, guest, certificate_of(server))


def test_the_key_is_its_owners_only_and_stays(tmp_path: Path) -> None:
    (path,) = identities(tmp_path, "own")
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_identity(path).read_bytes() == before
    assert "PRIVATE" not in certificate_of(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError):
        ensure_identity(path)
