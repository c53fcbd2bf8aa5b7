"""The fake, asked over the seam: what runs, what is refused, and what is left behind."""

import asyncio
from collections.abc import Callable

import pytest

from gespann.host.fake import GuestBehaviour
from gespann.seams import host_agent as seam
from gespann.seams.json_lines import SeamError
from tests.unit.host.fake_agent import UUID, Agent, disk, iscsi, spec


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not true():  # noqa: ASYNC110 - what the fake does inside has no event to wait on
            await asyncio.sleep(0.001)


def changes(agent: Agent) -> list[tuple[str, str, str]]:
    return [
        (event.domain.start_id, event.domain.state, event.domain.reason)
        for event in agent.events
        if isinstance(event, seam.DomainChanged)
    ]


async def metrics(agent: Agent) -> seam.GuestMetricsReply:
    return await agent.client.call(seam.GuestMetrics(uuid=UUID))


async def test_start_to_address(agent: Agent):
    agent.grant()
    await agent.client.call(seam.Hello(version=1))
    domain = await agent.client.call(seam.DomainCreate(spec=spec()))
    assert (domain.state, domain.start_id, domain.disks, domain.nics) == ("running", "start-1", [0], [0])
    await until(lambda: agent.fake._find(UUID).has_address)
    said = await metrics(agent)
    assert said.live
    assert said.networks == {"0/ip": "10.254.7.9", "0/ipv4/0": "10.254.7.9"}
    await agent.client.call(seam.DomainShutdown(uuid=UUID))
    assert (await agent.client.call(seam.DomainList())).domains == []
    assert agent.storage.open_now == {}
    await until(lambda: len(changes(agent)) == 2)
    assert changes(agent) == [("start-1", "running", ""), ("start-1", "stopped", "shutdown")]
    assert seam.GuestChanged(uuid=UUID) in agent.events


async def test_create_twice_is_the_same_start(agent: Agent):
    agent.grant()
    first = await agent.client.call(seam.DomainCreate(spec=spec()))
    assert await agent.client.call(seam.DomainCreate(spec=spec())) == first


async def test_create_under_another_start_is_refused(agent: Agent):
    agent.grant()
    agent.grant(start=2)
    await agent.client.call(seam.DomainCreate(spec=spec()))
    with pytest.raises(SeamError) as refused:
        await agent.client.call(seam.DomainCreate(spec=spec(2)))
    assert refused.value.code == "EXISTS"
    assert set(agent.storage.open_now) == {f"{UUID}/start-1/0"}


async def test_wrong_secret_leaves_nothing(agent: Agent):
    agent.grant(0)
    agent.grant(1, start=7)
    with pytest.raises(SeamError) as refused:
        await agent.client.call(seam.DomainCreate(spec=spec(disks=[disk(0), disk(1)])))
    assert refused.value.code == "STORAGE"
    assert "secret-of" not in refused.value.message
    assert agent.storage.open_now == {}
    assert (await agent.client.call(seam.DomainList())).domains == []


async def test_revoked_record_keeps_out_the_next_start(agent: Agent):
    agent.grant()
    await agent.client.call(seam.DomainCreate(spec=spec()))
    agent.storage.revoke(iscsi().target)
    await agent.client.call(seam.DomainDestroy(uuid=UUID))
    with pytest.raises(SeamError, match="STORAGE"):
        await agent.client.call(seam.DomainCreate(spec=spec()))


async def test_destroy_of_another_start_does_nothing(agent: Agent):
    agent.grant()
    await agent.client.call(seam.DomainCreate(spec=spec()))
    await agent.client.call(seam.DomainDestroy(uuid=UUID, start_id="start-0"))
    assert len((await agent.client.call(seam.DomainList())).domains) == 1
    await agent.client.call(seam.DomainDestroy(uuid=UUID, start_id="start-1"))
    await agent.client.call(seam.DomainDestroy(uuid=UUID, start_id="start-1"))
    assert (await agent.client.call(seam.DomainList())).domains == []


async def test_stubborn_guest_refuses_shutdown(agent: Agent):
    agent.grant()
    agent.fake.behave(UUID, GuestBehaviour(obeys_shutdown=False))
    await agent.client.call(seam.DomainCreate(spec=spec()))
    with pytest.raises(SeamError, match="REFUSED"):
        await agent.client.call(seam.DomainShutdown(uuid=UUID, timeout_s=0.01))
    assert (await agent.client.call(seam.DomainList())).domains[0].state == "running"


async def test_hot_plug_and_unplug(agent: Agent):
    agent.grant()
    agent.grant(3)
    await agent.client.call(seam.DomainCreate(spec=spec()))
    await agent.client.call(seam.DiskAttach(uuid=UUID, disk=disk(3)))
    await agent.client.call(seam.DiskAttach(uuid=UUID, disk=disk(3)))
    assert (await agent.client.call(seam.DomainList())).domains[0].disks == [0, 3]
    await agent.client.call(seam.DiskResize(uuid=UUID, device=3, size_bytes=1024**3))
    assert agent.fake.sizes_seen(UUID) == {3: 1024**3}
    await agent.client.call(seam.DiskDetach(uuid=UUID, device=3))
    await agent.client.call(seam.DiskDetach(uuid=UUID, device=3))
    assert set(agent.storage.open_now) == {f"{UUID}/start-1/0"}


async def test_guest_that_holds_on_to_a_disk(agent: Agent):
    agent.grant()
    agent.fake.behave(UUID, GuestBehaviour(obeys_unplug=False))
    await agent.client.call(seam.DomainCreate(spec=spec()))
    with pytest.raises(SeamError, match="REFUSED"):
        await agent.client.call(seam.DiskDetach(uuid=UUID, device=0, timeout_s=0.01))
    assert set(agent.storage.open_now) == {f"{UUID}/start-1/0"}


async def test_pause_and_io_error(agent: Agent):
    agent.grant()
    await agent.client.call(seam.DomainCreate(spec=spec(paused=True)))
    await agent.client.call(seam.DomainUnpause(uuid=UUID))
    agent.fake.io_error(UUID)
    await agent.client.call(seam.DomainUnpause(uuid=UUID))
    await agent.fake.crash(UUID)
    await until(lambda: len(changes(agent)) == 5)
    assert [change[1:] for change in changes(agent)] == [
        ("paused", "user"),
        ("running", ""),
        ("paused", "ioerror"),
        ("running", ""),
        ("stopped", "crashed"),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        seam.DomainShutdown(uuid=UUID),
        seam.DomainReset(uuid=UUID),
        seam.DomainPause(uuid=UUID),
        seam.DomainUnpause(uuid=UUID),
        seam.DiskAttach(uuid=UUID, disk=disk(1)),
        seam.DiskDetach(uuid=UUID, device=1),
        seam.DiskResize(uuid=UUID, device=1, size_bytes=512),
        seam.NicDetach(uuid=UUID, device=1),
        seam.GuestMetrics(uuid=UUID),
    ],
    ids=lambda request: request.op,
)
async def test_nothing_runs_here(agent: Agent, request_):
    with pytest.raises(SeamError, match="NOT_FOUND"):
        await agent.client.call(request_)
    await agent.client.call(seam.DomainDestroy(uuid=UUID))


async def test_too_much_memory(agent: Agent):
    with pytest.raises(SeamError, match="NO_MEMORY"):
        await agent.client.call(seam.DomainCreate(spec=spec(memory_bytes=2 * 64 * 1024**3)))


async def test_no_such_bridge(agent: Agent):
    agent.grant()
    nics = [seam.Nic(device=0, mac="02:00:00:00:00:01", bridge="xenbr9")]
    with pytest.raises(SeamError, match="NOT_FOUND"):
        await agent.client.call(seam.DomainCreate(spec=spec(nics=nics)))
    await agent.client.call(seam.BridgeEnsure(bridge="xenbr9", mtu=9000))
    await agent.client.call(seam.DomainCreate(spec=spec(nics=nics)))


async def test_told_to_fail(agent: Agent):
    agent.fake.fail_next("create", SeamError("HYPERVISOR", "told to"))
    agent.grant()
    with pytest.raises(SeamError, match="told to"):
        await agent.client.call(seam.DomainCreate(spec=spec()))
    await agent.client.call(seam.DomainCreate(spec=spec()))
