"""Keeps an engine running: adopts the one that answers, starts one if none does, and again when it dies.

The engine runs in a session of its own and is not stopped with the group: guests keep their disks.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from gespann.array.data_plane.link import HELLO
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock, sleep_unless
from gespann.system.json_lines import JsonLinesClient
from gespann.system.processes import CommandFailed, LongRunning, Word, start_logged

log = logging.getLogger(__name__)

LOOK_S = 0.5  # for an engine that hangs, or whose process is not known; one that dies is noticed at once
WAIT_MOST_S = 30.0  # between starts, when the engine dies again and again
STARTUP_S = 10.0


class EngineSupervisor:
    def __init__(
        self,
        program: Path,
        data_dir: Path,
        socket_path: Path,
        portal: str,
        clock: Clock,
        on_event: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        self._words: list[Word] = [program, "--data", data_dir, "--socket", socket_path, "--portal", portal]
        self._log_path = data_dir.parent / "engine.log"
        self._data_dir = data_dir
        self._socket_path = socket_path
        self._clock = clock
        self._on_event = on_event
        self._process: LongRunning | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._watched: tuple[int, int] | None = None  # the engine's process, and a descriptor of it
        self._ended = asyncio.Event()

    async def start(self) -> None:
        """Returns when an engine answers, or when it is clear that it will take longer."""
        if await self._answers():
            log.info("adopted the engine that answers on %s", self._socket_path)
        else:
            self._launch()
            deadline_s = self._clock.monotonic_s() + STARTUP_S
            while not await self._answers() and self._clock.monotonic_s() < deadline_s and not self._dead():
                await self._clock.sleep(0.05)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stops watching. The engine goes on."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._unwatch()

    async def _keep(self) -> None:
        """Looks every LOOK_S, and when the process ends. Only an engine that never answers is started more and more
        rarely: one that ran and dies is missed by guests."""
        wait_s, start_again_at_s = LOOK_S, 0.0
        while True:
            await sleep_unless(self._ended, self._clock, LOOK_S)
            self._ended.clear()
            if await self._answers():
                if self._dead():
                    self._process = None  # another has the data, and was only slow: it is adopted
                wait_s, start_again_at_s = LOOK_S, 0.0
                continue
            if self._process is not None and not self._dead():
                continue  # it runs but does not answer: starting a second one would not help
            if self._clock.monotonic_s() < start_again_at_s:
                continue
            self._on_event("ERROR", "The engine is not running; it is started again.")
            self._launch()
            wait_s = min(wait_s * 2, WAIT_MOST_S)
            start_again_at_s = self._clock.monotonic_s() + wait_s

    def _watch(self, pid: int) -> None:
        """Its end is heard of from now on, whoever started it."""
        if self._watched is not None and self._watched[0] == pid:
            return
        self._unwatch()
        try:
            self._watched = pid, os.pidfd_open(pid)
        except OSError:
            return  # it has ended since, or is not of this machine: LOOK_S is left
        asyncio.get_running_loop().add_reader(self._watched[1], self._has_ended)

    def _unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched[1])
            os.close(self._watched[1])
            self._watched = None

    def _has_ended(self) -> None:
        self._unwatch()
        self._ended.set()

    def _launch(self) -> None:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._process = start_logged(self._words, self._log_path)
        except (CommandFailed, OSError) as error:
            self._process = None
            log.error("%s", error)
            return
        self._watch(self._process.pid)
        log.info("engine started, process %d", self._process.pid)

    def _dead(self) -> bool:
        """Whether the process that we started has ended; an adopted one is judged by its socket alone."""
        return self._process is not None and self._process.poll() is not None

    async def _answers(self) -> bool:
        client = JsonLinesClient(self._socket_path, timeout_s=5.0)
        try:
            self._watch((await client.call(HELLO)).pid)
        except (SeamLost, SeamError):
            return False
        finally:
            await client.close()
        return True
