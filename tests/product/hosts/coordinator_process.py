"""The coordinator's process with shorter waits, and a storage driver that only imagines its array.

DIES_AT=STEP or STEP+ in the environment: it is killed when it begins, or has done, that step of an operation.
"""

import os
import signal
import sys
from typing import Any

from gespann.main import coordinator
from gespann.pool.reconcile import reconciler
from gespann.pool.steps.registry import STEPS
from gespann.pool.succession import succession
from gespann.sr import registry
from gespann.sr.memory import MemoryDriver


def die_at(moment: str) -> None:
    step = STEPS[moment.removesuffix("+")]
    do = step.do

    async def until_then(run: Any) -> None:
        if moment.endswith("+"):
            await do(run)
        os.kill(os.getpid(), signal.SIGKILL)

    step.do = until_then  # type: ignore[method-assign]


if __name__ == "__main__":
    reconciler.ROUND_S /= 10
    succession.TICK_S /= 10
    succession.BETWEEN_COPIES_S /= 60
    if "DIES_AT" in os.environ:
        die_at(os.environ["DIES_AT"])
    coordinator.TURN_AFTER_S /= 2
    registry.DRIVERS["memory"] = MemoryDriver
    sys.exit(coordinator.main(sys.argv[1:]))
