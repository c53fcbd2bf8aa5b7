"""What a coordinator does for the one after it: copies of the pool, on every member.

pool.services["succession"] = Succession(pool, data)
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gespann.pool.pool import HostDoor, Pool
from gespann.pool.steps.host_door import HostOffline, ask
from gespann.pool.steps.vm_records import wire_time
from gespann.pool.succession.copies import Making, make_copy
from gespann.pool.succession.terms import term_of
from gespann.seams.host_membership import Allegiance, AllegianceReply
from gespann.seams.host_succession import (
    PART_BYTES,
    CopyAbout,
    CopyKeep,
    CopyPart,
    CopyShow,
    CopyShowReply,
    PoolLead,
)
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.steps.runner import Work

log = logging.getLogger(__name__)

PACKED = "copy.packed"
TICK_S = 5.0
#: a copy is made at most so often, and costs at most this part of the time
BETWEEN_COPIES_S, COST_MOST = 30.0, 0.02
#: while nothing changes, members are told at least so often that their copy is still the pool as it is
VOUCH_EVERY_S = 60.0


@dataclass
class Succession:
    """``in_doubt``: somebody else may lead, and this coordinator must ask before it does anything more."""

    pool: Pool
    data: Path
    in_doubt: Callable[[], None] = lambda: None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _spread: dict[str, str] = field(default_factory=dict)  # host -> the copy that it has
    _copied: tuple[int, CopyAbout | None] = (-1, None)  # as of which commit
    _not_before_s: float = 0.0
    _vouched_s: float = 0.0

    @property
    def own_host(self) -> str:
        return str(next(iter(self.pool.db.all("pool").values()))["master"])

    @property
    def pool_uuid(self) -> str:
        return str(next(iter(self.pool.db.all("pool").values()))["uuid"])

    async def lead(self, certificate: str) -> None:
        """Tells this machine's agent by which epoch its coordinator leads. XenApiError."""
        epoch = term_of(self.pool.db).epoch
        await ask(self.pool, self.own_host, PoolLead(pool_uuid=self.pool_uuid, epoch=epoch, certificate=certificate))

    def members(self) -> list[str]:
        return [host for host in self.pool.db.all("host") if host != self.own_host]

    # -- copies

    async def copy_to(self, host: str, without: str = "") -> CopyAbout:
        """The pool as it is now, durable on that host. XenApiError."""
        async with self._turn:
            about = await self._make(without)
            await self._send(host, about)
        return about

    async def spread(self) -> dict[str, XenApiError]:
        """The pool as it is now, on every member. Gives those that have not got it, and why."""
        async with self._turn:
            return await self._spread_now()

    async def run(self) -> None:
        """For ever: whenever something has changed, members get a copy, but see ``BETWEEN_COPIES_S``."""
        while True:
            await self.pool.clock.sleep(TICK_S)
            try:
                await self.tick()
            except Exception:
                log.exception("no copy of the pool was made")

    async def tick(self) -> None:
        """Whatever is due now."""
        if self._turn.locked() or self.pool.db.still or not self.members():
            return
        changed = self.pool.db.durable_commits != self._copied[0]
        if changed and self.pool.clock.monotonic_s() < self._not_before_s:
            return
        about = self._copied[1]
        lacking = [host for host in self._live() if about is None or self._spread.get(host) != about.copy_id]
        if changed or lacking:
            async with self._turn:
                await self._spread_now(only_live=True)
        elif about is not None and self.pool.clock.monotonic_s() - self._vouched_s >= VOUCH_EVERY_S:
            async with self._turn:
                await self._vouch(about)

    async def _vouch(self, about: CopyAbout) -> None:
        """Members' copies are as good as if they had been made now."""
        about = msgspec.structs.replace(about, taken_at=wire_time(self.pool.clock.now()))
        self._copied, self._vouched_s = (self._copied[0], about), self.pool.clock.monotonic_s()
        for host in self._live():
            try:
                await ask(self.pool, host, CopyKeep(about=about))
            except XenApiError as error:
                self._spread.pop(host, None)
                log.warning("a member's copy of the pool is not known to be the latest: %s", error)

    def _live(self) -> list[str]:
        db = self.pool.db
        records = [(host, db.get("host", host)) for host in self.members()]
        return [host for host, record in records if db.get("host_metrics", record["metrics"])["live"]]

    async def _spread_now(self, *, only_live: bool = False) -> dict[str, XenApiError]:
        failed: dict[str, XenApiError] = {}
        about = await self._make()
        for host in self._live() if only_live else self.members():
            try:
                await self._send(host, about)
            except XenApiError as error:
                failed[host] = error
                log.warning("a member has no copy of the pool of %s: %s", about.taken_at, error)
        return failed

    async def _make(self, without: str = "") -> CopyAbout:
        commits, about = self._copied
        if about is not None and commits == self.pool.db.durable_commits and not without:
            return about
        began_s, commits = self.pool.clock.monotonic_s(), self.pool.db.durable_commits
        making = await self._making(without)
        try:
            about = await asyncio.to_thread(make_copy, making, self.data / PACKED)
        except (OSError, sqlite3.Error) as error:
            raise XenApiError("INTERNAL_ERROR", [f"no copy of the database can be made: {error}"]) from error
        took_s = self.pool.clock.monotonic_s() - began_s
        self._not_before_s = self.pool.clock.monotonic_s() + max(BETWEEN_COPIES_S, took_s / COST_MOST)
        self._copied, self._vouched_s = (commits, about), self.pool.clock.monotonic_s()
        return about

    async def _making(self, without: str) -> Making:
        own, pool = self.own_host, self.pool
        mine: AllegianceReply = await ask(pool, own, Allegiance())
        if not mine.door_port:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["The agent of this host has no door: start it with --door"])
        door = HostDoor(str(pool.db.get("host", own)["address"]), mine.door_port, mine.certificate)
        return Making(
            self.data,
            (own, door),
            self.pool_uuid,
            term_of(pool.db).epoch,
            wire_time(pool.clock.now()),
            without,
        )

    async def _send(self, host: str, about: CopyAbout) -> None:
        there: CopyShowReply = await ask(self.pool, host, CopyShow())
        if there.about != about:
            with (self.data / PACKED).open("rb") as file:
                offset_bytes = 0
                while data := await asyncio.to_thread(file.read, PART_BYTES):
                    await ask(self.pool, host, CopyPart(copy_id=about.copy_id, offset_bytes=offset_bytes, data=data))
                    offset_bytes += len(data)
            await ask(self.pool, host, CopyKeep(about=about), timeout_s=600.0)
        self._spread[host] = about.copy_id


def succession_of(pool: Pool) -> Succession:
    """OPERATION_NOT_ALLOWED for a pool that has none (no files, in a test)."""
    found = pool.services.get("succession")
    if found is None:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["This coordinator keeps no files"])
    return cast(Succession, found)


def work_of(pool: Pool) -> "Work":
    return cast("Work", pool.services["work"])


async def answering(pool: Pool, hosts: list[str], within_s: float) -> list[str]:
    """Those of ``hosts`` whose agents answer this coordinator now."""

    async def asked(host: str) -> bool:
        try:
            await ask(pool, host, Allegiance(), timeout_s=within_s)
        except HostOffline:
            return False
        return True

    answers: list[Any] = await asyncio.gather(*(asked(host) for host in hosts))
    return [host for host, answered in zip(hosts, answers, strict=True) if answered]
