"""The array cannot be reached, or its group, its engine or the host's agent hangs, before ``vm-start`` or in the middle
of it: an error in bounded time that says who does not answer, nothing half made when it is back, and the next try
works."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.whole.life import HALTED, RUNNING, bring, state_of
from tests.product.whole.whole import AGENT, ENGINE, GROUP, HOSTNAME, Whole, is_clear, running

pytestmark = pytest.mark.engine
MIDDLE = 2  # of the pieces on the SSH connection, and of the engine's messages


@pytest.fixture
async def whole(engine_path: Path, ssh_host_keys: Path) -> AsyncIterator[Whole]:
    async with running(engine_path, ssh_host_keys, gives_up_soon=True) as made:
        made.sr = await made.make_sr()
        yield made


async def fails_and_then_works(whole: Whole, mend, *words: str) -> None:
    """``words``: what the error must say."""
    ended = await whole.try_xe("vm-start vm=web1")  # which waits 60 s at most
    assert (ended.status, is_clear(ended.stderr)) == (1, True), ended
    assert all(word in ended.stderr for word in words), ended
    await mend()
    await whole.settled(str(ended))
    assert await state_of(whole) == HALTED
    await bring(whole, RUNNING)
    await whole.settled("the next try")


@pytest.mark.parametrize("how", ["silent", "cut off"])
async def test_array_unreachable(whole: Whole, how: str) -> None:
    await whole.make_template()
    await bring(whole, HALTED)
    door = whole.ssh_door

    async def strike() -> None:
        door.open = False
        if how == "cut off":
            await door.stop_listening()
            door.hang_up()

    async def mend() -> None:
        assert await door.disarm()
        door.open = True
        if how == "cut off":
            await door.start()
        else:
            door.hang_up()

    door.arm(MIDDLE, strike)
    await fails_and_then_works(whole, mend)


@pytest.mark.parametrize("when", ["before", "in the middle"])
async def test_group_hangs(whole: Whole, when: str) -> None:
    """Its process stands still; its machine goes on taking connections, and what is sent on them."""
    await whole.make_template()
    await bring(whole, HALTED)
    pid = await whole.pid(GROUP)

    async def strike() -> None:
        os.kill(pid, signal.SIGSTOP)

    async def mend() -> None:
        assert when == "before" or await whole.ssh_door.disarm()
        os.kill(pid, signal.SIGCONT)

    if when == "before":
        await strike()
    else:
        whole.ssh_door.arm(MIDDLE, strike)
    await fails_and_then_works(whole, mend, "127.0.0.1:")  # where the group is managed
    assert await whole.pid(GROUP) == pid


async def test_engine_hangs(whole: Whole) -> None:
    await whole.make_template()
    await bring(whole, HALTED)
    pid = await whole.pid(ENGINE)

    async def strike() -> None:
        os.kill(pid, signal.SIGSTOP)

    async def mend() -> None:
        assert await whole.engine_door.disarm()
        os.kill(pid, signal.SIGCONT)

    whole.engine_door.arm(MIDDLE, strike)
    await fails_and_then_works(whole, mend)
    assert await whole.pid(ENGINE) == pid


async def test_agent_hangs(whole: Whole) -> None:
    """Its answer may take minutes, when storage is slow; that it is not there at all is found out sooner."""
    await whole.make_template()
    await bring(whole, HALTED)
    pid = await whole.pid(AGENT)

    async def strike() -> None:
        os.kill(pid, signal.SIGSTOP)

    async def mend() -> None:
        assert await whole.agent_door.disarm()
        os.kill(pid, signal.SIGCONT)

    whole.agent_door.arm(1, strike)
    await fails_and_then_works(whole, mend, "offline", HOSTNAME)


async def test_agent_hangs_while_nothing_is_asked(whole: Whole) -> None:
    """The host is shown as away all the same, and what would need it is refused at once."""
    await whole.make_template()
    await bring(whole, HALTED)
    pid = await whole.pid(AGENT)
    host = await whole.xe("host-list --minimal")
    os.kill(pid, signal.SIGSTOP)
    await whole.until_shown(f"host-param-get uuid={host} param-name=host-metrics-live", "false")
    await fails_and_then_works(whole, lambda: resume(pid), "offline", HOSTNAME)


async def resume(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
