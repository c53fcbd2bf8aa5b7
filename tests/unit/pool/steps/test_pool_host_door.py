"""Waiting for a host: as long as it takes while its agent is there, and no longer."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from gespann.pool.steps import host_door
from gespann.seams.engine_socket import Request
from gespann.seams.host_agent import DomainList, Hello
from gespann.seams.json_lines import SeamLost
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, until


class Agent:
    """Answers a request when it is told to; a greeting at once, while it ``lives``."""

    def __init__(self) -> None:
        self.lives, self.greeted = True, 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.given_up = False

    async def call(self, request: Request, timeout_s: float | None = None) -> Any:
        if isinstance(request, Hello):
            self.greeted += 1
            if not self.lives:
                raise SeamLost(f"no answer within {timeout_s} s")
            return None
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.given_up = True
            raise


@pytest_asyncio.fixture
async def agent(world: World, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr(host_door, "ALIVE_EVERY_S", 0.001)
    made = Agent()
    monkeypatch.setitem(world.pool.agents, world.host, made)
    return made


async def test_a_slow_answer_is_waited_for(world: World, agent: Agent) -> None:
    asked = asyncio.ensure_future(host_door.ask(world.pool, world.host, DomainList()))
    await until(lambda: agent.greeted >= 3)
    agent.answer.set_result("at last")
    assert await asked == "at last"


async def test_an_agent_that_hangs_is_offline(world: World, agent: Agent) -> None:
    asked = asyncio.ensure_future(host_door.ask(world.pool, world.host, DomainList()))
    await until(lambda: agent.greeted >= 1)
    agent.lives = False
    with pytest.raises(XenApiError, match="HOST_OFFLINE") as raised:
        await asked
    assert raised.value.nobody_answered  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    assert agent.given_up
