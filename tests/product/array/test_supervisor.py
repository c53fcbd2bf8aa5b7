"""The engine's process dies, and the group has started another before it would have looked."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gespann.array.data_plane.link import HELLO
from gespann.array.data_plane.supervisor import LOOK_S, EngineSupervisor
from gespann.seams.json_lines import SeamLost
from gespann.system.clock import SystemClock
from gespann.system.json_lines import JsonLinesClient
from gespann.system.processes import kill_session
from tests.own_nets import free_port

pytestmark = pytest.mark.engine
WAIT_S = 120.0


class NeverLooks(SystemClock):
    async def sleep(self, delay_s: float) -> None:
        if delay_s == LOOK_S:
            await asyncio.Event().wait()
        await super().sleep(delay_s)


async def pid_of(socket: Path) -> int:
    client = JsonLinesClient(socket, timeout_s=WAIT_S)
    try:
        return (await client.call(HELLO)).pid
    except SeamLost:
        return 0
    finally:
        await client.close()


async def another_than(pid: int, socket: Path) -> int:
    async with asyncio.timeout(WAIT_S):
        while (now := await pid_of(socket)) in (0, pid):  # noqa: ASYNC110 - asked of another process
            await asyncio.sleep(0.01)
    return now


async def test_an_engine_that_dies_is_missed_at_once(engine_path: Path, tmp_path: Path) -> None:
    socket, portal = tmp_path / "socket", f"127.0.0.1:{free_port()}"
    pid = 0
    try:
        for whose in ("its own", "one that was there already"):
            supervisor = EngineSupervisor(engine_path, tmp_path / "data", socket, portal, NeverLooks())
            await supervisor.start()
            try:
                before = await another_than(0, socket)
                os.kill(before, signal.SIGKILL)
                pid = await another_than(before, socket)
            finally:
                await supervisor.stop()
            assert await pid_of(socket) == pid, f"{whose}: the engine goes on"
    finally:
        if pid:
            kill_session(pid)
