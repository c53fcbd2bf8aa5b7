"""Hosts that start anew, as machines of namespaces with a real libvirtd: because they were told to, and because the
power was cut. In place of the host's init stands a ``systemctl`` that writes down what it was told, and the test pulls
the cord."""

from collections.abc import Iterator

import pytest

from tests.product.hosts.real_pool import Pool

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(tmp_path_factory.mktemp("b") / "l")  # short, for the sockets below it
    try:
        made.begin()
        yield made
    finally:
        made.site.down()


def test_hosts_start_anew_and_go_on_as_members_of_the_pool(pool: Pool) -> None:
    second = pool.hosts["host2"]
    vms = {name: pool.started_vm(f"on-{name}", name) for name in pool.hosts}
    live = f"host-param-get uuid={second} param-name=host-metrics-live"

    # the cord is pulled: what ran there does not run, and can be started again
    pool.site.lab.node("host2").crash()
    pool.until(live, "false")
    pool.site.lab.node("host2").boot()
    for network in ("mgmt", "stor"):
        pool.site.lab.node("host2").heal(network)
    pool.until(f"vm-param-get uuid={vms['host2']} param-name=power-state", "halted")
    pool.until(live, "true")
    assert pool.xe(f"vm-param-get uuid={vms['host1']} param-name=power-state") == "running"
    pool.xe(f"vm-start uuid={vms['host2']} on={second}")

    # it is told to reboot, and was disabled for that
    wanted = pool.give_systemctl("host2")
    pool.until(live, "true")
    pool.xe(f"vm-shutdown uuid={vms['host2']} --force")
    pool.xe(f"host-disable uuid={second}")
    pool.xe(f"host-reboot uuid={second}")
    assert wanted() == "--no-block reboot"
    pool.start_anew("host2")
    pool.until(f"host-param-get uuid={second} param-name=enabled", "true")
    pool.xe(f"vm-start uuid={vms['host2']} on={second}")

    # the coordinator's own host: the others go on
    pool.start_anew("host1")
    pool.until(f"vm-param-get uuid={vms['host1']} param-name=power-state", "halted")
    pool.until(f"vm-param-get uuid={vms['host2']} param-name=power-state", "running")
    assert pool.xe("host-list params=enabled --minimal") == "true,true"
    pool.xe(f"vm-start uuid={vms['host1']} on={pool.hosts['host1']}")
