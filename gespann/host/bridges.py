"""Linux bridges by `ip`."""

import json

from gespann.seams.json_lines import SeamError
from gespann.system import processes


async def bridge_ensure(bridge: str, mtu: int) -> None:
    """BAD_STATE if something of that name is not a bridge."""
    try:
        kind = await _kind(bridge)
        if kind is None:
            # No delay before a port forwards: a guest asks for its address as soon as it is up.
            words = ["ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0"]
            done = await processes.run_async(words, check=False)
            if done.exit_code and await _kind(bridge) != "bridge":  # two may ask at once
                raise SeamError("HYPERVISOR", f"{done.command}: {done.stderr.strip()}")
        elif kind != "bridge":
            raise SeamError("BAD_STATE", f"{bridge} is there, and is no bridge")
        await processes.run_async(["ip", "link", "set", bridge, "mtu", str(mtu), "up"])
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error


async def check_bridge(bridge: str) -> None:
    """NOT_FOUND if there is none of that name."""
    if await _kind(bridge) != "bridge":
        raise SeamError("NOT_FOUND", f"this host has no bridge {bridge}")


async def _kind(device: str) -> str | None:
    shown = await processes.run_async(["ip", "-j", "-d", "link", "show", "dev", device], check=False)
    if shown.exit_code:
        return None
    links = [link for link in json.loads(shown.stdout) if link]
    return str(links[0].get("linkinfo", {}).get("info_kind", "")) if links else None
