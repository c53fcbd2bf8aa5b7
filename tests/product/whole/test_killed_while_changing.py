"""A process is killed while a VM's disks or its memory are kept, changed or taken back: it is what it was, or what it
should become.

``make kills`` tries all points; here are some of each operation, by a seed.
"""

import os
from pathlib import Path

import pytest

from tests.product.whole.kills import some_of_each
from tests.product.whole.whole import Whole

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("GESPANN_KILLS_SEED", "20262"))
OPERATIONS = (
    "resize",
    "revert",
    "snapshot",
    "resize of a disk in use",
    "checkpoint",
    "suspend",
    "resume",
    "move of a disk in use",
)


async def test_killed_at_some_messages(whole: Whole, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    struck = await some_of_each(whole, tmp_path, OPERATIONS, SEED)
    assert all(struck.values()), struck
