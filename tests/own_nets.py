"""Names and networks for labs that no other test process on this machine uses: one for each core, two runs at once."""

import fcntl
import functools
import os
from pathlib import Path

OWN = os.getpid() % 1000  # part of the names of a process's labs
OCTETS_OF_A_PROCESS = 24
BASES = [f"198.19.{octet}" for octet in range(0, 256 - OCTETS_OF_A_PROCESS, OCTETS_OF_A_PROCESS)]
LOCKS = Path("/run/gespann-tests")


@functools.cache
def _base() -> str:
    """Held until the process ends, however it ends: the kernel keeps the lock."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    for base in BASES:
        held = os.open(LOCKS / base, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
        else:
            return base
    raise RuntimeError(f"{len(BASES)} other test processes use all networks: wait for one to end")


def net_of(offset: int) -> str:
    """What a lab takes as ``net``; it uses this number and the two after it."""
    first, second, third = _base().split(".")
    assert offset < OCTETS_OF_A_PROCESS
    return f"{first}.{second}.{int(third) + offset}"
