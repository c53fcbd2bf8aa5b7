"""The order of the tests speaks of what is there."""

import pytest

from tests.order import APART, FOLDERS, LONG, TOGETHER
from tests.style.tree import ROOT


@pytest.mark.parametrize("place", sorted({*FOLDERS, *LONG, *TOGETHER, *APART}))
def test_each_place_is_there(place: str) -> None:
    assert (ROOT / "tests" / place).exists()
