"""A guest that is held still is let go, whatever happens to whoever holds it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gespann.host.fake import FakeHypervisor
from gespann.host.fake.guest import GuestBehaviour
from gespann.host.holds import Holds
from gespann.seams.json_lines import SeamError
from gespann.system.clock import ManualClock
from tests.unit.host.fake_agent import UUID, spec


@pytest.fixture
async def fake() -> AsyncIterator[FakeHypervisor]:
    made = FakeHypervisor()
    await made.open(lambda event: None)
    await made.bridge_ensure("xenbr0", 1500)
    await made.create(spec())
    await until(lambda: made._running[UUID].agent_up)
    yield made
    await made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def holds(fake: FakeHypervisor, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Holds]:
    made = Holds(fake, tmp_path / "held", clock)
    made.open()
    yield made
    await made.close()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - nothing there tells when it changes
            await asyncio.sleep(0.001)


def frozen(fake: FakeHypervisor) -> bool:
    return fake._running[UUID].frozen


def intents(tmp_path: Path) -> list[str]:
    return [intent.name for intent in (tmp_path / "held").glob("*")]


async def test_held_and_let_go(holds: Holds, fake: FakeHypervisor, tmp_path: Path) -> None:
    await holds.freeze(UUID, 10.0)
    await holds.freeze(UUID, 10.0)
    assert frozen(fake)
    assert intents(tmp_path) == [UUID]
    assert await holds.thaw(UUID)
    assert not frozen(fake)
    assert intents(tmp_path) == []
    assert not await holds.thaw(UUID)


async def test_let_go_by_itself_when_nobody_does(holds: Holds, fake: FakeHypervisor, clock: ManualClock) -> None:
    await holds.freeze(UUID, 10.0)
    await until(lambda: clock.sleepers == 1)
    clock.advance(9.9)
    await asyncio.sleep(0.01)
    assert frozen(fake)
    clock.advance(0.1)
    await until(lambda: not frozen(fake))
    assert not await holds.thaw(UUID)


async def test_the_next_agent_lets_go(holds: Holds, fake: FakeHypervisor, tmp_path: Path) -> None:
    await holds.freeze(UUID, 10.0)
    await holds.close()  # as if killed: the file is still there
    assert frozen(fake)
    after = Holds(fake, tmp_path / "held", ManualClock())
    after.open()
    await until(lambda: not frozen(fake))
    await until(lambda: intents(tmp_path) == [])
    await after.close()


async def test_thawed_until_the_guest_says_so(holds: Holds, fake: FakeHypervisor, clock: ManualClock) -> None:
    fake.behave(UUID, GuestBehaviour(deaf_to_thaws=3))
    await holds.freeze(UUID, 10.0)
    thawing = asyncio.create_task(holds.thaw(UUID))
    for _ in range(3):
        await until(lambda: clock.sleepers == 1)
        assert frozen(fake)
        clock.advance(0.5)
    assert await thawing
    assert not frozen(fake)


async def test_a_freeze_that_nobody_answered_is_thawed(holds: Holds, fake: FakeHypervisor) -> None:
    fake.behave(UUID, GuestBehaviour(obeys_freeze=False))
    with pytest.raises(SeamError) as refused:
        await holds.freeze(UUID, 10.0)
    assert refused.value.code == "TIMEOUT"
    await until(lambda: not frozen(fake))


async def test_no_agent_nothing_held(holds: Holds, fake: FakeHypervisor, tmp_path: Path) -> None:
    fake.guest_agent(UUID, live=False)
    with pytest.raises(SeamError) as refused:
        await holds.freeze(UUID, 10.0)
    assert refused.value.code == "GUEST_AGENT"
    assert intents(tmp_path) == []
    assert not await holds.thaw(UUID)  # at once: nobody waits for an agent that is not there


async def test_a_machine_that_is_gone_is_not_held(holds: Holds, fake: FakeHypervisor, tmp_path: Path) -> None:
    await holds.freeze(UUID, 10.0)
    await fake.destroy(UUID, None)
    assert not await holds.thaw(UUID)
    assert intents(tmp_path) == []
