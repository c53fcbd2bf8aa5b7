"""The pool gets another coordinator, by ``xe``: asked to while all is well, or because the first one is gone."""

import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.product.hosts.test_join_and_eject import join_words
from tests.product.hosts.two_hosts import Machine, machines


@pytest.fixture
async def trio() -> AsyncIterator[tuple[Machine, Machine, Machine]]:
    async with machines(3) as (first, second, third):
        await second.xe(join_words(first))
        await third.xe(join_words(first))
        yield first, second, third


async def uuid_of(machine: Machine, hostname: str) -> str:
    return await machine.xe(f"host-list hostname={hostname} --minimal")


async def running_vm(machine: Machine, name: str, host: str) -> str:
    vm = await machine.xe(f"vm-create name-label={name}")
    await machine.xe(f"vm-start uuid={vm} on={host}")
    return vm


async def shown_running(machine: Machine, vm: str, host: str) -> None:
    await machine.until(f"vm-param-get uuid={vm} param-name=resident-on", host)
    assert await machine.xe(f"vm-param-get uuid={vm} param-name=power-state") == "running"


async def test_a_pool_is_given_to_another_host_and_back(trio: tuple[Machine, Machine, Machine]) -> None:
    first, second, third = trio
    uuids = {name: await uuid_of(first, name) for name in ("h1", "h2", "h3")}
    vms = {name: await running_vm(first, f"on-{name}", uuid) for name, uuid in uuids.items()}

    await first.xe(f"pool-designate-new-master host-uuid={uuids['h2']}")
    await second.until("pool-list params=master --minimal", uuids["h2"])
    for other in (first, third):
        await other.until("host-list", f"Master IP address: {second.address}")
    for name, vm in vms.items():
        await shown_running(second, vm, uuids[name])
    for uuid in uuids.values():
        await second.until(f"host-param-get uuid={uuid} param-name=host-metrics-live", "true")
    # the pool goes on: things change, and each host does what the new coordinator says
    await second.xe(f"vm-param-set uuid={vms['h1']} name-label=renamed")
    await second.xe(f"vm-shutdown uuid={vms['h1']} --force")
    await second.xe(f"vm-start uuid={vms['h1']} on={uuids['h1']}")
    assert sorted((await second.xe("pool-recover-slaves")).split()) == sorted([uuids["h1"], uuids["h3"]])

    await second.xe(f"pool-designate-new-master host-uuid={uuids['h1']}")
    await first.until("pool-list params=master --minimal", uuids["h1"])
    for other in (second, third):
        await other.until("host-list", f"Master IP address: {first.address}")
    assert await first.xe(f"vm-param-get uuid={vms['h1']} param-name=name-label") == "renamed"
    for name, vm in vms.items():
        await shown_running(first, vm, uuids[name])


async def dying_at(machine: Machine, moment: str) -> None:
    """From here on its coordinator dies at that moment."""
    await machine.kill("coordinator")
    machine.dies_at = moment
    machine.start("coordinator")
    machine.dies_at = ""


async def test_whoever_dies_while_the_pool_is_given_away_there_is_one_coordinator() -> None:
    async with machines(2) as (first, second):
        await second.xe(join_words(first))
        uuids = {name: await uuid_of(first, name) for name in ("h1", "h2")}
        vms = {name: await running_vm(first, f"on-{name}", uuid) for name, uuid in uuids.items()}
        give = f"pool-designate-new-master host-uuid={uuids['h2']}"

        async def leads(leader: Machine, other: Machine) -> None:
            await leader.until("pool-list params=master --minimal", uuids[leader.hostname])
            await other.until("host-list", f"Master IP address: {leader.address}")
            for name, vm in vms.items():
                await shown_running(leader, vm, uuids[name])

        for moment in ("handover-copy+", "handover-decide"):  # nothing was decided: it stays where it is
            await dying_at(first, moment)
            await first.until(f"host-param-get uuid={uuids['h2']} param-name=host-metrics-live", "true")
            assert (await first.try_xe(give)).status != 0
            await first.has_died("coordinator")
            first.start("coordinator")
            await leads(first, second)

        await dying_at(first, "handover-decide+")  # the other host has decided, and nobody has heard it
        await first.until(f"host-param-get uuid={uuids['h2']} param-name=host-metrics-live", "true")
        assert (await first.try_xe(give)).status != 0
        await first.has_died("coordinator")
        await second.until("pool-list params=master --minimal", uuids["h2"])
        await second.xe(f"vm-param-set uuid={vms['h1']} name-label=renamed")
        first.start("coordinator")
        await leads(second, first)
        assert await second.xe(f"vm-param-get uuid={vms['h1']} param-name=name-label") == "renamed"


async def test_the_coordinator_is_gone_for_good_and_comes_back_all_the_same() -> None:
    async with machines(2) as (first, second):
        early = await second.try_xe("pool-emergency-transition-to-master")
        assert "already master" in early.stdout
        await second.xe(join_words(first))
        uuids = {name: await uuid_of(first, name) for name in ("h1", "h2")}
        vm = await running_vm(first, "before", uuids["h2"])
        assert await first.xe("host-is-in-emergency-mode") == "false"
        await first.xe("pool-sync-database")
        await second.until("host-list", f"Master IP address: {first.address}")
        refused = await second.try_xe("pool-emergency-transition-to-master")
        assert "was connected to this host a moment ago" in refused.stderr
        assert await second.xe("host-is-in-emergency-mode") == "false"

        await first.xe("vm-create name-label='vm acknowledged last'")
        await first.kill("coordinator")
        await second.until("host-is-in-emergency-mode", "true")
        assert "Master IP address" in (await second.try_xe("vm-list")).stderr
        said = await second.xe("pool-emergency-transition-to-master")
        assert said.startswith("Host agent will restart and transition to master in 10.000 seconds...\n")
        assert "It leads by a copy of the database that was the latest at 20" in said
        await second.until("pool-list params=master --minimal", uuids["h2"])
        await shown_running(second, vm, uuids["h2"])
        assert "audit.log" in await second.xe("message-list name=POOL_MASTER_TRANSITION params=body --minimal")
        # the first one's agent lives, and obeys; its coordinator finds that out when it comes back
        await second.until(f"host-param-get uuid={uuids['h1']} param-name=host-metrics-live", "true")
        first.start("coordinator")
        await first.until("host-list", f"Master IP address: {second.address}")
        assert "'vm acknowledged last'" in (first.base / "cd/audit.log").read_text(), "it lists what it acknowledged"
        await second.xe(f"vm-start uuid={await second.xe('vm-create name-label=after')} on={uuids['h1']}")

        # and the other way round: who leads is stopped and cut off, goes on later, and has not heard of anything
        await second.xe("pool-sync-database")
        os.kill(second.processes["coordinator"].pid, signal.SIGSTOP)
        for machine in (second, first):
            await machine.kill("agent")
        first.start("agent")
        await first.until("host-is-in-emergency-mode", "true")
        await first.xe("pool-emergency-transition-to-master")
        await first.until("pool-list params=master --minimal", uuids["h1"])
        os.kill(second.processes["coordinator"].pid, signal.SIGCONT)
        await second.until("vm-create name-label=lost", f"Master IP address: {first.address}")
        second.start("agent")
        await second.until("host-list", f"Master IP address: {first.address}")
        await shown_running(first, vm, uuids["h2"])
        assert await first.xe("vm-list name-label=lost --minimal") == ""
