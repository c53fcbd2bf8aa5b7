"""``site`` is made once for all tests of real machines."""

from collections.abc import Iterator

import pytest

from gespann.lab import Lab
from tests.own_nets import OWN, net_of
from tests.product.host.real_host import Site, apart


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = Lab(tmp_path_factory.mktemp("site") / "l", name=f"ts{OWN}", net=net_of(0))
    site = Site(lab)
    try:
        site.up()
        apart(site.ready)
        yield site
    finally:
        lab.down()
