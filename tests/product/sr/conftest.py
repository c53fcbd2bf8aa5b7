from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gespann.seams.sr_driver import Sr
from tests.product.sr.arrays import BENCHES, WITH_ENGINE, Bench

CASES = [
    pytest.param(make, id=f"{sr_type}-{name}", marks=[pytest.mark.engine] if make in WITH_ENGINE else [])
    for sr_type, benches in BENCHES.items()
    for name, make in benches.items()
]


@pytest.fixture(params=CASES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with request.param(tmp_path) as made:
        yield made


@pytest.fixture
async def sr(bench: Bench) -> Sr:
    """A repository, attached."""
    wanted = Sr("0ff867ef-3121-0e7c-5497-f5c34916727d", bench.device_config, {}, "Array", "All disks")
    kept = await bench.driver.create(wanted, 0)
    made = Sr(wanted.uuid, wanted.device_config, kept, wanted.name_label, wanted.name_description)
    await bench.driver.attach(made)
    return made
