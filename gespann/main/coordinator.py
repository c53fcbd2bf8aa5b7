"""The coordinator's process: ``python -m gespann.main.coordinator --data DIR --run DIR``.

Serves the XenAPI of the pool on RUN/xapi (root of this machine needs no password there), over TLS on each ``--listen``,
and in the clear on each ``--plain``, until SIGTERM or SIGINT. Exit status 0 after a signal, 1 if it cannot start.

DATA holds what must not be lost, readable by its owner only: pool.db, accounts.json, pool.pem (key and certificate),
pool.crt (the certificate alone, for clients), and root.password until the password is changed. RUN holds sockets.
"""

import argparse
import asyncio
import fcntl
import gc
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gespann.pool import classes
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api
from gespann.pool.api.certificate import ensure_certificate, server_context
from gespann.pool.api.server import Address, ApiServer
from gespann.pool.model.database import Database, DatabaseTooNew
from gespann.pool.pool import Pool
from gespann.pool.reconcile.first_start import first_start
from gespann.pool.reconcile.reconciler import Reconciler, prepare
from gespann.pool.rrd.collector import Collector
from gespann.seams import host_agent
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.sr_driver import SrDriver
from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.registry import DRIVERS
from gespann.system.clock import Clock, SystemClock
from gespann.system.files import private_directory
from gespann.system.json_lines import JsonLinesClient
from gespann.system.log import start_logging
from gespann.xe.server import serve_cli

log = logging.getLogger("gespann.main.coordinator")

SOCKET = "xapi"
HANDLER_MODULES = (classes,)  # imported for the handlers that they register
AGENT_LIMIT_S, AGENT_LATER_LIMIT_S, AGENT_RETRY_S = 60.0, 5.0, 0.2


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


@dataclass
class Coordinator:
    """The whole process as an object: tests start it in their own loop, with drivers and clock of their choice.

    async with Coordinator(settings, drivers={"memory": MemoryDriver()}) as coordinator:
        coordinator.api.call(...)
    """

    settings: Settings
    drivers: Mapping[str, SrDriver] | None = None
    clock: Clock = field(default_factory=SystemClock)
    ports: list[int] = field(default_factory=list)  # TLS first, then plain, as asked for
    reconciler: Reconciler | None = None
    host: str = ""  # the one that this process runs on, once its agent has answered

    async def __aenter__(self) -> "Coordinator":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """CannotStart, OSError: nothing is left running."""
        settings = self.settings
        self._lock = _lock(settings.data)
        try:
            drivers = self.drivers if self.drivers is not None else {name: make() for name, make in DRIVERS.items()}
            self.pool = Pool(_open(settings.data / "pool.db"), drivers, {}, self.clock)
            if settings.listen and settings.listen[0].port:
                self.pool.tls_port = settings.listen[0].port
            prepare(self.pool)
            accounts = Accounts(settings.data)
            accounts.open(_root_password(settings.root_password_file))
            self.api = Api(self.pool, accounts)
            self.figures = Collector(self.pool, settings.data / "rrd")
            self.server = ApiServer(self.api, cli=serve_cli, web=settings.web)
            self.agent = self._agent_client()
            if self.agent is not None:
                await self._take_up_work(self.agent)
            self._show_doors()
            self.figures.start()
            await self._open_doors()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """In the order that lets work end before what it stands on."""
        if hasattr(self, "server"):
            await self.server.stop()
        if hasattr(self, "api"):
            await self.api.close()
        if hasattr(self, "figures"):
            await self.figures.stop()
        if self.reconciler is not None:
            await self.reconciler.stop()
        if getattr(self, "agent", None) is not None:
            assert self.agent is not None
            await self.agent.close()
        if hasattr(self, "pool"):
            for driver in self.pool.drivers.values():
                await driver.shut_down()
            self.pool.db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _show_doors(self) -> None:
        """Whether the host's record may say that nothing of it is served in the clear."""
        if self.host:
            with self.pool.db.transaction() as tx:
                tx.set("host", self.host, https_only=bool(self.settings.listen) and not self.settings.plain)

    async def _take_up_work(self, agent: JsonLinesClient) -> None:
        """Before any client: what was interrupted is finished, and records and world agree."""
        self.host = await self._first_facts(agent)
        self.reconciler = Reconciler(self.pool)
        await self.reconciler.start()
        agent.start()

    async def _first_facts(self, agent: JsonLinesClient) -> str:
        """Both processes start at boot: the agent may be the later one. Without it there can be no pool; a pool that
        is there already opens all the same, to be asked what it knows, and the agent is taken up when it comes."""
        new = not self.pool.db.all("pool")
        deadline_s = self.clock.monotonic_s() + (AGENT_LIMIT_S if new else AGENT_LATER_LIMIT_S)
        while True:
            try:
                host = await first_start(self.pool, agent, self._address())
                break
            except SeamLost as lost:
                if self.clock.monotonic_s() > deadline_s:
                    if new:
                        raise CannotStart(f"the agent of this host does not answer: {lost}") from lost
                    return self._known_host(agent)
                await self.clock.sleep(AGENT_RETRY_S)
            except (SeamError, XenApiError) as error:
                raise CannotStart(f"the agent of this host: {error}") from error
        if new and self.settings.name_label:
            self._name_pool(self.settings.name_label)
        return host

    def _known_host(self, agent: JsonLinesClient) -> str:
        log.warning("starting without the agent of this host: it does not answer")
        host: str = next(iter(self.pool.db.all("pool").values()))["master"]
        self.pool.agents[host] = agent
        return host

    def _name_pool(self, name_label: str) -> None:
        with self.pool.db.transaction() as tx:
            for pool in self.pool.db.all("pool"):
                tx.set("pool", pool, name_label=name_label)

    async def _open_doors(self) -> None:
        settings = self.settings
        await self.server.listen_unix(settings.run / SOCKET)
        names = [address.host for address in settings.listen] + [settings.address]
        names += [str(pif["IP"]) for pif in self.pool.db.all("PIF").values()]
        if settings.listen:
            pem = ensure_certificate(settings.data, [name for name in names if name], self.clock.now())
            context = server_context(pem)
            for address in settings.listen:
                self.ports.append(await self.server.listen_tcp(address, context))
        for address in settings.plain:
            log.warning("serving %s:%d without TLS: passwords cross the network in the clear", *_pair(address))
            self.ports.append(await self.server.listen_tcp(address, None))

    def _agent_client(self) -> JsonLinesClient | None:
        if self.settings.agent is None:
            return None
        return JsonLinesClient(
            self.settings.agent,
            hello=host_agent.Hello(version=host_agent.VERSION),
            events=host_agent.EVENTS,
            on_event=self._told,
            on_up=self._up,
            on_down=self._down,
        )

    def _told(self, event: Any) -> None:
        if self.reconciler is not None:
            self.reconciler.agent_event(self.host, event)

    def _up(self, reply: host_agent.HelloReply) -> None:
        log.info("agent %s, %s", reply.agent_version, reply.hypervisor)
        if self.reconciler is not None:
            self.reconciler.agent_up(self.host)

    def _down(self, why: str) -> None:
        log.warning("agent: %s", why)
        if self.reconciler is not None:
            self.reconciler.agent_down(self.host)

    def _address(self) -> str:
        given = self.settings.address or next((a.host for a in self.settings.listen + self.settings.plain), "")
        return given if given not in ("", "::", "0.0.0.0") else "127.0.0.1"  # noqa: S104 compared, not bound


def _pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


def _lock(data: Path) -> int:
    """One coordinator per DATA; the lock goes with the process."""
    fd = os.open(data / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise CannotStart(f"another coordinator uses {data}") from None
    return fd


def _open(path: Path) -> Database:
    try:
        return Database(path)
    except (DatabaseTooNew, sqlite3.DatabaseError) as error:
        raise CannotStart(f"{path}: {error}") from error


def _root_password(path: Path | None) -> str | None:
    if path is None:
        return None
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise CannotStart(f"{path}: no password in it")
    return text


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gespann-coordinator", description="The coordinator of a pool.")
    parser.add_argument("--data", type=Path, required=True, help="directory of the pool's database and secrets")
    parser.add_argument("--run", type=Path, required=True, help="directory for sockets")
    parser.add_argument("--listen", type=Address.parse, action="append", default=[], help="ADDRESS:PORT for TLS")
    parser.add_argument("--plain", type=Address.parse, action="append", default=[], help="ADDRESS:PORT without TLS")
    parser.add_argument("--agent", type=Path, help="socket of this host's agent")
    parser.add_argument("--name-label", default="", help="of the pool, at first start (default: none)")
    parser.add_argument("--address", default="", help="where clients reach this host (default: that of --listen)")
    parser.add_argument("--web", type=Path, help="directory of static files to serve on /")
    parser.add_argument("--root-password-file", type=Path, help="root's password at first start (default: random)")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(words)


async def serve(settings: Settings) -> None:
    ended = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, ended.set)
    async with Coordinator(settings) as coordinator:
        # the records of a large pool are millions of objects that live on: looking through them again and again for
        # garbage stopped the whole process for seconds
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        gc.enable()
        log.info("serving %s and ports %s", settings.run / SOCKET, coordinator.ports)
        await ended.wait()


def main(words: list[str]) -> int:
    options = arguments(words)
    start_logging(options.log_level)
    for chatty in ("uvicorn.error", "asyncssh"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    os.umask(0o077)
    settings = Settings(
        data=private_directory(options.data.absolute()),
        run=private_directory(options.run.absolute()),
        listen=tuple(options.listen),
        plain=tuple(options.plain),
        agent=options.agent,
        name_label=options.name_label,
        address=options.address,
        web=options.web,
        root_password_file=options.root_password_file,
    )
    gc.disable()  # until the records are read: see serve()
    try:
        asyncio.run(serve(settings))
    except (CannotStart, OSError) as error:
        log.error("cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
