"""Each command of each operation fails once, in each way: the group refuses it, refuses it although it took effect,
drops the connection before or after the effect, or never answers. What was begun is taken back; a repeat ends as if
nothing had happened; and undoing the operation as the pool would leaves what was there before."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from gespann.seams.sr_driver import Opening, SnapshotSpec, Sr, SrDriver, SrError, VolumeSpec
from gespann.sr.equal import EqualDriver, Timing
from tests.seams.array_cli_client.fake_array import FAULT_KINDS, FakeArray, Fault, FaultKind
from tests.seams.array_cli_client.fake_state import State

SR_UUID = "0ff867ef-3121-0e7c-5497-f5c34916727d"
DISK, COPY = "22267eb7-23c0-4479-a063-f5c34916727d", "33367eb7-23c0-4479-a063-f5c34916727d"
SPEC = VolumeSpec(DISK, 100 * 2**20, "web1 0", "Root disk", sm_config={"allocation": "thin"})
COPY_SPEC = VolumeSpec(COPY, 0, "web2 0", sm_config={"allocation": "thick"})
OTHER, MONDAY, TUESDAY, KEPT = (f"{n}2267eb7-23c0-4479-a063-f5c34916727d" for n in (4, 5, 6, 7))
ONE = [SnapshotSpec(DISK, VolumeSpec(MONDAY, 0, "monday"))]
TWO = [*ONE, SnapshotSpec(OTHER, VolumeSpec(TUESDAY, 0, "monday"))]
BESIDE = Opening("start-8", "RW", "iqn.2026-11.org.example:start-8", "", "s3cretS3cret16ch", beside="start-7")
OPENING = Opening("start-7", "RW", "iqn.2026-11.org.example:start-7", "", "s3cretS3cret16ch")
TIMING = Timing(
    connect_timeout_s=60.0,
    session_timeout_s=60.0,
    command_timeout_s=60.0,
    read_timeout_s=60.0,
    alive_every_s=0.0,  # the clock is put forward: SSH would take that for silence
    drain_timeout_s=60.0,
    drain_poll_s=0.001,
)
NEVER_MORE_COMMANDS = 40

Step = Callable[[SrDriver, Sr], Awaitable[object]]


async def nothing(driver: SrDriver, sr: Sr) -> None:
    """Before an SR is made, or to undo what only changes a volume."""


async def with_sr(driver: SrDriver, sr: Sr) -> None:
    await driver.create(sr, 0)


async def with_disk(driver: SrDriver, sr: Sr) -> None:
    await driver.create(sr, 0)
    await driver.volume_create(sr, SPEC)


async def with_open_disk(driver: SrDriver, sr: Sr) -> None:
    await with_disk(driver, sr)
    await driver.open(sr, DISK, OPENING)


async def with_moving_disk(driver: SrDriver, sr: Sr) -> None:
    await with_open_disk(driver, sr)
    await driver.open(sr, DISK, BESIDE)


async def with_two_disks(driver: SrDriver, sr: Sr) -> None:
    await with_disk(driver, sr)
    await driver.volume_create(sr, replace(SPEC, vdi_uuid=OTHER))


async def with_snapshot(driver: SrDriver, sr: Sr) -> None:
    await with_disk(driver, sr)
    await driver.volumes_snapshot(sr, ONE)
    await driver.volume_resize(sr, DISK, 200 * 2**20)


async def with_open_snapshot(driver: SrDriver, sr: Sr) -> None:
    await with_snapshot(driver, sr)
    await driver.open(sr, MONDAY, OPENING)


async def with_last_snapshot(driver: SrDriver, sr: Sr) -> None:
    await with_open_snapshot(driver, sr)
    await driver.volume_destroy(sr, DISK)


async def restored(driver: SrDriver, sr: Sr) -> None:
    await driver.volume_restore(sr, DISK, MONDAY, VolumeSpec(KEPT, 0, "kept"))


async def with_restored_disk(driver: SrDriver, sr: Sr) -> None:
    await with_snapshot(driver, sr)
    await restored(driver, sr)


@dataclass(frozen=True)
class Operation:
    prepare: Step
    run: Step
    undo: Step  # what the pool does when it gives up
    takes_back: bool = True  # after an error the group is as it was before, without anybody's help


OPERATIONS = {
    "create": Operation(nothing, lambda d, sr: d.create(sr, 0), lambda d, sr: d.destroy(sr)),
    "volume_create": Operation(
        with_sr, lambda d, sr: d.volume_create(sr, SPEC), lambda d, sr: d.volume_destroy(sr, DISK)
    ),
    "volume_clone": Operation(
        with_disk, lambda d, sr: d.volume_clone(sr, DISK, COPY_SPEC), lambda d, sr: d.volume_destroy(sr, COPY)
    ),
    "open": Operation(
        with_disk, lambda d, sr: d.open(sr, DISK, OPENING), lambda d, sr: d.close(sr, DISK, OPENING.opening_id)
    ),
    "close": Operation(with_open_disk, lambda d, sr: d.close(sr, DISK, OPENING.opening_id), nothing, takes_back=False),
    "open, beside": Operation(
        with_open_disk,
        lambda d, sr: d.open(sr, DISK, BESIDE),
        lambda d, sr: d.close(sr, DISK, "start-8"),
        takes_back=False,
    ),
    "open, beside, with leases": Operation(
        with_open_disk,
        lambda d, sr: d.open(sr, DISK, BESIDE),
        lambda d, sr: d.close(sr, DISK, "start-8"),
        takes_back=False,
    ),
    "hand_over, with leases": Operation(
        with_moving_disk, lambda d, sr: d.hand_over(sr, DISK, "start-7", "start-8"), nothing, takes_back=False
    ),
    "hand_over": Operation(
        with_moving_disk, lambda d, sr: d.hand_over(sr, DISK, "start-7", "start-8"), nothing, takes_back=False
    ),
    "volume_resize": Operation(
        with_disk, lambda d, sr: d.volume_resize(sr, DISK, 200 * 2**20), nothing, takes_back=False
    ),
    "volume_update": Operation(
        with_disk,
        lambda d, sr: d.volume_update(
            sr,
            VolumeSpec(DISK, 0, "new", sm_config={"allocation": "thick", "snap-reserve-percentage": "7"}),
        ),
        nothing,
        takes_back=False,
    ),
    "volume_destroy": Operation(with_open_disk, lambda d, sr: d.volume_destroy(sr, DISK), nothing, takes_back=False),
    "volumes_snapshot": Operation(
        with_disk, lambda d, sr: d.volumes_snapshot(sr, ONE), lambda d, sr: d.volumes_snapshot_undo(sr, ONE)
    ),
    "volumes_snapshot, two": Operation(
        with_two_disks, lambda d, sr: d.volumes_snapshot(sr, TWO), lambda d, sr: d.volumes_snapshot_undo(sr, TWO)
    ),
    "open, snapshot": Operation(
        with_snapshot, lambda d, sr: d.open(sr, MONDAY, OPENING), lambda d, sr: d.close(sr, MONDAY, OPENING.opening_id)
    ),
    "close, snapshot": Operation(
        with_open_snapshot, lambda d, sr: d.close(sr, MONDAY, OPENING.opening_id), nothing, takes_back=False
    ),
    "volume_clone, snapshot": Operation(
        with_snapshot, lambda d, sr: d.volume_clone(sr, MONDAY, COPY_SPEC), lambda d, sr: d.volume_destroy(sr, COPY)
    ),
    "volume_update, snapshot": Operation(
        with_snapshot, lambda d, sr: d.volume_update(sr, VolumeSpec(MONDAY, 0, "new")), nothing, takes_back=False
    ),
    "volume_destroy, snapshot": Operation(
        with_open_snapshot, lambda d, sr: d.volume_destroy(sr, MONDAY), nothing, takes_back=False
    ),
    "volume_destroy, last snapshot": Operation(
        with_last_snapshot, lambda d, sr: d.volume_destroy(sr, MONDAY), nothing, takes_back=False
    ),
    "volume_destroy, before its snapshots": Operation(
        with_open_snapshot, lambda d, sr: d.volume_destroy(sr, DISK), nothing, takes_back=False
    ),
    "volume_restore": Operation(with_snapshot, restored, nothing, takes_back=False),
    "volume_restore_undo": Operation(
        with_restored_disk, lambda d, sr: d.volume_restore_undo(sr, DISK, KEPT), nothing, takes_back=False
    ),
    "destroy": Operation(with_sr, lambda d, sr: d.destroy(sr), nothing, takes_back=False),
}


@dataclass
class Rehearsed:
    """One operation on one group; ``again`` puts the group back to where the operation begins."""

    array: FakeArray
    driver: EqualDriver
    sr: Sr
    operation: Operation
    before: State
    after: dict[str, object]
    commands: int

    def again(self, *faults: Fault) -> None:
        self.array.state = self.before.copy()
        self.array.faults = list(faults)
        self.array.commands.clear()

    async def run(self) -> SrError | None:
        try:
            await self.operation.run(self.driver, self.sr)
        except SrError as error:
            return error
        finally:
            self.array.faults.clear()
        return None


@pytest.fixture(params=OPERATIONS)
async def rehearsed(request: pytest.FixtureRequest) -> AsyncIterator[Rehearsed]:
    operation = OPERATIONS[request.param]
    async with FakeArray(silence_s=TIMING.command_timeout_s).serve() as array:
        driver = EqualDriver(timing=TIMING)
        sr = Sr(SR_UUID, array.device_config(), {}, "Array", "All of it")
        array.state.leases = "with leases" in request.param
        await operation.prepare(driver, sr)
        before = array.state.copy()
        await operation.run(driver, sr)  # what is asked once and kept, such as the data address, is known now
        array.state = before.copy()
        array.commands.clear()
        await operation.run(driver, sr)
        assert 0 < len(array.commands) < NEVER_MORE_COMMANDS
        yield Rehearsed(array, driver, sr, operation, before, array.state.shown(), len(array.commands))
        await driver.shut_down()


#: a group that never answers costs a new session at each command: tried where the commands differ
HANGS = OPERATIONS.keys() - {name for name in OPERATIONS if "snapshot" in name} | {"volumes_snapshot, two"}
ONE_FAILS = [(name, kind) for name in OPERATIONS for kind in FAULT_KINDS if name in HANGS or kind[:4] != "hang"]


@pytest.mark.parametrize(("rehearsed", "kind"), ONE_FAILS, indirect=["rehearsed"])
async def test_one_command_fails(rehearsed: Rehearsed, kind: FaultKind) -> None:
    failed = 0
    for number in range(rehearsed.commands):
        rehearsed.again(Fault(kind, number))
        error = await rehearsed.run()
        where = f"{kind} at {number}: {rehearsed.array.commands[number : number + 1]}"
        if error is None:
            assert rehearsed.array.state.shown() == rehearsed.after, where
            continue
        failed += 1
        assert OPENING.chap_secret not in f"{error} {error.detail}", where
        if rehearsed.operation.takes_back:
            assert rehearsed.array.state.shown() == rehearsed.before.shown(), where
        assert await rehearsed.run() is None, where
        assert rehearsed.array.state.shown() == rehearsed.after, where
    assert failed, "this kind of fault was never felt"


@pytest.mark.parametrize("rehearsed", ["volume_restore"], indirect=True)
async def test_a_restore_that_is_cut_off_anywhere_can_be_undone(rehearsed: Rehearsed) -> None:
    """Also between making what is kept and giving it its name."""
    for number in range(rehearsed.commands):
        for kind in ("drop-before", "drop-after"):
            rehearsed.again(Fault(kind, number, times=NEVER_MORE_COMMANDS))
            assert await rehearsed.run() is not None
            await rehearsed.driver.volume_restore_undo(rehearsed.sr, DISK, KEPT)
            where = f"{kind} from {number} on: {rehearsed.array.commands[number : number + 1]}"
            assert rehearsed.array.state.shown() == rehearsed.before.shown(), where


async def test_the_array_stays_away_from_some_command_on(rehearsed: Rehearsed) -> None:
    for number in range(rehearsed.commands):
        for kind in ("drop-before", "drop-after"):
            rehearsed.again(Fault(kind, number, times=NEVER_MORE_COMMANDS))
            error = await rehearsed.run()
            where = f"{kind} from {number} on: {rehearsed.array.commands[number : number + 1]}"
            assert error is not None, where
            begun = rehearsed.array.state.copy()
            assert await rehearsed.run() is None, where
            assert rehearsed.array.state.shown() == rehearsed.after, where
            if rehearsed.operation.takes_back:
                rehearsed.array.state = begun
                await rehearsed.operation.undo(rehearsed.driver, rehearsed.sr)
                assert rehearsed.array.state.shown() == rehearsed.before.shown(), where


async def test_a_repeat_changes_nothing(rehearsed: Rehearsed) -> None:
    rehearsed.again()
    assert await rehearsed.run() is None
    assert await rehearsed.run() is None
    assert rehearsed.array.state.shown() == rehearsed.after
