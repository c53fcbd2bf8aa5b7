"""Guests that hold their file systems still, and the promise that none does so for long.

    thawed ──freeze──► intent file ► timer ► guest frozen ──thaw, timer, failure, agent's next start──► "thaw" until the
                                                                      guest says thawed ► intent file gone

A freeze that failed by time may still happen later, so every failure is answered like a success that nobody wants: with
thawing until the guest itself says that it is thawed. The file outlives this process; its next start thaws.
"""

import asyncio
import contextlib
import logging
from pathlib import Path

from gespann.host.hypervisor import Hypervisor
from gespann.seams.json_lines import SeamError
from gespann.system.clock import Clock, SystemClock
from gespann.system.files import private_directory

log = logging.getLogger(__name__)

RETRY_S = 0.5
THAW_ANSWER_S = 60.0  # thaw is answered by then; the thawing goes on


class Holds:
    """``directory``: where the intents are. ``close`` leaves what is held to the next start."""

    def __init__(self, hypervisor: Hypervisor, directory: Path, clock: Clock | None = None) -> None:
        self._hypervisor = hypervisor
        self._directory = directory
        self._clock = clock or SystemClock()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._thaws: dict[str, asyncio.Task[bool]] = {}

    def open(self) -> None:
        """After the hypervisor is there: lets go of what an earlier process held."""
        if self._directory.exists():
            for intent in self._directory.iterdir():
                log.warning("guest %s was held by an agent that is gone: let go", intent.name)
                self._thaw_soon(intent.name)

    async def close(self) -> None:
        tasks: list[asyncio.Task[object]] = [*self._timers.values(), *self._thaws.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def freeze(self, uuid: str, hold_s: float) -> None:
        """Repeated: the time runs from the first. On failure the guest is being let go."""
        if uuid in self._thaws:
            raise SeamError("BAD_STATE", f"the guest of {uuid} is just being let go")
        if uuid in self._timers:
            return
        (private_directory(self._directory) / uuid).touch(mode=0o600)
        self._timers[uuid] = asyncio.create_task(self._let_go_after(uuid, hold_s))
        try:
            await self._hypervisor.guest_freeze(uuid)
        except BaseException as error:
            if isinstance(error, SeamError) and error.code in ("NOT_FOUND", "GUEST_AGENT"):
                self._forget(uuid)  # nobody there who could freeze
            else:
                self._thaw_soon(uuid)
            raise

    async def thaw(self, uuid: str) -> bool:
        """True: it was held until now. TIMEOUT if the guest does not answer; it is asked further on. A guest that this
        host has not asked to hold still is not asked for anything: it may have no agent to answer."""
        held = uuid in self._timers
        if not (held or uuid in self._thaws or (self._directory / uuid).exists()):
            return False
        thawing = self._thaw_soon(uuid)
        try:
            async with asyncio.timeout(THAW_ANSWER_S):
                was_frozen = await asyncio.shield(thawing)
        except TimeoutError:
            raise SeamError("TIMEOUT", f"the guest of {uuid} does not say that it is thawed") from None
        return held and was_frozen

    async def _let_go_after(self, uuid: str, hold_s: float) -> None:
        await self._clock.sleep(hold_s)
        self._timers.pop(uuid, None)
        log.warning("guest %s was held for %g s and nobody let it go", uuid, hold_s)
        self._thaw_soon(uuid)

    def _thaw_soon(self, uuid: str) -> "asyncio.Task[bool]":
        """One thawing at a time for each guest, however many want it."""
        timer = self._timers.pop(uuid, None)
        if timer is not None:
            timer.cancel()
        if uuid not in self._thaws:
            self._thaws[uuid] = asyncio.create_task(self._until_thawed(uuid))
        return self._thaws[uuid]

    async def _until_thawed(self, uuid: str) -> bool:
        told = False
        try:
            while True:
                try:
                    was_frozen = await self._hypervisor.guest_thaw(uuid)
                    self._forget(uuid)
                    return was_frozen
                except SeamError as error:
                    if error.code == "NOT_FOUND":  # the machine is gone, and its freeze with it
                        self._forget(uuid)
                        return False
                    if not told:
                        log.warning("guest %s cannot be thawed yet, it is asked further on: %s", uuid, error.message)
                    told = True
                await self._clock.sleep(RETRY_S)
        finally:
            self._thaws.pop(uuid, None)

    def _forget(self, uuid: str) -> None:
        timer = self._timers.pop(uuid, None)
        if timer is not None:
            timer.cancel()
        with contextlib.suppress(FileNotFoundError):
            (self._directory / uuid).unlink()
