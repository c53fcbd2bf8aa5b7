"""The coordinator's process with other waits: it looks after what has stalled ten times as often. Who is silent is
waited for as long as a slow machine may need; with ``GIVES_UP_SOON`` in the environment, for seconds."""

import os
import sys

from gespann.main import coordinator
from gespann.pool import links
from gespann.pool.reconcile import reconciler
from gespann.sr import registry
from gespann.sr.equal import EqualDriver, Timing

SOON = Timing(
    connect_timeout_s=5.0,
    alive_every_s=2.0,
    command_timeout_s=8.0,
    read_timeout_s=8.0,
    drain_timeout_s=8.0,
    drain_poll_s=0.05,
)
PATIENT = Timing(
    connect_timeout_s=90.0,
    session_timeout_s=90.0,
    alive_every_s=30.0,
    command_timeout_s=90.0,
    read_timeout_s=90.0,
    drain_timeout_s=90.0,
    drain_poll_s=0.05,
)

if __name__ == "__main__":
    soon = "GIVES_UP_SOON" in os.environ
    reconciler.ROUND_S /= 10
    links.ALIVE_EVERY_S, links.ALIVE_WITHIN_S = (2.0, 6.0) if soon else (20.0, 60.0)
    registry.DRIVERS["equal"] = lambda: EqualDriver(timing=SOON if soon else PATIENT)
    sys.exit(coordinator.main(sys.argv[1:]))
