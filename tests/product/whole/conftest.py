from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.array_group import ssh_host_keys
from tests.product.whole.whole import Whole, running

__all__ = ["ssh_host_keys"]


@pytest.fixture
async def whole(engine_path: Path, ssh_host_keys: Path) -> AsyncIterator[Whole]:
    """With an SR on the array."""
    async with running(engine_path, ssh_host_keys) as made:
        made.sr = await made.make_sr()
        yield made
