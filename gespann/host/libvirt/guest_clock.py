"""The clock of a guest that was away: it stood still with its machine, and its kernel does not know.

Best effort: a guest without agent keeps the wrong time until somebody corrects it, as after any pause.
"""

import asyncio
import logging
import time

import libvirt

from gespann.host.libvirt.machines import Machines
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

ASK_AGAIN_S = 0.5
GIVE_UP_S = 60.0
NOT_YET = frozenset({"GUEST_AGENT", "TIMEOUT", "BAD_STATE"})


class GuestClocks:
    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._away: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def was_away(self, uuid: str) -> None:
        """From its restoring on, until ``goes_on``."""
        self._away.add(uuid)

    def goes_on(self, uuid: str) -> None:
        if uuid in self._away:
            self._away.discard(uuid)
            task = asyncio.create_task(self._correct(uuid))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _correct(self, uuid: str) -> None:
        give_up_s = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up_s:
            try:
                if (await self._machines.need(uuid))[1].agent_connected:
                    await self._machines.act("correct the clock of", uuid, _set_time)
                    return
            except SeamError as error:
                if error.code not in NOT_YET:
                    log.info("clock of %s: %s", uuid, error.message)
                    return
            await asyncio.sleep(ASK_AGAIN_S)


def _set_time(domain: libvirt.virDomain) -> None:
    """In a worker. The agent sets the system's clock first and the hardware's after it; only the latter may fail."""
    now_ns = time.time_ns()
    domain.setTime({"seconds": now_ns // 10**9, "nseconds": now_ns % 10**9})
