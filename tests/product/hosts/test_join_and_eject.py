"""Hosts join a pool and leave it, by ``xe``: every process is its own, and what lies between them is TCP with TLS."""

import socket
import ssl
import stat
from collections.abc import AsyncIterator

import pytest

from gespann.seams.host_agent import VERSION, Hello
from gespann.seams.host_membership import Allegiance, JoinOffer
from gespann.system.json_lines import JsonLinesClient
from gespann.system.mutual_tls import certificate_of
from tests.product.hosts.two_hosts import PASSWORD, Machine, machines

SR = (
    "sr-create name-label=array type=memory shared=true content-type=user device-config:target=a"
    " device-config:username=grpadmin device-config:password=grpadmin device-config:storagepool=default"
)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Machine, Machine]]:
    async with machines(2) as (first, second):
        yield first, second


def join_words(master: Machine, password: str = PASSWORD) -> str:
    return f"pool-join master-address={master.api} master-username=root master-password='{password}'"


async def test_a_host_joins_and_leaves(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    sr = await first.xe(SR)
    wrong = await second.try_xe(join_words(first, "guess"))
    assert "SESSION_AUTHENTICATION_FAILED" in wrong.stderr or "Authentication failed" in wrong.stderr
    said = await second.xe(join_words(first))
    assert said == "Host agent will restart and attempt to join pool in 10. seconds..."

    assert sorted((await first.xe("host-list params=hostname --minimal")).split(",")) == ["h1", "h2"]
    attached = await first.xe(f"pbd-list sr-uuid={sr} params=currently-attached --minimal")
    assert attached == "true,true"
    await second.until("host-list", f"Master IP address: {first.address}")

    network = await first.xe("network-create name-label=tagged bridge=gstag")
    card = (await first.xe("pif-list device=eth0 VLAN=-1 --minimal")).split(",")[0]
    await first.xe(f"pool-vlan-create pif-uuid={card} network-uuid={network} vlan=100")
    assert await first.xe("pif-list VLAN=100 params=currently-attached --minimal") == "true,true"
    for vlan in (await first.xe("vlan-list --minimal")).split(","):
        await first.xe(f"vlan-destroy uuid={vlan}")
    assert await first.xe("pif-list VLAN=100 --minimal") == ""

    uuid = await first.xe("host-list hostname=h2 --minimal")
    assert await first.xe(f"host-param-get uuid={uuid} param-name=enabled") == "true"
    refused = await first.try_xe(f"pool-eject host-uuid={await first.xe('host-list hostname=h1 --minimal')} --force")
    assert "the coordinator, which cannot be taken away" in refused.stderr
    unsure = await first.try_xe(f"pool-eject host-uuid={uuid}", typed="no\n")
    assert "WARNING: Any data contained with the local SRs will be lost." in unsure.stdout
    assert await first.xe("host-list params=hostname --minimal") != "h1"

    await first.xe(f"pool-eject host-uuid={uuid} --force")
    assert await first.xe("host-list params=hostname --minimal") == "h1"
    assert await first.xe(f"pbd-list sr-uuid={sr} params=currently-attached --minimal") == "true"
    await second.until("host-list params=hostname --minimal", "h2")
    assert await second.xe("sr-list --minimal") == ""


async def test_vms_run_on_the_host_that_joined_and_its_processes_may_die(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    await first.xe(SR)
    await second.xe(join_words(first))
    uuid = await first.xe("host-list hostname=h2 --minimal")
    vm = await first.xe("vm-create name-label=web1")
    await first.xe(f"vm-start uuid={vm} on={uuid}")
    assert await first.xe(f"vm-param-get uuid={vm} param-name=resident-on") == uuid
    busy = await first.try_xe(f"pool-eject host-uuid={uuid} --force")
    assert busy.stderr.splitlines()[0] == "VMs still run on the host."

    live = f"host-param-get uuid={uuid} param-name=host-metrics-live"
    await second.kill("agent")
    await first.until(live, "false")
    second.start("agent")
    await first.until(live, "true")
    assert await first.xe(f"vm-param-get uuid={vm} param-name=power-state") == "running"

    await first.kill("coordinator")
    first.start("coordinator")
    await first.until(live, "true")
    assert await first.xe(f"vm-param-get uuid={vm} param-name=resident-on") == uuid
    await first.xe(f"vm-shutdown uuid={vm} --force")

    await second.kill("coordinator")
    second.start("coordinator")
    await second.until("host-list", f"Master IP address: {first.address}")


async def test_an_offer_that_a_crash_left_is_taken_back_and_the_host_joins_later(pair: tuple[Machine, Machine]) -> None:
    """The joining coordinator dies between telling its agent and asking the other pool."""
    first, second = pair
    await second.kill("coordinator")
    agent = JsonLinesClient(second.base / "a/agent.sock", hello=Hello(version=VERSION))
    certificate = certificate_of(first.base / "cd/agents.pem")
    offer = JoinOffer(pool_uuid="p", coordinator_certificate=certificate, coordinator_address=first.address)
    assert (await agent.call(offer)).state == "joining"
    second.start("coordinator")
    await second.until_up()
    assert (await agent.call(Allegiance())).state == "alone"
    await agent.close()
    await second.xe(join_words(first))
    assert sorted((await first.xe("host-list params=hostname --minimal")).split(",")) == ["h1", "h2"]


async def test_nobody_without_the_pinned_certificate_reaches_an_agent(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    await second.xe(join_words(first))
    for identity in (None, second.base / "ad/identity.pem", first.base / "ad/identity.pem"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask_at_door(second.address, second.door_port, identity)
    for secret in (second.base / "ad/identity.pem", second.base / "ad/allegiance.json", first.base / "cd/agents.pem"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for machine in pair:
        for name in machine.processes:
            assert "PRIVATE KEY" not in machine.log(name)
            assert PASSWORD not in machine.log(name)


def ask_at_door(address: str, port: int, identity: object) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(str(identity))
    with socket.create_connection((address, port), timeout=120) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b'{"what":"agent"}\n')
        answer = tls.recv(100)
    if not answer:
        raise ConnectionError("closed without a word")
    return answer
