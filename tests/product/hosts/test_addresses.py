"""The addresses of real hosts (machines of namespaces): changed by `xe`, in force after a reboot, taken back when they
cut a host off."""

import json
import sys
from collections.abc import Iterator

import pytest

from gespann.demo.site import AGENT_RUN
from gespann.lab.node import Node, wait_until
from gespann.seams import host_agent as seam
from gespann.seams.host_addresses import AddressesChange, Addressing, InterfaceAddresses
from gespann.system.json_lines import JsonLinesClient
from tests.conftest import ROOT
from tests.product.host.real_host import apart
from tests.product.hosts.real_pool import WAIT_S, Pool

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(tmp_path_factory.mktemp("a") / "l")  # short, for the sockets below it
    try:
        made.begin()
        yield made
    finally:
        made.site.down()


def has(node: Node, device: str) -> list[str]:
    shown = json.loads(node.run(["ip", "-j", "-4", "addr", "show", "dev", device]).stdout)
    return [f"{one['local']}/{one['prefixlen']}" for link in shown for one in link.get("addr_info", [])]


def gro(node: Node, device: str) -> str:
    """What the kernel does with segments that the card receives."""
    words = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from gespann.host.offload import gro; print(gro({device!r}))"
    )
    return node.run([sys.executable, "-c", words]).stdout.strip()


def pif_of(pool: Pool, name: str, device: str) -> str:
    return pool.xe(f"pif-list host-uuid={pool.hosts[name]} device={device} --minimal")


def configuration(pool: Pool, pif: str) -> list[str]:
    return [
        pool.xe(f"pif-param-get uuid={pif} param-name={name}") for name in ("IP-configuration-mode", "IP", "netmask")
    ]


def of(pool: Pool, network: str, octet: int) -> str:
    return pool.site.lab.addressing.address(network, octet)


def change(pool: Pool, name: str, wanted: str, keep_within_s: float) -> None:
    """What a coordinator asks, and then says no more."""

    async def ask() -> None:
        agent = JsonLinesClient(
            pool.site.lab.node(name).path(f"{AGENT_RUN}/agent.sock"), hello=seam.Hello(version=seam.VERSION)
        )
        try:
            ipv4 = Addressing(mode="static", addresses=[wanted])
            request = AddressesChange(
                change_id="lost",
                device="eth0",
                wanted=InterfaceAddresses(ipv4=ipv4),
                manages=True,
                keep_within_s=keep_within_s,
            )
            await agent.call(request)
        finally:
            await agent.close()

    apart(ask)


def test_a_host_gets_other_addresses_and_keeps_them(pool: Pool) -> None:
    node = pool.site.lab.node("host2")
    live = f"host-param-get uuid={pool.hosts['host2']} param-name=host-metrics-live"
    stor, mgmt, vm = (pif_of(pool, "host2", device) for device in ("eth1", "eth0", "eth2"))

    # one that only storage uses; and its bridge bears the address of a card that is a port of one
    new_stor, new_mgmt, name_servers = of(pool, "stor", 52), of(pool, "mgmt", 62), of(pool, "mgmt", 53)
    pool.xe(f"pif-reconfigure-ip uuid={stor} mode=static IP={new_stor} netmask=255.255.255.0 DNS={name_servers}")
    assert has(node, "eth1") == [f"{new_stor}/24"]
    assert f"nameserver {name_servers}" in node.path("/etc/resolv.conf").read_text().splitlines()
    pool.xe(f"pif-reconfigure-ip uuid={vm} mode=dhcp")
    mode, leased, netmask = configuration(pool, vm)
    assert (mode, netmask) == ("DHCP", "255.255.255.0")
    assert has(node, "xenbr2") == [f"{leased}/24"]

    before = gro(node, "eth1")  # as the kernel makes it
    pool.xe(f"pif-param-set uuid={stor} properties:gro={'off' if before == 'True' else 'on'}")
    told = gro(node, "eth1")
    assert {before, told} == {"True", "False"}

    # that by which the coordinator reaches it
    before = node.address("mgmt")
    pool.xe(f"pif-reconfigure-ip uuid={mgmt} mode=static IP={new_mgmt} netmask=255.255.255.0")
    assert has(node, "eth0") == [f"{new_mgmt}/24"]
    pool.until(live, "true")

    # it is cut off: nobody says that the change is to be kept
    change(pool, "host2", "192.0.2.9/24", keep_within_s=15.0)  # time for a slow machine to look
    assert has(node, "eth0") == ["192.0.2.9/24"]
    wait_until(lambda: has(node, "eth0") == [f"{new_mgmt}/24"], WAIT_S, "the agent takes it back")

    # it starts anew, with its own configuration, and its agent gives it what the pool has said
    pool.start_anew("host2")
    wait_until(lambda: has(node, "eth0") == [f"{new_mgmt}/24"], WAIT_S, "the new address again")
    wait_until(lambda: bool(has(node, "xenbr2")), WAIT_S, "a lease again")
    assert has(node, "eth1") == [f"{new_stor}/24"]
    pool.until(live, "true")
    wait_until(lambda: gro(node, "eth1") == told, WAIT_S, "the card does again what it was told")
    assert pool.xe(f"host-param-get uuid={pool.hosts['host2']} param-name=address") == new_mgmt != before

    # without a server there is no lease, and nothing changes
    with pytest.raises(Exception, match="no DHCP server answers on eth1"):
        pool.xe(f"pif-reconfigure-ip uuid={stor} mode=dhcp")
    assert configuration(pool, stor) == ["Static", new_stor, "255.255.255.0"]

    # managed by its other card, on another network; and the coordinator's own host by another address
    own = of(pool, "stor", 51)
    pool.xe(f"pif-reconfigure-ip uuid={pif_of(pool, 'host1', 'eth1')} mode=static IP={own} netmask=255.255.255.0")
    pool.xe(f"host-management-reconfigure pif-uuid={stor}")
    assert pool.xe(f"pif-list host-uuid={pool.hosts['host2']} management=true params=device --minimal") == "eth1"
    pool.xe(f"host-management-reconfigure pif-uuid={pif_of(pool, 'host1', 'eth1')}")
    assert pool.xe(f"host-param-get uuid={pool.hosts['host1']} param-name=address") == own
    pool.until(live, "true")
    pool.xe(f"pif-reconfigure-ip uuid={mgmt} mode=none")
    assert has(node, "eth0") == []
    pool.until(live, "true")

    pool.xe(f"host-set-hostname-live host-uuid={pool.hosts['host2']} host-name=kaltblut.stall.example")
    assert node.run(["uname", "-n"]).stdout.strip() == "kaltblut.stall.example"
    assert node.path("/etc/hostname").read_text() == "kaltblut.stall.example\n"
