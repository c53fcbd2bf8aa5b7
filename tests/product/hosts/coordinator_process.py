"""The coordinator's process with shorter waits, and a storage driver that only imagines its array."""

import sys

from gespann.main import coordinator
from gespann.pool.reconcile import reconciler
from gespann.sr import registry
from gespann.sr.memory import MemoryDriver

if __name__ == "__main__":
    reconciler.ROUND_S /= 10
    coordinator.TURN_AFTER_S /= 2
    registry.DRIVERS["memory"] = MemoryDriver
    sys.exit(coordinator.main(sys.argv[1:]))
