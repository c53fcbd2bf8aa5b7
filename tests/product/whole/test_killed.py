"""SIGKILL of each process at each message that the operations of a VM's life send to the array's engine and to the
host, started again: a clear error or success, nothing half made, and the same command works afterwards."""

import pytest

from tests.product.whole.doors import Door
from tests.product.whole.life import COMMANDS, bring, line, state_of
from tests.product.whole.whole import AGENT, COORDINATOR, ENGINE, GROUP, Whole, is_clear

pytestmark = pytest.mark.engine
MOST_MESSAGES = 40
BOTH, BEFORE, AFTER = (False, True), (False,), (True,)
# For the coordinator, what lies after one message of the array is what lies before the next. The group has more moments
# in tests/product/array/test_group_killed.py; here it dies when the engine has done what the group does not know yet.
POINTS = [
    (ENGINE, "engine", BOTH),
    (GROUP, "engine", AFTER),
    (COORDINATOR, "engine", BEFORE),
    (COORDINATOR, "agent", BOTH),
    (AGENT, "agent", BOTH),
]


async def kill_at(whole: Whole, victim: str, door: Door, name: str, number: int, *, after: bool) -> bool:
    """False when the operation has no such message."""
    _, needed, reached = COMMANDS[name]
    await bring(whole, needed)
    door.arm(number, lambda: whole.kill_and_start(victim), after=after)
    ended = await whole.try_xe(line(whole, name))
    struck = await door.disarm()
    where = f"{name}, {'after' if after else 'before'} message {number} of {door.passed}: {ended}"
    assert ended.status == 0 or (ended.status == 1 and is_clear(ended.stderr)), where
    await whole.settled(where)
    now = await state_of(whole)
    assert now in ([reached] if ended.status == 0 else [needed, reached]), where
    await bring(whole, reached)  # the next try
    await whole.settled(f"the next try after {where}")
    return struck


@pytest.mark.parametrize(("victim", "at", "moments"), POINTS, ids=[f"{victim}-at-{door}" for victim, door, _ in POINTS])
async def test_killed_at_each_message(whole: Whole, victim: str, at: str, moments: tuple[bool, ...]) -> None:
    await whole.make_template()
    door = whole.engine_door if at == "engine" else whole.agent_door
    struck = 0
    for name in COMMANDS:
        for number in range(MOST_MESSAGES):
            if not all([await kill_at(whole, victim, door, name, number, after=after) for after in moments]):
                break
            struck += 1
        assert number < MOST_MESSAGES - 1
    assert struck >= (12 if at == "engine" else 4)
