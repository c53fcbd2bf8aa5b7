"""Names, networks and ports that no other test process of this machine uses: one for each core, and several runs."""

import functools
import itertools
import os
import socket
from collections.abc import Iterator

OWN = f"{os.getpid() % 1000:03d}"  # part of the names of a process's labs; of one length: none begins with another
OCTETS_OF_A_PROCESS = 24
SHARES = 10
FIRST_PORT, PORTS_OF_A_PROCESS = 20_000, 1200  # below 32768, where the kernel takes ports for clients from


@functools.cache
def _share() -> tuple[int, socket.socket]:
    """The number of this process's share. Held until the process ends, however it ends, by a name that the kernel knows
    once in a network namespace, whatever directories a process sees."""
    for number in range(SHARES):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0gespann-tests-{number}")
        except OSError:
            held.close()
        else:
            return number, held
    raise RuntimeError(f"{SHARES} other test processes use all networks: wait for one to end")


def net_of(offset: int) -> str:
    """What a lab takes as ``net``; it uses this number and the two after it."""
    assert offset < OCTETS_OF_A_PROCESS
    return f"198.19.{(SHARES - 1 - _share()[0]) * OCTETS_OF_A_PROCESS + offset}"


@functools.cache
def _ports() -> Iterator[int]:
    first = FIRST_PORT + _share()[0] * PORTS_OF_A_PROCESS
    return itertools.cycle(range(first, first + PORTS_OF_A_PROCESS))


def free_port() -> int:
    """For a server of a test that says its port before it listens. One that the kernel chose could be a client's by
    then; these are nobody's, and each is given once in a long while."""
    for port in itertools.islice(_ports(), PORTS_OF_A_PROCESS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
