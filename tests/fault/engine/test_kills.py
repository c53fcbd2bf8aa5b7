"""The engine is killed some hundred times under writers that remember what was acknowledged: nothing of it is missing.

``make crash`` goes on with new seeds for as long as one likes; a failure prints the seed that repeats its choices. What
the campaign can see is tested by itself, in ``test_disks.py``.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.seams.engine_socket import VolumeCreate
from tests.fault.engine.campaign import Campaign, Life
from tests.fault.engine.operations import Delete
from tests.fault.engine.small_disk import EngineOnSmallDisk
from tests.fault.engine.wire import Session
from tests.fault.engine.writer import Writer
from tests.product.engine.engine_process import EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
SEEDS = range(20261, 20265)
KILLS_EACH = 55
MIB = 1 << 20


@pytest.fixture
def engine(engine_path: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(engine_path, tmp_path)
    yield process
    process.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_missing_after_any_kill(engine: EngineProcess, seed: int) -> None:
    campaign = Campaign(engine, seed)
    campaign.run(KILLS_EACH)
    tally = campaign.tally
    assert tally["kills"] >= KILLS_EACH
    assert tally["writes"] > KILLS_EACH, dict(tally)
    kinds = {what.split()[1] for what, times in tally.items() if what.startswith("killed:") and times}
    assert {"any", "request", "file"} <= kinds, f"the campaign has no more variety: {dict(tally)}"


def drive(writers: list[Writer], until: Callable[[], bool]) -> None:
    """Writers write until the condition holds."""
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline, "the writers do not get there"
        for writer in writers:
            writer.fill()
        for writer in select.select([writer.session for writer in writers], [], [], 0.01)[0]:
            writer.pull()


@pytest.fixture
def small(engine_path: Path, tmp_path: Path) -> Iterator[EngineOnSmallDisk]:
    process = EngineOnSmallDisk(engine_path, tmp_path, size_mib=48)
    yield process
    process.stop()


def test_a_full_file_system_and_kills_corrupt_nothing_and_writes_go_on(small: EngineOnSmallDisk) -> None:
    """Writes are refused for want of space, like those of a host that pauses then; some are repeated when there is
    space again, some are cut off by a kill."""
    campaign = Campaign(small, 27)
    control = small.start()
    for number in range(5):  # two that are written and together have no room, three that take room
        disk = campaign.new_disk(16 * MIB if number < 2 else 3 * MIB)
        control.call(VolumeCreate(volume=disk.volume, size_bytes=disk.size_bytes, thick=number >= 2))
        campaign.disks[disk.volume] = disk
    control.close()
    campaign.kill(signal.SIGKILL)
    first, second, *room = campaign.disks.values()
    for number in range(6):
        control = campaign.start()
        campaign.settle(control)
        campaign.doubtful.update(campaign.disks)
        campaign.read_doubtful()
        sessions = [(Session(small.port, disk.iqn), disk) for disk in (first, second)]
        writers = [Writer(*pair, campaign.clock, campaign.chance, campaign.tally) for pair in sessions]
        small.take_room(24 * MIB)
        drive(writers, lambda: all(writer.held for writer in writers))  # noqa: B023 - called at once
        if number % 2:
            Life.call_all(control, Delete(campaign, room.pop()))
            wanted = campaign.tally["writes"] + 20
            drive(writers, lambda: go_on(writers, campaign, wanted))  # noqa: B023
        campaign.kill(signal.SIGKILL)
        small.give_room_back()
        for writer in writers:
            writer.session.pull()
            writer.session.close()
        control.close()
    assert campaign.tally["refused for want of space"] >= 12
    campaign.check_all()


def test_the_engine_starts_on_a_full_file_system(small: EngineOnSmallDisk) -> None:
    control = small.start()
    control.call(VolumeCreate(volume="1" * 32, size_bytes=MIB))
    small.take_room(48 * MIB)
    small.end(signal.SIGKILL)
    control.close()
    small.start().close()


def go_on(writers: list[Writer], campaign: Campaign, wanted: int) -> bool:
    """Space given back may come a moment after the answer: who is refused tries again."""
    for writer in writers:
        writer.go_on()
    return campaign.tally["writes"] >= wanted


def test_an_engine_that_stands_still_for_a_while_loses_nothing(engine: EngineProcess) -> None:
    """SIGSTOP in the middle of many commands, SIGCONT: all of them are answered, then it is killed."""
    campaign = Campaign(engine, 19)
    campaign.create()
    for _ in range(10):
        control = campaign.start()
        campaign.settle(control)
        campaign.doubtful.update(campaign.disks)
        campaign.read_doubtful()
        sessions = [(Session(engine.port, disk.iqn), disk) for disk in campaign.disks.values()]
        writers = [Writer(*pair, campaign.clock, campaign.chance, campaign.tally) for pair in sessions]
        stop_and_go(engine, campaign, writers)
        campaign.kill(signal.SIGKILL)
        for writer in writers:
            writer.session.pull()
            writer.session.close()
        control.close()
    campaign.check_all()


def stop_and_go(engine: EngineProcess, campaign: Campaign, writers: list[Writer]) -> None:
    assert engine.process is not None
    before = campaign.tally["writes"]
    drive(writers, lambda: campaign.tally["writes"] > before)
    engine.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, engine.process.pid, os.WSTOPPED)
    for writer in writers:
        writer.fill()
    newest = [(writer, max(writer.session.commands)) for writer in writers if writer.session.commands]
    assert newest
    engine.process.send_signal(signal.SIGCONT)
    drive(writers, lambda: all(number < min(w.session.commands, default=number + 1) for w, number in newest))
