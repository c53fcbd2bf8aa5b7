"""What an administrator reads of hosts and does to their software."""

import asyncio

import pytest

from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.steps.host_door import HostOffline
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import until


@pytest.fixture
def host(world) -> str:
    return next(iter(world.db.all("host")))


async def test_messages_of_the_kernel_and_the_log(world, host):
    world.hypervisor.kernel_lines[:] = ["up", "down"]
    assert await world.call("host.dmesg", host) == "up\ndown\n"
    assert await world.call("host.dmesg_clear", host) == "up\ndown\n"
    assert await world.call("host.dmesg", host) == ""
    assert isinstance(await world.call("host.get_log", host), str)
    assert await world.call("host.is_in_emergency_mode") is False


async def test_a_host_that_does_not_answer(world, host):
    world.pool.agents.pop(host)
    for method in ("host.dmesg", "host.dmesg_clear", "host.get_log", "host.restart_agent"):
        with pytest.raises(HostOffline):
            await world.call(method, host)


async def test_its_name_towards_arrays(world, host):
    await world.call("host.set_iscsi_iqn", host, "IQN.2026-01.example:host1")
    assert world.get("host", host)["iscsi_iqn"] == "iqn.2026-01.example:host1"
    for wrong in ("", "host1", "iqn.2026-01.example:a b", "iqn." + "x" * 220):
        with pytest.raises(XenApiError) as caught:
            await world.call("host.set_iscsi_iqn", host, wrong)
        assert caught.value.code == "INVALID_VALUE"
    assert world.get("host", host)["iscsi_iqn"] == "iqn.2026-01.example:host1"


async def test_figures_are_kept_when_asked_for(world, host, monkeypatch):
    kept = []
    await world.call("host.get_data_sources", host)  # from here on there is somebody who keeps them
    monkeypatch.setattr(world.pool.services["rrd"], "keep", lambda: kept.append("kept"))
    await world.call("host.backup_rrds", host, 0.0)
    assert kept == ["kept"]
    for wrong in (-1.0, 1e9):
        with pytest.raises(XenApiError) as caught:
            await world.call("host.backup_rrds", host, wrong)
        assert caught.value.params[0] == "delay"


async def test_parts_of_a_report(world, host):
    parts = await world.call("host.get_system_status_capabilities", host)
    assert all(f'key="{part}"' in parts for part in ("logs", "audit", "database", "hosts"))


async def test_certificate_of_the_coordinator_alone(world, host, tmp_path):
    certificate = world.pool.services["certificate"] = ServerCertificate(tmp_path, ["127.0.0.1"], world.pool.clock)
    first = await world.call("host.get_server_certificate", host)
    assert first == certificate.text()
    await world.call("host.reset_server_certificate", host)
    assert await world.call("host.get_server_certificate", host) != first
    member = "OpaqueRef:member"
    with world.db.transaction() as tx:
        tx.create("host", {"address": "127.0.0.1", "hostname": "h2"}, member)
    world.pool.tls_port = 1  # where nobody listens
    with pytest.raises(HostOffline):
        await world.call("host.get_server_certificate", member)
    for method, params in (("reset_server_certificate", []), ("install_server_certificate", ["c", "k", ""])):
        with pytest.raises(XenApiError) as caught:
            await world.call(f"host.{method}", member, *params)
        assert caught.value.code == "OPERATION_NOT_ALLOWED"


async def test_agent_and_coordinator_begin_anew(world, host):
    told = asyncio.Event()
    world.pool.services["restart"] = told.set
    await world.call("host.restart_agent", host)
    assert told.is_set()
    await until(lambda: world.agent_server.reports.restart.is_set())
