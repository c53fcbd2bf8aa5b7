"""Hosts that are switched on from afar."""

import asyncio
import socket

import pytest

from gespann.pool.classes import host_power
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import wake_on_lan

MAC = "02:fa:4e:00:00:07"


@pytest.fixture
def sleeper(world) -> str:
    """A host of the pool that is switched off."""
    with world.db.transaction() as tx:
        metrics = tx.create("host_metrics", {"live": False})
        host = tx.create("host", {"hostname": "h2", "address": "10.0.0.6", "metrics": metrics})
        network = next(iter(world.db.all("network")))
        tx.create("PIF", {"host": host, "device": "eth0", "MAC": MAC, "physical": True, "network": network})
        tx.create("PIF", {"host": host, "device": "eth0", "MAC": MAC, "VLAN": 7, "network": network})
    return host


async def test_a_host_is_called_until_it_answers(world, sleeper, monkeypatch):
    called: list[list[str]] = []
    monkeypatch.setattr(wake_on_lan, "wake", lambda macs: called.append(list(macs)))
    with pytest.raises(XenApiError) as caught:
        await world.call("host.power_on", sleeper)
    assert caught.value.code == "HOST_POWER_ON_MODE_DISABLED"
    with pytest.raises(XenApiError) as caught:
        await world.call("host.set_power_on_mode", sleeper, "iLO", {})
    assert caught.value.params == ["power_on_mode", "iLO"]

    await world.call("host.set_power_on_mode", sleeper, "wake-on-lan", {"rack": "7"})
    assert world.get("host", sleeper)["power_on_config"] == {"rack": "7"}
    waking = asyncio.ensure_future(world.call("host.power_on", sleeper))
    while len(called) < 2:
        await asyncio.sleep(0)
        world.clock.advance(host_power.CALL_EVERY_S)
    assert not waking.done()
    assert called[0] == [MAC]
    with world.db.transaction() as tx:
        tx.set("host_metrics", world.get("host", sleeper)["metrics"], live=True)
    while not waking.done():
        await asyncio.sleep(0)
        world.clock.advance(host_power.CALL_EVERY_S)
    await waking


async def test_one_that_never_answers_is_given_up(world, sleeper, monkeypatch):
    monkeypatch.setattr(wake_on_lan, "wake", lambda macs: None)
    await world.call("host.set_power_on_mode", sleeper, "wake-on-lan", {})
    waking = asyncio.ensure_future(world.call("host.power_on", sleeper))
    while not waking.done():
        await asyncio.sleep(0)
        world.clock.advance(60.0)
    with pytest.raises(XenApiError) as caught:
        await waking
    assert (caught.value.code, caught.value.params) == ("HOST_OFFLINE", [sleeper])


def test_what_a_card_waits_for():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("127.0.0.1", 0))
        card.settimeout(120)
        wake_on_lan.wake([MAC], *card.getsockname())
        assert card.recv(200) == b"\xff" * 6 + bytes.fromhex("02fa4e000007") * 16
    for wrong in ("", "02:fa", "no card", "02:fa:4e:00:00:07:08"):
        with pytest.raises(ValueError, match=r"MAC|hexadecimal"):
            wake_on_lan.magic_packet(wrong)
