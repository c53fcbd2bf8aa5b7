from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.unit.pool.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.begin(tmp_path)
    yield made
    await made.end()
