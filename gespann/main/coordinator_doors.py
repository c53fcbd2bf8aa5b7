"""What the coordinator's process has in each of its roles: its directories, and its doors for clients."""

import errno
import fcntl
import ipaddress
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.api.server import Address, ApiServer
from gespann.pool.nbd.front import PORT as NBD_PORT
from gespann.system.clock import Clock

log = logging.getLogger("gespann.main.coordinator")

SOCKET = "xapi"
EVERYWHERE = "0.0.0.0"  # noqa: S104 what the administrator said names an address that is gone


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
    nbd_port: int = NBD_PORT  # where a network is for it


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
            ports.append(await _listen(server, address, certificate.door))
    for address in settings.plain:
        log.warning("serving %s:%d without TLS: passwords cross the network in the clear", *_pair(address))
        ports.append(await _listen(server, address, None))
    return ports


async def _listen(server: ApiServer, address: Address, context: ssl.SSLContext | None) -> int:
    """An address that this machine does not have any more was changed since, by the pool itself or by its
    administrator: nobody could say so if there were no door."""
    try:
        return await server.listen_tcp(address, context)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
    log.warning("this machine has no address %s: serving port %d of every address", *_pair(address))
    return await server.listen_tcp(Address(EVERYWHERE, address.port), context)


async def listen_at(server: ApiServer, settings: Settings, certificate: ServerCertificate | None, own: str) -> None:
    """Opens at another address of this machine what is not open at all of them."""
    doors = [(address, certificate.door) for address in settings.listen] if certificate is not None else []
    for address, context in [*doors, *((address, None) for address in settings.plain)]:
        if address.host not in (EVERYWHERE, "::", own) and not ipaddress.ip_address(address.host).is_loopback:
            try:
                await server.listen_tcp(Address(own, address.port), context)
            except OSError as error:
                log.error("no door at %s:%d: %s", own, address.port, error)


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
