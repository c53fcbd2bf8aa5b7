"""``site`` is made once for all tests of real machines."""

import os
from collections.abc import Iterator

import pytest

from gespann.lab import Lab
from tests.product.host.real_host import Site, apart


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    own = os.getpid() % 1000  # two runs of the tests may share the machine
    net = f"198.18.{100 + own % 40 * 3}"
    lab = Lab(tmp_path_factory.mktemp("site") / "l", name=f"ts{own}", net=net)
    site = Site(lab)
    try:
        site.up()
        apart(site.ready)
        yield site
    finally:
        lab.down()
