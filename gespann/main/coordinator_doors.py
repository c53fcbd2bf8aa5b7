"""What the coordinator's process has in each of its roles: its directories, and its doors for clients."""

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.api.server import Address, ApiServer
from gespann.system.clock import Clock

log = logging.getLogger("gespann.main.coordinator")

SOCKET = "xapi"


class CannotStart(Exception):
    """Text for the administrator."""


@dataclass(frozen=True)
class Settings:
    data: Path
    run: Path
    listen: tuple[Address, ...] = ()
    plain: tuple[Address, ...] = ()
    agent: Path | None = None
    name_label: str = ""
    address: str = ""
    web: Path | None = None
    root_password_file: Path | None = None


def certificate_of_doors(settings: Settings, names: list[str], clock: Clock) -> ServerCertificate | None:
    """``names``: under which this host is reached too. None: there is no door that would show it."""
    if not settings.listen:
        return None
    names = [name for name in [*(address.host for address in settings.listen), *names] if name]
    return ServerCertificate(settings.data, names, clock)


async def listen(server: ApiServer, settings: Settings, certificate: ServerCertificate | None) -> list[int]:
    """The ports, TLS first."""
    ports = []
    if certificate is not None:
        for address in settings.listen:
            ports.append(await server.listen_tcp(address, certificate.door))
    for address in settings.plain:
        log.warning("serving %s:%d without TLS: passwords cross the network in the clear", *_pair(address))
        ports.append(await server.listen_tcp(address, None))
    return ports


def _pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


def lock(data: Path) -> int:
    """One coordinator per DATA; the lock goes with the process."""
    fd = os.open(data / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise CannotStart(f"another coordinator uses {data}") from None
    return fd
