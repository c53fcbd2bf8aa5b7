"""QEMU's processes, found and killed without libvirt: the last word when libvirtd or the storage hangs."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

POLL_S = 0.01


def qemu_pids(uuid: str) -> list[int]:
    """Of the machine of that uuid: at most one, unless something went very wrong."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"qemu" not in os.path.basename(words[0]) or b"-uuid" not in words:
            continue
        at = words.index(b"-uuid") + 1
        if at < len(words) and words[at] == uuid.encode():
            found.append(int(entry.name))
    return found


def kill(uuid: str) -> None:
    for pid in qemu_pids(uuid):
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if pid in qemu_pids(uuid):  # the descriptor holds on to this very process, whatever its number means later
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


async def gone(uuid: str, timeout_s: float) -> bool:
    """Whether it is, at the latest after so long."""
    try:
        async with asyncio.timeout(timeout_s):
            while await asyncio.to_thread(qemu_pids, uuid):  # noqa: ASYNC110 - not our child: nothing tells of its end
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True
