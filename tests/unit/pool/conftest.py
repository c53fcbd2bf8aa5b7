from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from gespann.pool.api.server import ApiServer
from tests.unit.pool.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.begin(tmp_path)
    yield made
    await made.end()


@pytest_asyncio.fixture
async def door(world: World) -> AsyncIterator[Path]:
    """The socket of an API server over the world."""
    assert world.hypervisor.run_dir is not None
    path = world.hypervisor.run_dir / "xapi"
    server = ApiServer(world.api)
    await server.listen_unix(path)
    yield path
    await server.stop()
