"""Asking a host: who waits for one that is not there any more is told which host that is."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from gespann.pool import links
from gespann.pool.steps import host_door
from gespann.seams.engine_socket import Empty
from gespann.seams.host_agent import VERSION, DomainPause, Hello, HelloReply
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.json_lines import JsonLinesServer
from tests.unit.pool.world import World, until

HANGS_S = 3600.0


class Agent:
    """At its socket. Says nothing to anybody while it hangs."""

    def __init__(self, path: Path) -> None:
        self.hangs, self.greeted = asyncio.Event(), 0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.server = JsonLinesServer(path, {Hello: self.hello, DomainPause: self.pause})

    async def hello(self, request: Hello) -> HelloReply:
        self.greeted += 1
        if self.hangs.is_set():
            await asyncio.sleep(HANGS_S)
        return HelloReply(protocol="gespann-agent", version=VERSION, agent_version="", hypervisor="fake")

    async def pause(self, request: DomainPause) -> Empty:
        self.asked.set()
        await self.may_answer.wait()
        if request.uuid == "none":
            raise SeamError("BAD_STATE", "it does not run")
        return Empty()


@pytest_asyncio.fixture
async def agent(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "ALIVE_EVERY_S", 0.01)
    made = Agent(tmp_path / "agent.sock")
    await made.server.start()
    downs: list[str] = []
    client = links.agent_client(
        tmp_path / "agent.sock", told=lambda _: None, up=lambda _: None, down=lambda why: downs.append(why)
    )
    monkeypatch.setitem(world.pool.agents, world.host, client)
    yield made
    await client.close()
    await made.server.stop(grace_s=0)


async def test_a_slow_answer_is_waited_for(world: World, agent: Agent) -> None:
    asked = asyncio.ensure_future(host_door.ask(world.pool, world.host, DomainPause(uuid="x")))
    await until(lambda: agent.greeted >= 5)
    agent.may_answer.set()
    assert await asked == Empty()


async def test_an_agent_that_hangs_is_offline(world: World, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who waits hears it at once, however long the work may take that they have asked for."""
    monkeypatch.setattr(links, "ALIVE_WITHIN_S", 0.05)
    client = links.agent_client(agent.server.socket_path, told=lambda _: None, up=lambda _: None, down=lambda why: None)
    monkeypatch.setitem(world.pool.agents, world.host, client)
    requests = [DomainPause(uuid=str(n)) for n in range(20)]
    asked = [asyncio.ensure_future(host_door.ask(world.pool, world.host, one, HANGS_S)) for one in requests]
    await agent.asked.wait()
    agent.hangs.set()
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(answer, XenApiError)
        assert (answer.code, answer.params) == ("HOST_OFFLINE", [world.host])
        assert answer.nobody_answered  # type: ignore[attr-defined]
    await client.close()


async def test_a_refusal_keeps_its_word(world: World, agent: Agent) -> None:
    agent.may_answer.set()
    with pytest.raises(host_door.HostRefused, match="it does not run") as raised:
        await host_door.ask(world.pool, world.host, DomainPause(uuid="none"))
    assert raised.value.seam_code == "BAD_STATE"
