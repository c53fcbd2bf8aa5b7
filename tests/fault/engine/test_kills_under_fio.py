"""SIGKILL of the engine while fio writes and verifies; `make crash UNDER=fio` goes on."""

from pathlib import Path

import pytest

from tests.fault.engine.under_fio import die_under_fio

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
KILLS = 10


def test_fio_verifies_all_it_wrote_through_kills_of_the_engine(engine_path: Path, tmp_path: Path) -> None:
    tally = die_under_fio(engine_path, tmp_path, seed=7, kills=KILLS)
    assert tally["kills"] >= KILLS
