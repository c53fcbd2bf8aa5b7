"""What its owner wants done when a guest reboots, powers off or gives up by itself: ``actions_after_*``."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gespann.pool.plan.power_plans import plan_stopped
from gespann.pool.steps.openings import Start, start_of
from gespann.pool.steps.reboots import was_asked_for
from gespann.pool.steps.runner import Work
from gespann.seams.host_agent import Domain
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
#: a VM that crashes sooner than this after its start is not restarted: it would only crash again
SHORTEST_LIFE_S = 120.0
CRASHED = frozenset({"crashed", "failed"})
CRASHED_PRIORITY = 2  # as published for the alert VM_CRASHED
PANIC = "The guest gave up"
QEMU_ENDED = "The machine stopped by itself: QEMU ended, or the guest gave up"


def action_after(record: Mapping[str, Any], reason: str) -> str:
    """``destroy``, ``restart`` or ``preserve``. No dumps of memory are made: what asks for one does the rest."""
    if reason in CRASHED:
        wanted = record["actions_after_crash"]
        return "restart" if "restart" in wanted else "preserve" if wanted == "preserve" else "destroy"
    return str(record["actions_after_shutdown"]) if reason == "shutdown" else "destroy"


def may_start_again(pool: "Pool", record: Mapping[str, Any], reason: str) -> bool:
    """``record``: as it was while the machine ran."""
    return reason not in CRASHED or _lived_s(pool, record) >= SHORTEST_LIFE_S


def words_of_crash(record: Mapping[str, Any], text: str) -> str:
    no_dump = "; no dump of its memory is made here" if "coredump" in record["actions_after_crash"] else ""
    return f"{text}{no_dump}"


def _lived_s(pool: "Pool", record: Mapping[str, Any]) -> float:
    metrics = pool.db.find("VM_metrics", record["metrics"])
    if metrics is None:
        return 0.0
    began = datetime.strptime(metrics["start_time"], "%Y%m%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (pool.clock.now() - began).total_seconds()


class GuestEnds:
    """``pool.services["guest_ends"]``."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._preserved: dict[str, Start] = {}  # VM -> the start that has been told of
        pool.services["guest_ends"] = self

    def is_new(self, vm: str, start: Start) -> bool:
        """A machine that stands still after a crash is told of once."""
        known = self._preserved.get(vm) == start
        self._preserved[vm] = start
        return not known

    async def rebooted(self, domain: Domain) -> None:
        """An event has said so. What was asked for through the pool is none of the guest's own."""
        if was_asked_for(self._pool, domain.uuid):
            return
        try:
            vm = self._pool.db.by_uuid("VM", domain.uuid)
        except XenApiError:
            return
        work: Work = self._pool.services["work"]
        await work.locks.until_free("VM", vm)
        start, record = start_of(self._pool.db, vm), self._pool.db.find("VM", vm)
        if record is None or start is None or start.start_id != domain.start_id:
            return
        if record["actions_after_reboot"] == "destroy":
            log.info("VM %s has rebooted by itself, and is to end then", domain.uuid)
            await work.run(lambda: plan_stopped(self._pool.db, vm))
