"""What the machine says of itself, from /proc and `ip`."""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import msgspec

from gespann.host.kernel_addresses import default_routes
from gespann.host.offload import gro
from gespann.host.vlans import OWN
from gespann.seams.host_agent import HostInterface
from gespann.seams.json_lines import SeamError
from gespann.system import processes


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * (1024 if rest.endswith("kB") else 1)
    return found


def free_bytes(memory: dict[str, int], promised_bytes: int) -> int:
    """What machines may still be given: neither what others were promised, used or not, nor what this machine itself
    needs. ``memory``: of ``meminfo``."""
    return max(0, min(memory["MemTotal"] - promised_bytes, memory["MemAvailable"]))


def cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def boot_id() -> str:
    """Of the kernel, and of the first process that this one can see: a machine may be a namespace."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    first = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return f"{kernel}-{first[19]}"  # proc(5): starttime is the 22nd field, the 20th after the name


def cpu_count() -> int:
    return os.cpu_count() or 1


def parse_interfaces(
    links: list[dict[str, Any]], gateways: dict[tuple[str, int], str] | None = None
) -> tuple[list[HostInterface], list[HostInterface], list[str]]:
    """(cards and bonds, VLANs that the agent made, bridges) from `ip -j -d addr show`. Taps of machines are left out. A
    bridge is no card: its addresses are those of the first card that is a port of it. ``gateways``: by interface and
    version."""
    gateways = gateways or {}
    bridges = {link["ifname"]: _addresses(link) for link in links if _kind(link) == "bridge"}
    untold = dict(bridges)
    interfaces: list[HostInterface] = []
    vlans: list[HostInterface] = []
    for link in links:
        if link.get("link_type") != "ether" or _kind(link) in ("tun", "bridge"):
            continue
        port_of = str(link.get("linkinfo", {}).get("info_slave_kind", ""))
        bridge = str(link.get("master", "")) if port_of == "bridge" else ""
        bearer = bridge if bridge in untold else link["ifname"]
        own_vlan = _kind(link) == "vlan" and OWN.fullmatch(link["ifname"])
        (vlans if own_vlan else interfaces).append(
            HostInterface(
                device=link["ifname"],
                mac=_own_mac(link),
                mtu=link["mtu"],
                carrier="LOWER_UP" in link["flags"],
                addresses=_addresses(link) + untold.pop(bridge, []),
                bridge=bridge,
                bond=str(link.get("master", "")) if port_of == "bond" else "",
                gateway=gateways.get((bearer, 4), ""),
                ipv6_gateway=gateways.get((bearer, 6), ""),
            )
        )
    return interfaces, vlans, sorted(bridges)


def _own_mac(link: dict[str, Any]) -> str:
    """A member of a bond shows the bond's."""
    own = link.get("linkinfo", {}).get("info_slave_data", {}).get("perm_hwaddr", "")
    return str(own or link["address"])


def _kind(link: dict[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _addresses(link: dict[str, Any]) -> list[str]:
    found = (item for item in link.get("addr_info", []) if item.get("scope") == "global")
    return [f"{item['local']}/{item['prefixlen']}" for item in found]


async def interfaces() -> tuple[list[HostInterface], list[HostInterface], list[str]]:
    shown = await processes.run_async(["ip", "-j", "-d", "addr", "show"])
    cards, vlans, bridges = parse_interfaces(json.loads(shown.stdout), await default_routes(4, 6))
    return [msgspec.structs.replace(card, gro=gro(card.device)) for card in cards], vlans, bridges


async def qemu_version() -> str:
    try:
        shown = await processes.run_async(["qemu-system-x86_64", "--version"])
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", f"QEMU is not there: {error.why}") from error
    found = re.search(r"version (\S+)", shown.stdout)
    return found.group(1) if found else "unknown"


def linux_version() -> str:
    return platform.release()
