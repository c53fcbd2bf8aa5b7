"""A process is killed while the words of the group's command line pass, encrypted as they are: before a piece of them
gets there, or before a piece of the answer gets back.

``make kills`` tries all points; here are some of three operations, by a seed.
"""

import os
from pathlib import Path

import pytest

from tests.product.whole.kills import some_of_each
from tests.product.whole.whole import Whole

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("GESPANN_KILLS_SEED", "20264"))
OPERATIONS = ("install", "snapshot", "resize")


async def test_killed_at_some_pieces(whole: Whole, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    struck = await some_of_each(whole, tmp_path, OPERATIONS, SEED, at="shell", each=2)
    assert sum(struck.values()) >= len(OPERATIONS), struck
