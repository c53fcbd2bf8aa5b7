"""The group's end of seam 4: asks the engine, and keeps its policy the same as the database's.

    engine comes up ──► push all policy ──► whoever listens to ``on_current`` (finish half-made volumes, compare)
         ▲                    │ fails
         └──── wait, again ◄──┘
    a target changes ──► push it ──► lost? then the policy counts as stale, and all of it is pushed as above

Every push reads the database when its turn has come, so the last push always carries the latest state.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from gespann.array.model.refusals import Failed
from gespann.seams.engine_socket import (
    VERSION,
    Configure,
    Hello,
    HelloReply,
    Request,
    Space,
    SpacePools,
    Target,
    TargetPut,
    TargetRemove,
    VolumeInfo,
    VolumeList,
)
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock, sleep_unless
from gespann.system.json_lines import Watch

log = logging.getLogger(__name__)

RETRY_S = 1.0
#: an engine that hangs is not waited for as long as the slowest of requests may take
WATCH = Watch(every_s=5.0, within_s=20.0)
HELLO = Hello(version=VERSION)


class EngineClient(Protocol):
    """A ``JsonLinesClient`` made with ``hello=HELLO``, or the fake."""

    on_up: Callable[[Any], None] | None
    on_down: Callable[[str], None] | None

    def start(self) -> None: ...
    async def call(self, request: Request, timeout_s: float | None = None) -> Any: ...
    async def close(self) -> None: ...


class DataPlane:
    def __init__(
        self,
        client: EngineClient,
        clock: Clock,
        policy: Callable[[frozenset[str]], Configure],
        target: Callable[[str], Target | None],
        limits: Callable[[frozenset[str]], Sequence[Request]] = lambda present: (),
        pools: Callable[[Collection[str] | None], SpacePools] = lambda members: SpacePools(pools=[]),
    ) -> None:
        """``policy``: the whole, for the volumes (by NAA) that the engine has. ``target``: of one volume or snapshot by
        its NAA, if it is to have one. ``limits``: of space, set before anybody is let in. ``pools``: all storage pools,
        with those of their volumes that are among the given ones, or with all."""
        self._client = client
        self._clock = clock
        self._policy = policy
        self._target = target
        self._limits = limits
        self._pools = pools
        self._push_turn = asyncio.Lock()
        self._stale = asyncio.Event()
        self._came_up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self.current = asyncio.Event()  # the engine has the policy of the database
        self.present: frozenset[str] = frozenset()  # the volumes that the engine had when last asked, or got since
        self._meanwhile: list[dict[str, bool]] = []  # for each inventory under way, what has come (True) or gone since
        self.on_current: Callable[[], Awaitable[None]] | None = None
        self.on_lost: Callable[[str], None] | None = None
        client.on_up = self._up
        client.on_down = self._down

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep_current())
        self._client.start()

    async def stop(self) -> None:
        self._client.on_down = None  # this end is meant
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._client.close()

    async def call(self, request: Request, timeout_s: float | None = None) -> Any:
        """SeamError: the engine refused. SeamLost: no answer, the effect may have happened."""
        return await self._client.call(request, timeout_s)

    async def inventory(self) -> dict[str, VolumeInfo]:
        """The engine's volumes by NAA, at some moment of this call. Others make and delete volumes meanwhile, and their
        answers may come first: what they know is newer than the list."""
        meanwhile: dict[str, bool] = {}
        self._meanwhile.append(meanwhile)
        try:
            reply = await self.call(VolumeList())
        finally:
            self._meanwhile = [other for other in self._meanwhile if other is not meanwhile]
        volumes = {info.volume: info for info in reply.volumes}
        gained = {naa for naa, there in meanwhile.items() if there}
        self.present = (frozenset(volumes) | gained) - (meanwhile.keys() - gained)
        return volumes

    async def space(self) -> Any:
        return await self.call(Space())

    async def push_target(self, naa: str) -> None:
        """Puts what the database says of a volume or snapshot in force. Failed: it is recorded, and will be when the
        engine is back, but is not yet."""
        async with self._push_turn:
            target = self._target(naa)
            if naa in self.present:
                await self._push(TargetRemove(volume=naa) if target is None else TargetPut(target=target))

    async def publish(self, target: Target, recorded: Callable[[], None]) -> None:
        """Puts a new target in force and then records it, with no push of the whole policy in between: that would
        take the target away again, because it is not recorded yet. Raises what ``call`` raises."""
        async with self._push_turn:
            await self.call(TargetPut(target=target))
            recorded()

    async def push(self, request: Request) -> None:
        """Any other change of policy, under the same promise."""
        async with self._push_turn:
            await self._push(request)

    async def tell_pools(self, members: Collection[str]) -> None:
        """In which storage pools volumes are that are about to be made. Raises what ``call`` raises."""
        async with self._push_turn:
            await self.call(self._pools(members))

    async def push_pools(self, members: Collection[str] = ()) -> None:
        """The storage pools have changed, or these volumes have moved: under the promise of ``push``."""
        async with self._push_turn:
            await self._push(self._pools(members))

    async def try_limit(self, limit: Request) -> None:
        """An engine that cannot enforce a limit is still looked after by ``operations.thin_watch``."""
        try:
            await self.call(limit)
        except SeamError as error:
            log.warning("%s not in force: %s", limit.op, error)

    def gained(self, naa: str) -> None:
        self.present |= {naa}
        for news in self._meanwhile:
            news[naa] = True

    def gone(self, naa: str) -> None:
        self.present -= {naa}
        for news in self._meanwhile:
            news[naa] = False

    def mark_stale(self) -> None:
        """The whole policy is pushed again as soon as that can be done."""
        self.current.clear()
        self._stale.set()

    async def _push(self, request: Request) -> None:
        try:
            await self.call(request)
        except (SeamLost, SeamError) as error:
            log.warning("%s not pushed: %s", request.op, error)
            self.mark_stale()
            raise Failed(
                "The change is recorded, but the data plane does not answer; it takes effect when it does."
            ) from error

    def _up(self, hello: HelloReply) -> None:
        log.info("engine %s is up, boot %s, configured %s", hello.engine_version, hello.boot_id, hello.configured)
        self._came_up.set()
        self.mark_stale()

    def _down(self, why: str) -> None:
        self.current.clear()
        log.warning("engine lost: %s", why)
        if self.on_lost is not None:
            self.on_lost(why)

    async def _keep_current(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            self._came_up.clear()
            try:
                await self._refresh()
            except Exception as error:  # one bad row must not end the keeper
                if str(error) != self._failure:
                    foreseen = isinstance(error, SeamLost | SeamError | Failed)
                    log.warning("policy not in force yet: %s", error, exc_info=not foreseen)
                self._failure = str(error)
                self._stale.set()
                await sleep_unless(self._came_up, self._clock, RETRY_S)

    async def _refresh(self) -> None:
        async with self._push_turn:
            await self.inventory()
            for limit in self._limits(self.present):
                await self.try_limit(limit)
            await self.call(self._pools(None))  # without them nobody is let in: pools promise space to each other
            await self.call(self._policy(self.present))
        self._failure = None
        if self.on_current is not None:
            await self.on_current()
        if not self._stale.is_set():
            self.current.set()
