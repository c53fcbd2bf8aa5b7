"""Asks every agent for its counters, again and again, and keeps what follows from them.

What has been gathered outlives the coordinator: it is written to files under DATA/rrd now and then and at the end, and
read back at the start. A crash loses what is newer than ``KEEP_EVERY_S``, and nothing else.
"""

import asyncio
import logging
import re
from pathlib import Path

import msgspec

from gespann.pool.pool import Pool
from gespann.pool.rrd.archive import FUNCTIONS, SHAPES, STEP_S, Rrd, Series, Source
from gespann.pool.rrd.sources import domains_by_start, host_values, vm_values
from gespann.pool.rrd.storage_sources import Traffic, sr_values, traffic_by_sr, traffic_values
from gespann.seams.host_agent import Counters, CountersReply
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.files import private_directory, write_secret

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 4.0
KEEP_EVERY_S = 3600.0
_UUID = re.compile(r"[0-9a-f-]{36}")


class _KeptSeries(msgspec.Struct):
    source: tuple[str, str, str, float, float]
    rings: list[tuple[int, list[float | None]]]  # None: not known


class _Kept(msgspec.Struct):
    updated_s: float
    series: list[_KeptSeries]
    forgotten: list[str]


class Collector:
    """``pool.services["rrd"]``. ``directory`` none: nothing is kept on disk."""

    def __init__(self, pool: Pool, directory: Path | None = None) -> None:
        self._pool = pool
        self._directory = private_directory(directory) if directory else None
        self.hosts: dict[str, Rrd] = {}  # by uuid
        self.vms: dict[str, Rrd] = {}
        self.srs: dict[str, Rrd] = {}
        self._traffic: dict[str, dict[str, Traffic]] = {}  # of each host that has told this time, by SR uuid
        self._last: dict[str, CountersReply] = {}  # of each host
        self._job: asyncio.Task[None] | None = None
        pool.services["rrd"] = self

    def start(self) -> None:
        self._load()
        self._job = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)
            self.keep()

    async def _run(self) -> None:
        clock = self._pool.clock
        kept_s = clock.monotonic_s()
        while True:
            now_s = clock.now().timestamp()
            await clock.sleep(STEP_S - now_s % STEP_S)  # at the same moments for all
            try:
                await self.round()
                if clock.monotonic_s() - kept_s > KEEP_EVERY_S:
                    kept_s = clock.monotonic_s()
                    self.keep()
            except Exception:
                log.exception("figures of this moment are lost")

    async def round(self) -> None:
        """Asks all hosts once. One that does not answer has no figures for now."""
        agents = list(self._pool.agents)
        self._traffic.clear()
        await asyncio.gather(*(self._ask(host) for host in agents))
        self.take_srs()

    def take_srs(self) -> None:
        now_s = self._pool.clock.now().timestamp()
        for record in self._pool.db.all("SR").values():
            told = [by_sr[record["uuid"]] for by_sr in self._traffic.values() if record["uuid"] in by_sr]
            self.srs.setdefault(record["uuid"], Rrd()).update(now_s, sr_values(record, told))

    async def _ask(self, host: str) -> None:
        try:
            reply = await self._pool.agents[host].call(Counters(), timeout_s=ANSWER_WITHIN_S)
        except (SeamError, SeamLost) as error:
            log.debug("no figures of host %s: %s", host, error)
            self._last.pop(host, None)
            return
        self.take(host, reply)

    def take(self, host: str, new: CountersReply) -> None:
        record = self._pool.db.find("host", host)
        if record is None:
            return
        now_s = self._pool.clock.now().timestamp()
        old = self._last.get(host)
        self._last[host] = new
        by_sr = self._traffic[host] = traffic_by_sr(self._pool.db, host, new, old)
        values = host_values(new, old)
        for sr, traffic in by_sr.items():
            values |= traffic_values(traffic, sr)
        self.hosts.setdefault(record["uuid"], Rrd()).update(now_s, values)
        earlier = domains_by_start(old)
        elapsed_s = new.taken_s - old.taken_s if old else 0.0
        for domain in new.domains:
            was = earlier.get((domain.uuid, domain.start_id))
            self.vms.setdefault(domain.uuid, Rrd()).update(now_s, vm_values(domain, was, elapsed_s))

    # -- on disk

    def keep(self) -> None:
        """Writes all of it; what belongs to objects that are gone goes."""
        self._drop_gone()
        if self._directory is None:
            return
        for kind, rrds in self._kinds().items():
            for uuid, rrd in rrds.items():
                try:
                    write_secret(self._directory / f"{kind}-{uuid}", msgspec.msgpack.encode(_to_keep(rrd)))
                except OSError as error:
                    log.error("figures of %s %s cannot be kept: %s", kind, uuid, error)
        for path in self._directory.iterdir():
            kind, _, uuid = path.name.partition("-")
            if _UUID.fullmatch(uuid) and uuid not in self._kinds().get(kind, {}):
                path.unlink(missing_ok=True)

    def _kinds(self) -> dict[str, dict[str, Rrd]]:
        return {"host": self.hosts, "vm": self.vms, "sr": self.srs}

    def _drop_gone(self) -> None:
        for class_name, rrds in (("host", self.hosts), ("VM", self.vms), ("SR", self.srs)):
            here = {record["uuid"] for record in self._pool.db.all(class_name).values()}
            for uuid in set(rrds) - here:
                del rrds[uuid]

    def _load(self) -> None:
        if self._directory is None:
            return
        for path in self._directory.iterdir():
            kind, _, uuid = path.name.partition("-")
            if kind not in self._kinds() or not _UUID.fullmatch(uuid):
                continue
            try:
                kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
            except (OSError, msgspec.MsgspecError) as error:
                log.error("%s cannot be read: %s", path, error)
                continue
            self._kinds()[kind][uuid] = _from_kept(kept)
        self._drop_gone()


def _rings() -> list[tuple[int, str]]:
    return [(0, FUNCTIONS[0]), *((a, name) for a in range(1, len(SHAPES)) for name in FUNCTIONS)]


def _to_keep(rrd: Rrd) -> _Kept:
    series = []
    for one in rrd.series.values():
        source = one.source
        rings = []
        for archive, function in _rings():
            newest, values = one.ring(archive, function).stored()
            rings.append((newest, [None if v != v else v for v in values]))
        words = (source.name, source.description, source.units, source.least, source.most)
        series.append(_KeptSeries(words, rings))
    return _Kept(rrd.updated_s, series, sorted(rrd.forgotten))


def _from_kept(kept: _Kept) -> Rrd:
    rrd = Rrd()
    rrd.updated_s, rrd.forgotten = kept.updated_s, set(kept.forgotten)
    for one in kept.series:
        series = Series(Source(*one.source))
        for (archive, function), (newest, values) in zip(_rings(), one.rings, strict=False):
            series.ring(archive, function).restore(newest, [float("nan") if v is None else v for v in values])
        rrd.series[series.source.name] = series
    return rrd
