"""VLANs by `ip`: an interface on a card, port of a bridge. The card may be a port of a bridge itself: Linux gives
tagged frames to the VLAN's interface first."""

import re

from gespann.host.bridges import bridge_ensure
from gespann.seams.host_network import vlan_interface
from gespann.seams.json_lines import SeamError
from gespann.system import processes

OWN = re.compile(r"v\d{1,4}\..+")  # as ``vlan_interface`` names them


async def vlan_ensure(device: str, tag: int, bridge: str, mtu: int) -> None:
    """NOT_FOUND if there is no such card."""
    if not await _is_there(device):
        raise SeamError("NOT_FOUND", f"this host has no interface {device}")
    name = vlan_interface(device, tag)
    await bridge_ensure(bridge, mtu)
    try:
        if not await _is_there(name):
            await processes.run_async(
                ["ip", "link", "add", "link", device, "name", name, "type", "vlan", "id", str(tag)]
            )
        await processes.run_async(["ip", "link", "set", name, "master", bridge, "up"])
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error


async def vlan_remove(device: str, tag: int) -> None:
    name = vlan_interface(device, tag)
    try:
        if await _is_there(name):
            await processes.run_async(["ip", "link", "del", name])
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error


async def _is_there(name: str) -> bool:
    shown = await processes.run_async(["ip", "link", "show", "dev", name], check=False)
    return shown.exit_code == 0
