"""Networks that cannot be on a host: refused when they are made, or with the network's name when a VM wants one."""

from typing import Any

import pytest

from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World, vif_fields


async def refusal(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as refused:
        await world.call(method, *params)
    return [refused.value.code, *map(str, refused.value.params)]


def named(**fields: object) -> dict[str, Any]:
    return {"name_label": "inside", "name_description": "", "other_config": {}, **fields}


async def test_what_no_bridge_can_be(world: World) -> None:
    for mtu in (-5, 0, 67, 65536, 2**40):
        assert await refusal(world, "network.create", named(MTU=mtu)) == ["INVALID_VALUE", "MTU", str(mtu)]
    for bridge in ("lo", "../../etc", "a" * 16):
        assert await refusal(world, "network.create", named(bridge=bridge)) == ["INVALID_VALUE", "bridge", bridge]
    network = await world.call("network.create", named(MTU=9000))
    assert await refusal(world, "network.set_MTU", network, 67) == ["INVALID_VALUE", "MTU", "67"]
    await world.call("network.set_MTU", network, 1400)
    assert world.get("network", network)["MTU"] == 1400


async def test_a_host_that_has_something_else_of_that_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    network = await world.call("network.create", named(bridge="dummy0"))
    await world.call("VIF.create", vif_fields(vm, network))

    async def is_no_bridge(bridge: str, mtu: int) -> None:
        raise SeamError("BAD_STATE", f"{bridge} is there, and is no bridge")

    monkeypatch.setattr(world.hypervisor, "bridge_ensure", is_no_bridge)
    answer = await refusal(world, "VM.start", vm, False, False)
    assert answer == ["HOST_CANNOT_ATTACH_NETWORK", world.host, network]
    assert world.get("VM", vm)["power_state"] == "Halted"
    world.assert_nothing_orphaned()
