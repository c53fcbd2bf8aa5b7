"""``event.from`` and its older relative: who waits is woken by commits and reads what changed from the history.

A token is the generation up to which its holder knows everything. Changes are coalesced per object, and gathered for
a moment before they are told, so that a burst of changes is one answer.
"""

import asyncio
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gespann.pool.api.advertised import CLASSES
from gespann.pool.model.database import Database
from gespann.pool.model.history import Change, HistoryLost
from gespann.pool.pool import Pool
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError

#: gathered for this long after the first change; not for those who watch tasks only, who wait for the end of one
BATCH_S = 0.05
WAIT_LIMIT_S = 3600.0
SUBSCRIPTIONS_LIMIT = 1000
#: told to those who wait: what can change. The published roles cannot, and are many.
CHANGING = sorted(name for name in CLASSES if datamodel.classes()[name].gen_events and name != "role")
_TOKEN = re.compile(r"[0-9]{1,20},[0-9]{1,20}")

Event = dict[str, Any]


@dataclass(frozen=True)
class Subscription:
    classes: frozenset[str]  # real names
    objects: frozenset[tuple[str, str]]  # (class, ref)
    everything: bool = False

    def wants(self, class_name: str, ref: str) -> bool:
        return self.everything or class_name in self.classes or (class_name, ref) in self.objects

    @property
    def tasks_only(self) -> bool:
        return not self.everything and self.classes <= {"task"} and all(c == "task" for c, _ in self.objects)


_EVENT_CLASSES = {name.lower(): name for name, c in datamodel.classes().items() if c.gen_events}


def subscription(words: Sequence[str]) -> Subscription:
    """EVENT_SUBSCRIPTION_PARSE_FAILURE [word] for what is no class of the API. Classes that this pool does not have
    may be asked for: nothing ever happens to them."""
    classes, objects, everything = set(), set(), False
    if len(words) > SUBSCRIPTIONS_LIMIT:
        raise XenApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", [f"{len(words)} subscriptions"])
    for word in words:
        if word == "*":
            everything = True
            continue
        name, slash, ref = word.partition("/")
        known = {c.lower(): c for c in datamodel.classes()}
        real = known.get(name.lower())
        if real is None or (slash and not ref):
            raise XenApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", [word[:128]])
        if slash and ref != "*":
            objects.add((real, ref))
        else:
            classes.add(real)
    return Subscription(frozenset(classes), frozenset(objects), everything)


def token_text(generation: int) -> str:
    return f"{generation:020d},{generation:020d}"


def parse_token(token: str) -> int:
    """0 for the empty token. EVENT_FROM_TOKEN_PARSE_FAILURE."""
    if token == "":
        return 0
    if not _TOKEN.fullmatch(token):
        raise XenApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", [token[:128]])
    return min(int(part) for part in token.split(","))


class Events:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._db: Database = pool.db
        self._wake = asyncio.Event()
        self._db.on_commit(self._on_commit)

    async def from_(self, classes: Sequence[str], token: str, timeout_s: float) -> dict[str, Any]:
        """EVENTS_LOST: the token is too old, or of another run: list everything and ask with an empty one."""
        wanted, position = subscription(classes), parse_token(token)
        if math.isnan(timeout_s):
            timeout_s = 0.0
        if position == 0:
            return self._batch(self._everything(wanted), self._db.generation)
        self._check(position)
        deadline_s = self._pool.clock.monotonic_s() + min(max(timeout_s, 0.0), WAIT_LIMIT_S)
        if await self._wait_change(wanted, position, deadline_s) and not wanted.tasks_only:
            await self._pool.clock.sleep(BATCH_S)
        self._check(position)
        generation = self._db.generation
        return self._batch(self._events(wanted, position), generation)

    async def next(self, wanted: Subscription, position: int) -> tuple[list[Event], int]:
        """Waits for as long as it takes; the events and the generation that they reach to."""
        self._check(position)
        deadline_s = self._pool.clock.monotonic_s() + WAIT_LIMIT_S
        if await self._wait_change(wanted, position, deadline_s) and not wanted.tasks_only:
            await self._pool.clock.sleep(BATCH_S)
        self._check(position)
        generation = self._db.generation
        return self._events(wanted, position), generation

    def inject(self, class_name: str, ref: str) -> str:
        """A token from before a change of that object that nobody made: what follows is seen by who asks with it."""
        real = _EVENT_CLASSES.get(class_name.lower())
        if real is None:
            raise XenApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", [class_name[:128]])
        self._db.get(real, ref)
        token = token_text(self._db.generation)
        self._db.touch(real, ref)
        return token

    def _on_commit(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    def _check(self, position: int) -> None:
        try:
            self._db.history.check(position)
        except HistoryLost:
            raise XenApiError("EVENTS_LOST") from None

    async def _wait_change(self, wanted: Subscription, position: int, deadline_s: float) -> bool:
        """False: nothing until the deadline."""
        seen = position
        while True:
            self._check(seen)
            touched = self._db.history.touched_since(seen)
            if any(wanted.wants(c, ref) and datamodel.classes()[c].gen_events for c, ref in touched):
                return True
            seen = self._db.generation
            left_s = deadline_s - self._pool.clock.monotonic_s()
            if left_s <= 0:
                return False
            await self._wait_commit(left_s)

    async def _wait_commit(self, left_s: float) -> None:
        wake = self._wake
        sleep = asyncio.ensure_future(self._pool.clock.sleep(left_s))
        woken = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait([sleep, woken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            woken.cancel()

    def _everything(self, wanted: Subscription) -> Iterable[Change]:
        now = self._db.generation
        for class_name in CHANGING:
            for ref in self._db.all(class_name):
                if wanted.wants(class_name, ref):
                    yield Change(now, class_name, ref, "add")

    def _events(self, wanted: Subscription, position: int) -> list[Event]:
        changes = self._db.history.since(position)
        return [
            self._event(change)
            for change in changes
            if change.class_name in CHANGING and wanted.wants(change.class_name, change.ref)
        ]

    def _event(self, change: Change) -> Event:
        event: Event = {
            "id": change.generation,
            "timestamp": "0.0",
            "class": change.class_name.lower(),
            "operation": change.operation,
            "ref": change.ref,
        }
        record = self._db.find(change.class_name, change.ref)
        if record is not None and change.operation != "del":
            event["snapshot"] = record
        return event

    def _batch(self, changes: Iterable[Change | Event], generation: int) -> dict[str, Any]:
        events = [change if isinstance(change, dict) else self._event(change) for change in changes]
        return {"events": events, "valid_ref_counts": self.ref_counts(), "token": token_text(generation)}

    def ref_counts(self) -> Mapping[str, int]:
        """Live objects of each class: by it clients notice that they hold one too many."""
        return {name.lower(): len(self._db.all(name)) for name in CHANGING}
