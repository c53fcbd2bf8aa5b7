"""A process is killed while a VM moves to another host: it runs in one place, and nobody else may write.

``make kills TRIAL=migrate`` tries all points; here are some, by a seed.
"""

import os
import random
from pathlib import Path

import pytest

from tests.product.whole.kills import Campaign, all_points, choose
from tests.product.whole.trials import TRIALS, Stage
from tests.product.whole.whole import Whole

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("GESPANN_KILLS_SEED", "20263"))
KILLS = 8


async def test_killed_at_some_messages(whole: Whole, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    stage, trial = Stage(whole, tmp_path), TRIALS["migrate"]
    await stage.build_web1()
    campaign = Campaign(stage)
    before, after = await campaign.begin(trial)
    points = all_points(await campaign.messages(trial, after))
    struck = 0
    for point in choose(points, random.Random(SEED), KILLS):
        print(point, flush=True)
        struck += await campaign.kill("migrate", point, before, after)
    assert struck >= KILLS / 2
