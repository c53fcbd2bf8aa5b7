"""What the interfaces of VMs may say and hear."""

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.network_scenes import plugged_vif
from tests.unit.pool.world import World, vif_fields


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *refused.value.params]


def lock(world: World, vif: str) -> tuple[str, ...]:
    """On the host."""
    vm = world.get("VM", world.get("VIF", vif)["VM"])
    return world.running()[vm["uuid"]].locks[int(world.get("VIF", vif)["device"])]


async def test_a_plugged_interface_is_locked_at_once(world: World) -> None:
    vif = await plugged_vif(world)
    assert lock(world, vif) == ("unlocked",)
    await world.call("VIF.set_ipv4_allowed", vif, ["10.0.0.7", "10.0.0.8", "10.0.0.7"])
    assert lock(world, vif) == ("unlocked",)  # whom it is not locked to
    await world.call("VIF.set_locking_mode", vif, "locked")
    assert lock(world, vif) == ("locked", "10.0.0.7", "10.0.0.8")
    await world.call("VIF.remove_ipv4_allowed", vif, "10.0.0.7")
    await world.call("VIF.remove_ipv4_allowed", vif, "10.0.0.99")
    await world.call("VIF.add_ipv6_allowed", vif, "FD00:0::7")
    await world.call("VIF.add_ipv6_allowed", vif, "fd00::7")
    await world.call("VIF.add_ipv4_allowed", vif, "10.0.0.9")
    assert lock(world, vif) == ("locked", "10.0.0.8", "10.0.0.9", "fd00::7")
    await world.call("VIF.remove_ipv6_allowed", vif, "fd00:0:0::7")
    await world.call("VIF.set_ipv6_allowed", vif, ["fd00::8"])
    assert world.get("VIF", vif)["ipv6_allowed"] == ["fd00::8"]
    await world.call("VIF.set_locking_mode", vif, "disabled")
    assert lock(world, vif) == ("disabled",)
    await world.call("VIF.unplug", vif)
    await world.call("VIF.set_locking_mode", vif, "locked")
    await world.call("VIF.plug", vif)
    assert lock(world, vif) == ("locked", "10.0.0.8", "10.0.0.9", "fd00::8")
    await world.call("VIF.unplug_force", vif)
    await world.call("VIF.unplug_force", vif)
    assert not world.get("VIF", vif)["currently_attached"]


async def test_a_start_a_move_and_the_default_of_a_network(world: World) -> None:
    vif = await plugged_vif(world)
    network, vm = world.get("VIF", vif)["network"], world.get("VIF", vif)["VM"]
    assert await refusal(world, "network.set_default_locking_mode", network, "disabled") == ["VIF_IN_USE", network, vif]
    closed = await world.call("network.create", {"name_label": "closed", "other_config": {}, "bridge": "br8"})
    await world.call("network.set_default_locking_mode", closed, "disabled")
    await world.call("VIF.move", vif, closed)
    assert lock(world, vif) == ("disabled",)
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.start", vm, False, False)
    assert lock(world, vif) == ("disabled",)
    await world.call("VIF.set_locking_mode", vif, "unlocked")
    assert lock(world, vif) == ("unlocked",)


async def test_what_is_no_address_of_a_guest(world: World) -> None:
    vif = await plugged_vif(world)
    network, vm = world.get("VIF", vif)["network"], world.get("VIF", vif)["VM"]
    before = world.snapshot()
    for text in ("", "10.0.0.0/8", "10.0.0.256", "fd00::1", "web1", "1" * 10_000):
        answer = ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"]
        assert await refusal(world, "VIF.add_ipv4_allowed", vif, text) == answer
        assert await refusal(world, "VIF.set_ipv4_allowed", vif, ["10.0.0.1", text]) == answer
        assert await refusal(world, "VIF.create", vif_fields(vm, network, ipv4_allowed=[text])) == answer
    for text in ("10.0.0.1", "fe80::1%eth0", "fd00::/64", "; drop"):
        assert (await refusal(world, "VIF.add_ipv6_allowed", vif, text))[1] == "ipv6_allowed"
    many = [f"10.{number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(1025)]
    assert (await refusal(world, "VIF.set_ipv4_allowed", vif, many))[0] == "INVALID_VALUE"
    assert world.snapshot() == before


async def test_small_messages_about_networks(world: World) -> None:
    vif = await plugged_vif(world)
    network = world.get("VIF", vif)["network"]
    await world.call("network.add_purpose", network, "nbd")
    await world.call("network.add_purpose", network, "nbd")
    assert world.get("network", network)["purpose"] == ["nbd"]
    both = await refusal(world, "network.add_purpose", network, "insecure_nbd")
    assert both == ["NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd"]
    await world.call("network.remove_purpose", network, "nbd")
    assert world.get("network", network)["purpose"] == []

    made = await world.call("network.create", {"name_label": "early", "other_config": {}, "bridge": "br9"})
    await world.call("network.attach", made, world.host)
    assert "br9" in world.hypervisor.bridges
    (pif,) = world.get("host", world.host)["PIFs"]
    card = world.get("PIF", pif)["network"]
    assert (await refusal(world, "network.attach", card, world.host))[0] == "NETWORK_UNMANAGED"

    vlan = await world.call("VLAN.create", pif, 100, made)
    tagged = world.get("VLAN", vlan)["untagged_PIF"]
    await world.call("PIF.set_disallow_unplug", tagged, True)
    assert await refusal(world, "PIF.unplug", tagged) == ["PIF_DOES_NOT_ALLOW_UNPLUG", tagged]
    await world.call("PIF.set_disallow_unplug", tagged, False)
    await world.call("PIF.unplug", tagged)
    assert (await refusal(world, "PIF.db_forget", tagged))[0] == "PIF_IS_VLAN"
    missing = await refusal(world, "host.call_extension", world.host, "Gespann.harness")
    assert missing == ["MESSAGE_METHOD_UNKNOWN", "Gespann.harness"]
