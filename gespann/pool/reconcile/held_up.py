"""Machines that QEMU has stopped because a disk answered with an error: a full array's way to say "not now". Nothing is
lost: the write waits in QEMU. They are let go on from time to time; if there is still no space, the same write stops
them again.
"""

import logging
from typing import TYPE_CHECKING

from gespann.pool.plan.shapes import Lock
from gespann.pool.reconcile.storage_alerts import tell_that_it_waits
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.openings import Start, start_of
from gespann.pool.steps.runner import Work
from gespann.seams.host_agent import Domain, DomainUnpause
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
QUIET_S = 3600.0  # a machine that is stopped and let go on again and again is told of once in this time


class HeldUp:
    """``pool.services["held_up"]``."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._waiting: dict[str, Start] = {}
        self._told: dict[str, tuple[Start, float]] = {}
        pool.services["held_up"] = self

    def seen(self, vm: str, start: Start, domain: Domain) -> None:
        """How the machine of that start is now."""
        if domain.state != "paused" or domain.reason != "ioerror":
            self._waiting.pop(vm, None)
            return
        self._waiting[vm] = start
        now_s = self._pool.clock.monotonic_s()
        told, told_s = self._told.get(vm, (None, 0.0))
        if told != start or now_s - told_s > QUIET_S:
            self._told[vm] = (start, now_s)
            log.warning("VM %s waits for its storage", domain.uuid)
            tell_that_it_waits(self._pool, vm)

    async def go_on(self) -> None:
        """Unless somebody is doing something with it."""
        work: Work = self._pool.services["work"]
        for vm, start in list(self._waiting.items()):
            self._waiting.pop(vm, None)  # the next look tells whether it waits again
            record = self._pool.db.find("VM", vm)
            if record is None or start_of(self._pool.db, vm) != start or work.locks.is_held("VM", vm):
                continue
            try:
                with work.holding(Lock("VM", vm)):
                    await ask(self._pool, start.host, DomainUnpause(uuid=record["uuid"]))
            except XenApiError as error:
                log.info("VM %s does not go on: %s", record["uuid"], error)
                self._waiting.setdefault(vm, start)
        self._told = {vm: told for vm, told in self._told.items() if self._pool.db.find("VM", vm) is not None}
