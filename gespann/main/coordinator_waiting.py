"""The coordinator's process while it leads nothing: its host is a member of a pool (``Member``), or another host must
say whether it leads the pool that this one led (``Doubtful``)."""

import asyncio
import contextlib
import logging
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gespann.main.coordinator_doors import SOCKET, CannotStart, Settings, certificate_of_doors, listen, lock
from gespann.pool.api.server import ApiServer
from gespann.pool.links import EVENTS
from gespann.pool.member import DoubtfulApi, MemberApi, put_aside
from gespann.pool.succession import doubt, terms
from gespann.pool.succession.copies import DATABASE, Taking, epoch_in, install
from gespann.seams import host_agent
from gespann.seams.host_membership import Allegiance, AllegianceChanged, AllegianceReply, JoinWithdraw
from gespann.seams.host_succession import CopyShow, CopyShowReply, PoolFollow, next_epoch
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock, SystemClock
from gespann.system.json_lines import JsonLinesClient
from gespann.system.mutual_tls import certificate_of
from gespann.xe.server import serve_cli

log = logging.getLogger("gespann.main.coordinator")

DOUBT_AGAIN_S = 2.0


class IsMember(Exception):
    """This host belongs to another coordinator's pool, as its agent says."""

    def __init__(self, allegiance: AllegianceReply) -> None:
        super().__init__(f"a member of the pool at {allegiance.coordinator_address}")
        self.allegiance = allegiance


class InDoubt(Exception):
    """Whether this host leads, another one knows."""

    def __init__(self, handing: doubt.Handing) -> None:
        super().__init__(f"the pool may have gone to {handing.address}")
        self.handing = handing


async def _open_doors(server: ApiServer, settings: Settings, clock: Clock) -> list[int]:
    """The socket of this machine, and those of the network: their ports."""
    await server.listen_unix(settings.run / SOCKET)
    return await listen(server, settings, certificate_of_doors(settings, [settings.address], clock))


@dataclass
class Member:
    """The process while its host is a member of another pool: clients are told where the coordinator is. It keeps
    nothing; the database of the pool that this host was is put aside."""

    settings: Settings
    allegiance: AllegianceReply
    clock: Clock = field(default_factory=SystemClock)
    ports: list[int] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "Member":
        settings = self.settings
        self._lock = lock(settings.data)
        put_aside(settings.data)
        log.warning("this host is a member of the pool at %s", self.allegiance.coordinator_address)
        assert settings.agent is not None
        hello = host_agent.Hello(version=host_agent.VERSION)
        self._agent = JsonLinesClient(
            settings.agent, hello=hello, events=EVENTS, on_event=self._told, on_up=lambda _: self._ask()
        )
        api = MemberApi(self.allegiance.coordinator_address, self._agent, self.clock)
        self.server = ApiServer(api, cli=serve_cli, web=settings.web, streams=False)
        self.ports += await _open_doors(self.server, settings, self.clock)
        self._agent.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._agent.close()
        await self.server.stop()
        os.close(self._lock)

    def _told(self, event: Any) -> None:
        if isinstance(event, AllegianceChanged):
            self._heard(event.allegiance)

    def _heard(self, allegiance: AllegianceReply) -> None:
        known = self.allegiance
        if allegiance.state != "member" or allegiance.coordinator_address != known.coordinator_address:
            self.released.set()

    def _ask(self) -> None:
        async def ask() -> None:
            try:
                self._heard(await self._agent.call(Allegiance()))
            except (SeamError, SeamLost) as error:
                log.warning("whose this host is, its agent does not say: %s", error)

        self._asking = asyncio.get_running_loop().create_task(ask())


@dataclass
class Doubtful:
    """The process while another host must say whether it leads the pool: clients are told so."""

    settings: Settings
    handing: doubt.Handing
    clock: Clock = field(default_factory=SystemClock)
    ports: list[int] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "Doubtful":
        settings = self.settings
        self._lock = lock(settings.data)
        self.server = ApiServer(DoubtfulApi(self.handing.address, self._keep), cli=serve_cli, streams=False)
        self.ports += await _open_doors(self.server, settings, self.clock)
        self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._asking.cancel()
        await self.server.stop()
        os.close(self._lock)

    async def _ask(self) -> None:
        while not self.released.is_set():
            try:
                await self._ask_once()
            except (SeamLost, SeamError) as error:
                log.warning("%s: nobody says yet: %s", InDoubt(self.handing), error)
                await self.clock.sleep(DOUBT_AGAIN_S)

    async def _ask_once(self) -> None:
        data, identity = self.settings.data, self.settings.data / "agents.pem"
        leader = await doubt.resolve(self.handing, identity)
        if leader is not None:
            assert self.settings.agent is not None
            agent = JsonLinesClient(self.settings.agent, hello=host_agent.Hello(version=host_agent.VERSION))
            epoch, address = leader
            follow = PoolFollow(
                pool_uuid=self.handing.pool_uuid,
                epoch=epoch,
                certificate=certificate_of(identity),
                coordinator_address=address,
            )
            try:
                await agent.call(follow)
            finally:
                await agent.close()
        doubt.take_away(data)
        self.released.set()

    def _keep(self) -> None:
        """This host leads on, by an epoch that is later than any that the other one was offered."""
        self._asking.cancel()
        db = sqlite3.connect(self.settings.data / DATABASE)
        with contextlib.closing(db), db:
            db.executescript(terms.SCHEMA)
            db.execute(
                "INSERT OR REPLACE INTO pool_term VALUES (1, ?, 'handover', '')", (next_epoch(self.handing.epoch),)
            )
        doubt.take_away(self.settings.data)
        self.released.set()


async def ready_to_lead(agent: JsonLinesClient, data: Path) -> None:
    """IsMember; else the database by which this host leads is there. An offer that a crash left is taken back: either
    it has been adopted before that, or never will be."""
    try:
        allegiance: AllegianceReply = await agent.call(Allegiance())
        if allegiance.state == "joining":
            allegiance = await agent.call(JoinWithdraw())
    except SeamError as error:
        if error.code != "BAD_REQUEST":  # an agent that can join no pool
            raise
        return
    if allegiance.state == "member":
        raise IsMember(allegiance)
    if allegiance.taken_copy and epoch_in(data) < allegiance.epoch:
        there: CopyShowReply = await agent.call(CopyShow())
        facts: host_agent.FactsReply = await agent.call(host_agent.Facts())
        if there.about is None or there.about.copy_id != allegiance.taken_copy:
            raise CannotStart("this host leads the pool from a copy that its agent does not have any more")
        taking = Taking(Path(there.path), allegiance.epoch, allegiance.taken_how, there.about.taken_at, facts.host_uuid)
        await asyncio.to_thread(install, data, taking)
