"""A storage pool's space, kept by the real engine: a full pool holds its own writers, others go on, nothing is lost."""

import asyncio
import contextlib
import os
import signal

import pytest

from gespann.array.data_plane.link import HELLO
from gespann.seams.engine_socket import Space
from gespann.seams.json_lines import SeamLost
from gespann.system.processes import is_running, kill_session
from tests.product.array.group_process import GroupProcess
from tests.product.engine.initiator import Initiator

pytestmark = pytest.mark.engine
MIB = 1 << 20
PIECE = 256 * 1024
GOOD, NO_SPACE = "", "7/27/07"


@pytest.fixture
async def group(tmp_path, engine_path, ssh_host_keys):
    made = GroupProcess(tmp_path, engine_path, ssh_host_keys)
    made.start()
    try:
        await made.until_up()
        await made.cli("pool create small capacity 30MB")
        for name, pool in (("a", "small"), ("b", "default")):
            await made.cli(f"volume create {name} 600MB thin-provision thin-min-reserve 1% unrestricted pool {pool}")
        yield made
    finally:
        if is_running(made.process.pid):
            made.stop(signal.SIGKILL)
        with contextlib.suppress(SeamLost):
            kill_session(await made.engine_pid())


class Guest:
    """Writes pieces of its volume, each with what its number says, and knows which were answered."""

    def __init__(self, group: GroupProcess, target: str) -> None:
        self.initiator = Initiator(group.iscsi_port).login(target)
        self.pieces = 0

    def write(self) -> str:
        """Sense of one more piece; empty: it is written."""
        data = bytes([self.pieces % 250 + 1]) * PIECE
        answer = self.initiator.write10(self.pieces * PIECE // 512, data)
        sense = answer.data[2:]
        if answer.header[3] == 0:
            self.pieces += 1
        return f"{sense[2]:x}/{sense[12]:02x}/{sense[13]:02x}" if answer.header[3] else GOOD

    def write_until_held(self) -> None:
        while (sense := self.write()) == GOOD:
            assert self.pieces * PIECE < 500 * MIB, "the pool takes more than it has"
        assert sense == NO_SPACE

    def check(self) -> None:
        for number in range(self.pieces):
            wanted = bytes([number % 250 + 1]) * PIECE
            assert self.initiator.read10(number * PIECE // 512, PIECE // 512) == wanted, number


async def guests(group) -> tuple[Guest, Guest]:
    targets = [(await group.show(name))["iSCSI Name"] for name in "ab"]
    return Guest(group, targets[0]), Guest(group, targets[1])


async def until_written(guest: Guest) -> None:
    async with asyncio.timeout(120):
        while True:
            if guest.write() == GOOD:
                return
            await asyncio.sleep(0.02)


async def used(group, pool: str) -> int:
    return next(one.used_bytes for one in (await group.engine(Space())).pools if one.pool == pool)


async def test_a_full_pool_holds_its_guests_and_nobody_elses(group):
    a, b = await guests(group)
    a.write_until_held()
    assert await used(group, "small") >= 30 * MIB
    for _ in range(200):
        assert b.write() == GOOD
    assert a.write() == NO_SPACE
    assert await used(group, "default") >= 50 * MIB
    await group.cli("volume select a snapshot create-now")  # what it keeps is in the same pool
    assert a.initiator.write10(0, bytes([1]) * PIECE).header[3] != 0
    assert await group.cli("pool select small capacity 700MB") == []
    await until_written(a)
    a.check()
    b.check()


async def test_a_full_pool_is_as_full_after_the_engine_has_died(group):
    a, _ = await guests(group)
    a.write_until_held()
    pid = await group.engine_pid()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(SeamLost):
                hello = await group.engine(HELLO)
                if hello.pid != pid and hello.configured:
                    break
            await asyncio.sleep(0.05)
    again, b = await guests(group)
    again.pieces = a.pieces
    assert again.write() == NO_SPACE  # from the first write on
    assert b.write() == GOOD
    again.check()
    await group.cli("volume select a pool default")
    await until_written(again)
    b.check()
