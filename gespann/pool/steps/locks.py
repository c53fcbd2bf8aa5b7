"""Which operation holds which object. In memory: after a crash the journal says it again."""

import asyncio
from collections import defaultdict

from gespann.pool.plan.shapes import Lock
from gespann.seams.xenapi.errors import XenApiError


class Held(XenApiError):
    """OTHER_OPERATION_IN_PROGRESS, with the id of the operation in the way."""

    def __init__(self, lock: Lock, holder: str) -> None:
        super().__init__("OTHER_OPERATION_IN_PROGRESS", [lock.class_name, lock.ref, lock.operation, holder])
        self.holder = holder


class Locks:
    def __init__(self) -> None:
        self._held: defaultdict[tuple[str, str], dict[str, Lock]] = defaultdict(dict)
        self._waiting: defaultdict[tuple[str, str], list[asyncio.Future[None]]] = defaultdict(list)

    def take(self, operation_id: str, locks: list[Lock], beside: frozenset[str] = frozenset()) -> None:
        """All of them at once, or ``Held`` and none. ``beside``: operations that are in nobody's way any more."""
        for lock in locks:
            for holder, other in self._held.get((lock.class_name, lock.ref), {}).items():
                if holder not in (operation_id, *beside) and not (lock.shared and other.shared):
                    raise Held(other, holder)
        for lock in locks:
            self._held[lock.class_name, lock.ref][operation_id] = lock

    def release(self, operation_id: str, locks: list[Lock]) -> None:
        for lock in locks:
            key = (lock.class_name, lock.ref)
            holders = self._held.get(key, {})
            holders.pop(operation_id, None)
            if not holders:
                self._held.pop(key, None)
                for future in self._waiting.pop(key, []):
                    if not future.done():
                        future.set_result(None)

    def is_held(self, class_name: str, ref: str) -> bool:
        return (class_name, ref) in self._held

    def holders(self, class_name: str, ref: str) -> list[str]:
        return list(self._held.get((class_name, ref), {}))

    def assert_none(self, but: str = "") -> None:
        """``Held`` if anybody else holds anything."""
        for holders in self._held.values():
            for holder, lock in holders.items():
                if holder != but:
                    raise Held(lock, holder)

    async def until_free(self, class_name: str, ref: str) -> None:
        while self.is_held(class_name, ref):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[class_name, ref].append(future)
            await future
