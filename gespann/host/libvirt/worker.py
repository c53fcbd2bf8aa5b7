"""Libvirt's calls block, some of them for ever: each runs in a thread of its own, and nobody waits past a deadline.

A thread that is stuck in a hung call ends when the call does; it keeps nobody else waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from gespann.seams.json_lines import SeamError

T = TypeVar("T")

_loop_started = threading.Lock()


async def in_worker(call: Callable[[], T], deadline_s: float, what: str) -> T:
    """SeamError TIMEOUT after the deadline: the effect may still happen."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=f"libvirt {what}", daemon=True).start()
    try:
        async with asyncio.timeout(deadline_s):
            return await future
    except TimeoutError:
        raise SeamError("TIMEOUT", f"{what}: libvirt has not answered within {deadline_s:g} s") from None


def start_event_loop() -> None:
    """Libvirt's own loop, once per process. It must be there before the first connection is opened, or events and
    keep-alives of that connection never come."""
    if not _loop_started.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda *_: None, None)  # else every error is also a line on stderr

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()
