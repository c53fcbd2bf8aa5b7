"""Looks at the space that volumes share: says so when it runs short, when it is full, and when it is well again. That
of the group, and that of each storage pool as soon as one has a capacity.

What is full refuses nothing but writes that need new space: hypervisors pause their guests and go on when there is
space again. That is the engine's part (``space.limit``, ``space.pools``, or a full file system); this only tells.
"""

from gespann.array.model.events import Events
from gespann.array.model.member_space import MemberSpaces
from gespann.array.model.sizes import format_size
from gespann.array.model.space import FileSystem
from gespann.array.model.storage_pools import StoragePools
from gespann.seams.engine_socket import SpaceReply

STEP_PERCENT = 5  # a warning at the limit, and again after each further step
GROUP = ""


class SpaceWatch:
    def __init__(self, spaces: MemberSpaces, pools: StoragePools, events: Events) -> None:
        self._spaces = spaces
        self._pools = pools
        self._levels = {GROUP: _Level("The group", "8.9", events)}
        self._events = events

    def look(self, said: SpaceReply) -> None:
        member = self._spaces.get()
        left = member.left_of(said)
        self._levels[GROUP].look(left, member.warn_percent)
        spaces = pool_spaces(said, left)
        pools = [pool for pool in self._pools.all() if pool.name in spaces]
        kept = {name: level for name, level in self._levels.items() if name == GROUP or name in spaces}
        self._levels = {pool.name: _Level(f"Storage pool {pool.name}", "7.2", self._events) for pool in pools} | kept
        for pool in pools:
            self._levels[pool.name].look(spaces[pool.name], pool.warn_percent)


def pool_spaces(said: SpaceReply, left: FileSystem) -> dict[str, FileSystem]:
    """What each pool has, and has left, by its name; nothing while no pool has a capacity: all have the same then."""
    spaces = {
        pool.pool: FileSystem(total_bytes=pool.capacity_bytes, free_bytes=pool.capacity_bytes - pool.used_bytes)
        for pool in said.pools
        if pool.capacity_bytes is not None
    }
    shared = FileSystem(
        total_bytes=left.total_bytes - sum(space.total_bytes for space in spaces.values()),
        free_bytes=left.free_bytes - sum(max(0, space.free_bytes) for space in spaces.values()),
    )
    return {pool.pool: spaces.get(pool.pool, shared) for pool in said.pools} if spaces else {}


class _Level:
    """Of one space: what has been told of it."""

    def __init__(self, whose: str, code: str, events: Events) -> None:
        self._whose = whose
        self._code = code
        self._events = events
        self._warned = -1  # steps past the limit that have been told
        self._full = False

    def look(self, left: FileSystem, warn_percent: int) -> None:
        free_bytes = max(0, left.free_bytes)
        used_percent = 100 if left.total_bytes <= 0 else (left.total_bytes - free_bytes) * 100 // left.total_bytes
        self._tell_full(free_bytes <= 0)
        if used_percent < warn_percent:
            if self._warned >= 0:
                self._tell("INFO", 3, f"{self._whose}'s space is used to {used_percent}% again.")
            self._warned = -1
            return
        steps = (used_percent - warn_percent) // STEP_PERCENT
        if steps > self._warned:
            self._warned = steps
            free = format_size(free_bytes, rounding="down")
            text = f"{self._whose}'s space is used to {used_percent}%, warning limit {warn_percent}%: {free} left."
            self._tell("WARNING", 1, text)

    def _tell_full(self, full: bool) -> None:
        if full and not self._full:
            text = f"{self._whose} has no free space: writes that need new space wait until there is some."
            self._tell("ERROR", 2, text)
        self._full = full

    def _tell(self, level: str, number: int, text: str) -> None:
        self._events.add(level, f"{self._code}.{number}", text)
