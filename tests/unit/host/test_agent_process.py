"""The process itself, with the fake: one per directory, and machines that outlive it."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gespann.seams import host_agent as seam
from gespann.system import processes
from gespann.system.json_lines import JsonLinesClient, SeamLost
from tests.unit.host.fake_agent import UUID, spec


def words(directory: Path) -> list[str]:
    return [
        sys.executable, "-m", "gespann.main.agent", "--fake",
        "--run", str(directory / "run"), "--data", str(directory / "data"),
    ]  # fmt: skip


@asynccontextmanager
async def agent(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """One that answers; it is gone afterwards, however the test ends."""
    process = await processes.start(words(directory), stderr=asyncio.subprocess.DEVNULL)
    client = JsonLinesClient(directory / "run/agent.sock", hello=seam.Hello(version=1), timeout_s=30)
    try:
        async with asyncio.timeout(120):
            while not await answers(client):  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.01)
        await client.close()
        yield process
    finally:
        await client.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answers(client: JsonLinesClient) -> bool:
    try:
        await client.call(seam.DomainList())
    except SeamLost:
        return False
    return True


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[JsonLinesClient]:
    client = JsonLinesClient(tmp_path / "run/agent.sock", hello=seam.Hello(version=1), timeout_s=10)
    yield client
    await client.close()


async def test_machines_outlive_the_agent(tmp_path: Path, client: JsonLinesClient):
    async with agent(tmp_path) as first:
        await client.call(seam.BridgeEnsure(bridge="xenbr0"))
        domain = await client.call(seam.DomainCreate(spec=spec()))
        first.kill()
        await first.wait()
    async with agent(tmp_path) as second:
        assert (await client.call(seam.DomainList())).domains[0].start_id == domain.start_id
        saved = (tmp_path / "run/fake-domains.json").read_text()
        assert UUID in saved
        assert "secret" not in saved
        second.terminate()
        assert await second.wait() == 0


async def test_a_guest_held_by_an_agent_that_was_killed_is_let_go_by_the_next(tmp_path: Path, client: JsonLinesClient):
    async with agent(tmp_path) as first:
        await client.call(seam.BridgeEnsure(bridge="xenbr0"))
        await client.call(seam.DomainCreate(spec=spec()))
        async with asyncio.timeout(120):
            while not (await client.call(seam.GuestMetrics(uuid=UUID))).live:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await client.call(seam.GuestFreeze(uuid=UUID, hold_s=600.0))
        first.kill()
        await first.wait()
    assert '"frozen":true' in (tmp_path / "run/fake-domains.json").read_text()
    async with agent(tmp_path):
        async with asyncio.timeout(120):
            while '"frozen":true' in (tmp_path / "run/fake-domains.json").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not (await client.call(seam.GuestThaw(uuid=UUID))).held


async def test_socket_is_for_its_owner_and_a_second_agent_is_refused(tmp_path: Path):
    async with agent(tmp_path) as first:
        assert stat.S_IMODE(os.stat(tmp_path / "run/agent.sock").st_mode) == 0o600
        refused = await processes.run_async(words(tmp_path), check=False)
        assert refused.exit_code == 1
        assert "another agent" in refused.stderr
        first.terminate()
        assert await first.wait() == 0
