"""The agent's process: ``python -m gespann.main.agent --run DIR --data DIR [--door ADDRESS:PORT] [--fake] ...``.

Serves seam 5 on RUN/agent.sock until SIGTERM or SIGINT; with ``--door`` also, over mutual TLS, to the coordinator of
the pool that this host has joined. Exit status 0 after a signal, 1 if it cannot start.
RUN is volatile (sockets), DATA is not: console logs, what was found about the machine, the key and certificate by
which the pool knows this host, and whose member it is.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path

from gespann.host.door import Door
from gespann.host.fake import FakeHypervisor
from gespann.host.hypervisor import Hypervisor
from gespann.host.membership import Membership
from gespann.host.nbd_export import QemuNbdImages
from gespann.host.server import AgentServer
from gespann.system.files import private_directory
from gespann.system.log import start_logging
from gespann.system.restart import begin_anew

log = logging.getLogger("gespann.main.agent")

SOCKET = "agent.sock"
RESTART_AFTER_S = 0.5


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gespann-agent", description="The agent of a hypervisor host.")
    parser.add_argument("--run", type=Path, required=True, help="directory for sockets, emptied at boot")
    parser.add_argument("--data", type=Path, required=True, help="directory for console logs and what is cached")
    parser.add_argument("--door", default="", help="ADDRESS:PORT for coordinators on other machines (default: none)")
    parser.add_argument("--libvirt-uri", default="qemu:///system")
    parser.add_argument("--fake", action="store_true", help="a hypervisor without machines, for trials and tests")
    parser.add_argument("--fake-hostname", default="fakehost", help="what a fake hypervisor calls its host")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(words)


def hypervisor(options: argparse.Namespace) -> Hypervisor:
    images = QemuNbdImages(options.run / "images")
    if options.fake:
        return FakeHypervisor(run_dir=options.run, images=images, hostname=options.fake_hostname)
    from gespann.host.libvirt import LibvirtHypervisor  # the fake must not need libvirt's library

    return LibvirtHypervisor(options.libvirt_uri, options.run, options.data, images)


def lock(run_dir: Path) -> int:
    """One agent per RUN; the lock goes with the process. BlockingIOError if there is one."""
    fd = os.open(run_dir / "agent.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


async def serve(options: argparse.Namespace) -> bool:
    """Whether it ended only to begin anew."""
    ended = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, ended.set)
    membership = Membership(options.data)
    server = AgentServer(hypervisor(options), options.run / SOCKET, membership)
    await server.start()
    log.info("serving %s", options.run / SOCKET)
    door = None
    if options.door:
        address, _, port = options.door.rpartition(":")
        wide = server.addresses.wide_door
        door = Door(membership, options.run / SOCKET, address.strip("[]") or "::", int(port), wide=wide)
        await door.open()
        server.addresses.move_door = door.spread
        server.migrations.door = door
        log.info("door on %s:%d", address, membership.door_port)
    restart = server.reports.restart
    waits = [asyncio.create_task(event.wait()) for event in (ended, restart)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if restart.is_set():  # whoever asked for it gets his answer before the doors close
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), RESTART_AFTER_S)
    if door is not None:
        await door.close()
    await server.stop()
    return restart.is_set() and not ended.is_set()


def main(words: list[str]) -> int:
    options = arguments(words)
    start_logging(options.log_level)
    os.umask(0o077)
    options.run = private_directory(options.run.absolute())
    options.data = private_directory(options.data.absolute())
    try:
        lock(options.run)
    except BlockingIOError:
        log.error("another agent serves %s", options.run)
        return 1
    try:
        if asyncio.run(serve(options)):
            begin_anew()
    except OSError as error:
        log.error("cannot serve %s: %s", options.run / SOCKET, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
