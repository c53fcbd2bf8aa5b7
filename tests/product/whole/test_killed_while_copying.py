"""A process is killed while disks and VMs are copied, imported or exported: all of it is there afterwards, or nothing.

``make kills`` tries all points; here are some of each operation, by a seed.
"""

import os
from pathlib import Path

import pytest

from tests.product.whole.kills import some_of_each
from tests.product.whole.whole import Whole

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("GESPANN_KILLS_SEED", "20261"))
OPERATIONS = (
    "clone",
    "full copy",
    "copy of a disk",
    "import of a VM",
    "import of a disk",
    "export of a VM",
    "export of a disk",
)


async def test_killed_at_some_messages(whole: Whole, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    struck = await some_of_each(whole, tmp_path, OPERATIONS, SEED)
    assert all(struck.values()), struck
