"""The coordinator's process: ``python -m gespann.main.coordinator --data DIR --run DIR``.

Serves the XenAPI of the pool on RUN/xapi (root of this machine needs no password there), over TLS on each ``--listen``,
and in the clear on each ``--plain``, until SIGTERM or SIGINT. Exit status 0 after a signal, 1 if it cannot start.

DATA holds what must not be lost, readable by its owner only: pool.db, accounts.json, pool.pem (key and certificate),
pool.crt (the certificate alone, for clients), agents.pem (key and certificate towards the agents of other hosts), and
root.password until the password is changed. RUN holds sockets.

On a host that has joined another pool the same process only says where that is: see ``Member``. One that was about to
give the pool to another host, and does not know whether it has, leads nothing before it knows: see ``Doubtful``.
"""

import argparse
import asyncio
import contextlib
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

from gespann.main.coordinator_doors import SOCKET, CannotStart, Settings, certificate_of_doors, listen, listen_at, lock
from gespann.main.coordinator_waiting import Doubtful, InDoubt, IsMember, Member, ready_to_lead
from gespann.pool import classes
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api
from gespann.pool.api.classes.message import post
from gespann.pool.api.server import Address, ApiServer
from gespann.pool.links import AgentLinks, agent_client
from gespann.pool.model.database import Database, DatabaseTooNew
from gespann.pool.nbd.front import PORT as NBD_PORT
from gespann.pool.nbd.front import NbdFront
from gespann.pool.pool import Pool
from gespann.pool.reconcile.first_start import first_start
from gespann.pool.reconcile.reconciler import Reconciler, prepare
from gespann.pool.rrd.collector import Collector
from gespann.pool.steps.host_steps import all_doors
from gespann.pool.succession import doubt, terms
from gespann.pool.succession.succession import Succession, answering
from gespann.seams import host_agent
from gespann.seams.host_membership import Allegiance, AllegianceChanged
from gespann.seams.host_succession import PoolFollow
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.sr_driver import SrDriver
from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.registry import DRIVERS
from gespann.system.clock import Clock, SystemClock
from gespann.system.files import private_directory
from gespann.system.json_lines import JsonLinesClient
from gespann.system.log import start_logging
from gespann.system.mutual_tls import ensure_identity
from gespann.system.restart import begin_anew
from gespann.xe.server import serve_cli

log = logging.getLogger("gespann.main.coordinator")

HANDLER_MODULES = (classes,)  # imported for the handlers that they register
AGENT_LIMIT_S, AGENT_LATER_LIMIT_S, AGENT_RETRY_S = 60.0, 5.0, 0.2
MEMBERS_ASKED_S = 3.0  # whether one of them obeys a later coordinator
COPY_MESSAGE, COPY_PRIORITY = "POOL_MASTER_TRANSITION", 4  # as published
FOLLOW_AGAIN_S = 2.0
TURN_AFTER_S = 2.0  # so that who asked for it gets his answer before the doors close


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
    retired: asyncio.Event = field(default_factory=asyncio.Event)  # the host has joined another pool
    restart: asyncio.Event = field(default_factory=asyncio.Event)  # the process is to begin anew

    async def __aenter__(self) -> "Coordinator":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """CannotStart, OSError: nothing is left running."""
        settings = self.settings
        self._lock = lock(settings.data)
        try:
            handing = doubt.noted(settings.data)
            if handing is not None:
                raise InDoubt(handing)
            self.agent = self._agent_client()
            if self.agent is not None:
                await self._assert_ours(self.agent)
            drivers = self.drivers if self.drivers is not None else {name: make() for name, make in DRIVERS.items()}
            self.pool = Pool(_open(settings.data / "pool.db"), drivers, {}, self.clock)
            if settings.listen and settings.listen[0].port:
                self.pool.tls_port = settings.listen[0].port
            self.pool.services["restart"] = self.restart.set
            self.pool.services["doors"] = self._managed_at
            prepare(self.pool)
            self._open_links()
            accounts = Accounts(settings.data)
            accounts.open(_root_password(settings.root_password_file))
            self.api = Api(self.pool, accounts)
            self.figures = Collector(self.pool, settings.data / "rrd")
            if settings.web is not None and not settings.web.is_dir():
                raise CannotStart(f"{settings.web}: no directory to serve on /")
            self.server = ApiServer(self.api, cli=serve_cli, web=settings.web)
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
        if hasattr(self, "nbd"):
            await self.nbd.stop()
        if hasattr(self, "server"):
            await self.server.stop()
        if hasattr(self, "api"):
            await self.api.close()
        if hasattr(self, "figures"):
            await self.figures.stop()
        for name in ("_copying", "_following"):
            if hasattr(self, name):
                getattr(self, name).cancel()
        if self.reconciler is not None:
            await self.reconciler.stop()
        if hasattr(self, "links"):
            await self.links.close_all()
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

    async def _assert_ours(self, agent: JsonLinesClient) -> None:
        """IsMember. Before the database is opened, which a member has none of."""
        new = not (self.settings.data / "pool.db").exists()
        deadline_s = self.clock.monotonic_s() + (AGENT_LIMIT_S if new else AGENT_LATER_LIMIT_S)
        while True:
            try:
                return await ready_to_lead(agent, self.settings.data)
            except SeamLost as lost:
                if self.clock.monotonic_s() > deadline_s:
                    if new:
                        raise CannotStart(f"the agent of this host does not answer: {lost}") from lost
                    return
                await self.clock.sleep(AGENT_RETRY_S)

    def _open_links(self) -> None:
        identity = ensure_identity(self.settings.data / "agents.pem")
        self.links = AgentLinks(self.pool, identity, self.settings.run, self._told_by, self._up_again, self._gone)
        self.links.deposed = self._deposed
        self.links.address = self._address()
        self.pool.services["links"] = self.links
        self.succession = Succession(self.pool, self.settings.data, in_doubt=self.retired.set)
        self.pool.services["succession"] = self.succession

    async def _take_up_work(self, agent: JsonLinesClient) -> None:
        """Before any client: what was interrupted is finished, and records and world agree."""
        self.host = await self._first_facts(agent)
        self.links.address = self.pool.db.get("host", self.host)["address"]
        for host, door in all_doors(self.pool.db).items():
            await self.links.open(host, door)
        await self._assert_leading(agent)
        self.reconciler = Reconciler(self.pool)
        await self.reconciler.start()
        agent.start()
        self._tell_of_the_copy()
        self._copying = asyncio.create_task(self.succession.run())

    def _tell_of_the_copy(self) -> None:
        """Once, for the administrator: this database may lack what was done last."""
        term, db = terms.term_of(self.pool.db), self.pool.db
        known = [m for m in db.all("message").values() if m["name"] == COPY_MESSAGE and str(term.epoch) in m["body"]]
        if term.how == "emergency" and not known:
            text = (
                f"This host leads the pool (epoch {term.epoch}) from a copy of the database that was the latest at"
                f" {term.taken_at}: what the pool was told after that is not in it. The host that led before goes on"
                " acknowledging changes if it is only cut off; audit.log in its data directory lists them, from that"
                " time on"
            )
            post(db, self.clock, COPY_MESSAGE, COPY_PRIORITY, "Pool", self.succession.pool_uuid, text)

    async def _assert_leading(self, agent: JsonLinesClient) -> None:
        """IsMember if one of the other hosts obeys a later coordinator: before anything is done that it may have done
        otherwise."""
        members = self.succession.members()
        await answering(self.pool, members, MEMBERS_ASKED_S)
        epoch, address = max((self.links.leader_seen(host) for host in members), default=(0, ""))
        if epoch > terms.term_of(self.pool.db).epoch:
            raise IsMember(await agent.call(self._follow(epoch, address)))
        try:
            await self.succession.lead(self.links.certificate)
        except XenApiError as error:
            if getattr(error, "seam_code", "") == "BAD_STATE":
                raise CannotStart(f"the agent of this host: {error}") from error
            log.warning("the agent of this host does not know who leads: %s", error)

    def _follow(self, epoch: int, address: str) -> PoolFollow:
        certificate, pool_uuid = self.links.certificate, self.succession.pool_uuid
        return PoolFollow(pool_uuid=pool_uuid, epoch=epoch, certificate=certificate, coordinator_address=address)

    def _deposed(self, epoch: int, address: str) -> None:
        """Another host leads: nothing more is done here, and this one's agent is told."""
        if self.pool.db.still or not self.host:
            return
        log.warning("the pool is led by the host at %s: this coordinator ends", address)
        self.pool.db.hold_still(None, XenApiError("HOST_IS_SLAVE", [address]))

        async def follow() -> None:
            while not self.retired.is_set():
                try:
                    await self.pool.agents[self.host].call(self._follow(epoch, address))
                    self.retired.set()
                except (SeamError, SeamLost) as error:
                    log.warning("the agent of this host does not follow: %s", error)
                    await self.clock.sleep(FOLLOW_AGAIN_S)

        self._following = asyncio.get_running_loop().create_task(follow())

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
        names = [self.settings.address, *(str(pif["IP"]) for pif in self.pool.db.all("PIF").values())]
        await self.server.listen_unix(self.settings.run / SOCKET)
        certificate = certificate_of_doors(self.settings, names, self.clock)
        if certificate is not None:
            self.pool.services["certificate"] = certificate
        self.ports += await listen(self.server, self.settings, certificate)
        self.nbd = NbdFront(self.pool, certificate, self.settings.nbd_port)
        self.nbd.start()

    def _managed_at(self, address: str) -> None:
        """The doors that are not at every address of this host are at its new one too."""
        certificate = self.pool.services.get("certificate")
        work = listen_at(self.server, self.settings, certificate, address)
        self._moving = asyncio.get_running_loop().create_task(work)

    def _agent_client(self) -> JsonLinesClient | None:
        if self.settings.agent is None:
            return None
        return agent_client(
            self.settings.agent, told=self._told, up=self._up, down=lambda why: self._gone(self.host, why)
        )

    def _told(self, event: Any) -> None:
        if isinstance(event, AllegianceChanged):
            if event.allegiance.state == "member":
                self.retired.set()
        else:
            self._told_by(self.host, event)

    def _up(self, reply: host_agent.HelloReply) -> None:
        log.info("agent %s, %s", reply.agent_version, reply.hypervisor)
        self._asking = asyncio.get_running_loop().create_task(self._ask_whose())
        if self.host:
            self._up_again(self.host)

    async def _ask_whose(self) -> None:
        """A host may have been adopted while nobody listened to its agent."""
        try:
            if self.agent is not None and (await self.agent.call(Allegiance())).state == "member":
                self.retired.set()
        except (SeamError, SeamLost) as error:
            log.warning("whose this host is, its agent does not say: %s", error)

    def _told_by(self, host: str, event: Any) -> None:
        if self.reconciler is not None:
            self.reconciler.agent_event(host, event)

    def _up_again(self, host: str) -> None:
        if self.reconciler is not None:
            self.reconciler.agent_up(host)

    def _gone(self, host: str, why: str) -> None:
        log.warning("agent: %s", why)
        if self.reconciler is not None and host:
            self.reconciler.agent_down(host)

    def _address(self) -> str:
        given = self.settings.address or next((a.host for a in self.settings.listen + self.settings.plain), "")
        return given if given not in ("", "::", "0.0.0.0") else "127.0.0.1"  # noqa: S104 compared, not bound


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
    parser.add_argument("--nbd-port", type=int, default=NBD_PORT, help="for readers of disks, on networks for that")
    parser.add_argument("--name-label", default="", help="of the pool, at first start (default: none)")
    parser.add_argument("--address", default="", help="where clients reach this host (default: that of --listen)")
    parser.add_argument("--web", type=Path, help="directory of static files to serve on /")
    parser.add_argument("--root-password-file", type=Path, help="root's password at first start (default: random)")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(words)


async def serve(settings: Settings) -> bool:
    """Whether it ended only to begin anew."""
    ended = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, ended.set)
    while not ended.is_set():
        try:
            async with Coordinator(settings) as coordinator:
                # the records of a large pool are millions of objects that live on: looking through them again and again
                # for garbage stopped the whole process for seconds
                gc.freeze()
                gc.set_threshold(50_000, 20, 50)
                gc.enable()
                log.info("serving %s and ports %s", settings.run / SOCKET, coordinator.ports)
                await _until(ended, coordinator.retired, coordinator.restart)
            if coordinator.restart.is_set() and not ended.is_set():
                return True
        except IsMember as found:
            async with Member(settings, found.allegiance) as member:
                await _until(ended, member.released)
        except InDoubt as found:
            async with Doubtful(settings, found.handing) as doubtful:
                await _until(ended, doubtful.released)
    return False


async def _until(ended: asyncio.Event, *turned: asyncio.Event) -> None:
    """Until the process is to end, or (a little later than that) is to become something else."""
    waits = [asyncio.create_task(event.wait()) for event in (ended, *turned)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if not ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_AFTER_S):
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
        nbd_port=options.nbd_port,
    )
    gc.disable()  # until the records are read: see serve()
    try:
        if asyncio.run(serve(settings)):
            begin_anew()
    except (CannotStart, OSError) as error:
        log.error("cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
