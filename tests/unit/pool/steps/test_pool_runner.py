"""The runner itself: locks, cancelling, both causes of a double failure."""

import asyncio
from typing import Any

import pytest

from gespann.pool.model.database import Transaction
from gespann.pool.plan.shapes import Act, Lock, Plan
from gespann.pool.steps.locks import Locks
from gespann.pool.steps.registry import STEPS, Run, Step
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


class Recorder(Step):
    """Writes down what it is asked to do; fails where it is told to."""

    def __init__(self, name: str, log: list[str], fail: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.log = log
        self.fail = fail
        self.gate: asyncio.Event | None = None

    def _pass(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if what in self.fail:
            raise XenApiError("INTERNAL_ERROR", [f"{what} {self.name} failed"])

    async def do(self, run: Run) -> None:
        self._pass("do")
        if self.gate is not None:
            await run.unless_cut_short(wait_for(self.gate))

    async def undo(self, run: Run) -> None:
        self._pass("undo")

    def commit(self, run: Run, tx: Transaction) -> None:
        self._pass("commit")

    def revert(self, run: Run, tx: Transaction) -> None:
        self._pass("revert")


async def wait_for(gate: asyncio.Event) -> None:
    await gate.wait()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(log: list[str], **fails: str) -> list[Recorder]:
        made = []
        for name, fail in fails.items():
            recorder = Recorder(name, log, frozenset(fail.split()))
            monkeypatch.setitem(STEPS, name, recorder)
            made.append(recorder)
        return made

    return make


def plan(*names: str, locks: tuple[Lock, ...] = ()) -> Plan:
    return Plan("test", tuple(Act(name) for name in names), locks)


async def test_steps_are_done_in_order_and_undone_in_reverse(world: World, steps: Any) -> None:
    log: list[str] = []
    steps(log, one="", two="", three="do")
    with pytest.raises(XenApiError) as failed:
        await world.work.run(lambda: plan("one", "two", "three"))
    assert failed.value.params == ["do three failed"]
    assert log == [
        *("do one", "commit one", "do two", "commit two", "do three"),
        *("undo three", "revert three", "undo two", "revert two", "undo one", "revert one"),
    ]
    assert world.work.journal.entries() == []


async def test_both_causes_are_kept(world: World, steps: Any) -> None:
    log: list[str] = []
    one, _ = steps(log, one="undo", two="do")
    with pytest.raises(XenApiError) as failed:
        await world.work.run(lambda: plan("one", "two"))
    assert failed.value.params == ["do two failed"]
    assert failed.value.__notes__ == [
        "and undoing it failed too: ('INTERNAL_ERROR', 'undo one failed')",
    ]
    (entry,) = world.work.journal.entries()
    assert (entry.undoing, entry.position, entry.cause) == (True, 0, ["INTERNAL_ERROR", "do two failed"])
    one.fail = frozenset()
    await world.work.retry_stalled()
    assert (world.work.stalled, world.work.journal.entries()) == ([], [])


async def test_a_commit_that_fails_undoes_the_step(world: World, steps: Any) -> None:
    log: list[str] = []
    steps(log, one="commit")
    with pytest.raises(XenApiError):
        await world.work.run(lambda: plan("one"))
    assert log == ["do one", "commit one", "undo one", "revert one"]


async def test_the_caller_may_go_away(world: World, steps: Any) -> None:
    log: list[str] = []
    (one,) = steps(log, one="")
    one.gate = asyncio.Event()
    caller = asyncio.create_task(world.work.run(lambda: plan("one")))
    await until(lambda: log == ["do one"])
    caller.cancel()
    one.gate.set()
    await until(lambda: log == ["do one", "commit one"])
    assert world.work.journal.entries() == []


async def test_a_task_that_is_cancelled_is_undone(world: World, steps: Any) -> None:
    log: list[str] = []
    (one,) = steps(log, one="")
    one.gate = asyncio.Event()
    task = world.api.tasks.begin("test")
    running = asyncio.create_task(world.work.run(lambda: plan("one"), task=task))
    await until(lambda: log == ["do one"])
    task.ask_cancel()
    with pytest.raises(XenApiError) as ended:
        await running
    assert ended.value.code == "TASK_CANCELLED"
    assert log == ["do one", "undo one", "revert one"]


async def test_past_the_point_of_no_return_nothing_is_cancelled(world: World, steps: Any) -> None:
    log: list[str] = []
    one, two = steps(log, one="", two="")
    one.point_of_no_return = True
    two.gate = asyncio.Event()
    task = world.api.tasks.begin("test")
    running = asyncio.create_task(world.work.run(lambda: plan("one", "two"), task=task))
    await until(lambda: log == ["do one", "commit one", "do two"])
    assert not task.cancellable
    task.ask_cancel()
    two.gate.set()
    await running
    assert log[-1] == "commit two"


async def test_an_object_has_one_operation_at_a_time(world: World, steps: Any) -> None:
    log: list[str] = []
    (one,) = steps(log, one="")
    one.gate = asyncio.Event()
    vm = await world.make_vm()
    running = asyncio.create_task(world.work.run(lambda: plan("one", locks=(Lock("VM", vm, "start"),))))
    await until(lambda: log == ["do one"])
    (holder,) = world.get("VM", vm)["current_operations"]
    with pytest.raises(XenApiError) as refused:
        await world.work.run(lambda: plan("one", locks=(Lock("VM", vm, "destroy"),)))
    assert refused.value.code == "OTHER_OPERATION_IN_PROGRESS"
    assert refused.value.params == ["VM", vm, "start", holder]
    assert log == ["do one"]
    one.gate.set()
    await running
    assert world.get("VM", vm)["current_operations"] == {}
    assert not world.work.locks.is_held("VM", vm)


def test_shared_locks_go_together_and_nothing_else() -> None:
    locks = Locks()
    shared, alone = Lock("VDI", "x", "clone", shared=True), Lock("VDI", "x", "destroy")
    locks.take("one", [shared])
    locks.take("two", [shared])
    with pytest.raises(XenApiError):
        locks.take("three", [Lock("VDI", "y"), alone])
    assert not locks.is_held("VDI", "y")
    locks.release("one", [shared])
    locks.release("two", [shared])
    locks.take("three", [alone])
    with pytest.raises(XenApiError):
        locks.take("one", [shared])
