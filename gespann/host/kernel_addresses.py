"""The addresses of this host's interfaces by `ip`, and leases by busybox's DHCP client, which looks after its lease by
itself and goes on while the agent does not run.

A card that is a port of a bridge has no addresses of its own: the bridge has them.
"""

import asyncio
import ipaddress
import json
import os
import socket
from pathlib import Path
from typing import Any

from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.json_lines import SeamError
from gespann.system import processes

LEASE_SCRIPT = Path(__file__).with_name("lease")
RESOLV_CONF = Path("/etc/resolv.conf")
HOSTNAME = Path("/etc/hostname")
LEASE_TRIES, LEASE_PAUSE_S = 6, 2
LEASE_WITHIN_S = 30.0
METRIC = 100  # of our default routes, plus the interface's number: they stand behind those of the host itself


class KernelAddresses:
    """``run_dir``: for what the DHCP clients write, one of each interface. It goes with a boot, as they do."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    # -- what is there

    async def show(self, device: str) -> InterfaceAddresses:
        link = await carrier_of(device)
        return InterfaceAddresses(
            ipv4=_shown(link, "inet", await _gateway(link["ifname"], 4)),
            ipv6=_shown(link, "inet6", await _gateway(link["ifname"], 6)),
            dns=_name_servers(),
        )

    # -- leases

    async def lease(self, device: str) -> InterfaceAddresses:
        """Asked of the server and written down; a server gives the same one to the same card again."""
        name = str((await carrier_of(device))["ifname"])
        noted = self._file(name, "offer")
        noted.unlink(missing_ok=True)
        words = [*self._client(name), "-n", "-q"]
        env = self._environment(noted) | {"GESPANN_SHOW": "1"}
        done = await processes.run_async(words, env=env, check=False, timeout_s=LEASE_WITHIN_S)
        if done.exit_code or not noted.exists():
            raise SeamError("REFUSED", f"no DHCP server answers on {name}")
        address, router, servers = noted.read_text().split("\n")[:3]
        ipv4 = Addressing(mode="dhcp", addresses=[address], gateway=router.partition(" ")[0])
        return InterfaceAddresses(ipv4=ipv4, dns=servers.split() or None)

    def _client(self, name: str) -> list[str]:
        pauses = ["-t", str(LEASE_TRIES), "-T", str(LEASE_PAUSE_S), "-A", "10"]
        return ["busybox", "udhcpc", "-i", name, "-s", str(LEASE_SCRIPT), *pauses]

    def _environment(self, lease: Path, metric: int = METRIC) -> dict[str, str]:
        return {**os.environ, "GESPANN_LEASE": str(lease), "GESPANN_METRIC": str(metric)}

    def _file(self, name: str, what: str) -> Path:
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._run_dir / f"{name}.{what}"

    async def _look_after(self, link: dict[str, Any], wanted: Addressing) -> None:
        """Starts the client; what the last offer said is in force already, and is what it asks for."""
        name = str(link["ifname"])
        lease, words = self._file(name, "lease"), self._client(name)
        if wanted.addresses:
            lease.write_text("".join(f"{address}\n" for address in wanted.addresses))
        self._file(name, "lease.begins").touch()
        words += ["-b", "-p", str(self._file(name, "pid"))]
        for address in wanted.addresses:
            words += ["-r", address.partition("/")[0]]
        env = self._environment(lease, METRIC + int(link["ifindex"]))
        process = await processes.start([*words, "-f"], env=env)
        self._file(name, "pid").write_text(f"{process.pid}\n")

    def _client_of(self, name: str) -> int | None:
        """The process that looks after a lease there."""
        try:
            pid = int(self._file(name, "pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"udhcpc" in words and name.encode() in words else None

    def _end_client(self, name: str) -> None:
        pid = self._client_of(name)
        if pid is not None:
            processes.kill(pid)
        self._file(name, "pid").unlink(missing_ok=True)

    # -- changes

    async def set(self, device: str, wanted: InterfaceAddresses) -> None:
        link = await carrier_of(device)
        try:
            if wanted.ipv4 is not None:
                await self._set_ipv4(link, wanted.ipv4)
            if wanted.ipv6 is not None:
                await _set_family(link, wanted.ipv6, 6)
            if wanted.dns is not None and wanted.dns != _name_servers():
                await asyncio.to_thread(_set_name_servers, wanted.dns)
        except (processes.CommandFailed, OSError) as error:
            raise SeamError("HYPERVISOR", str(error)) from error

    async def _set_ipv4(self, link: dict[str, Any], wanted: Addressing) -> None:
        """A lease without addresses is one of which nobody says what it is: who looks after it, goes on."""
        name = str(link["ifname"])
        if wanted.mode == "dhcp" and not wanted.addresses and self._client_of(name) is not None:
            return
        self._end_client(name)
        await _set_family(link, wanted, 4)
        if wanted.mode == "dhcp":
            await self._look_after(link, wanted)


async def carrier_of(device: str) -> dict[str, Any]:
    """The interface that has a card's addresses: as `ip` shows it. NOT_FOUND."""
    link = await _link(device)
    if link.get("linkinfo", {}).get("info_slave_kind") == "bridge":
        return await _link(str(link["master"]))
    return link


async def _link(name: str) -> dict[str, Any]:
    shown = await processes.run_async(["ip", "-j", "-d", "addr", "show", "dev", name], check=False)
    links = [link for link in json.loads(shown.stdout or "[]") if link] if not shown.exit_code else []
    if not links:
        raise SeamError("NOT_FOUND", f"this host has no interface {name}")
    found: dict[str, Any] = links[0]
    return found


def _addresses(link: dict[str, Any], family: str) -> list[str]:
    found = (item for item in link.get("addr_info", []) if item.get("scope") == "global" and item["family"] == family)
    return [f"{item['local']}/{item['prefixlen']}" for item in found]


def _shown(link: dict[str, Any], family: str, gateway: str) -> Addressing:
    addresses = _addresses(link, family)
    return Addressing(mode="static" if addresses else "none", addresses=addresses, gateway=gateway)


async def default_routes(*versions: int) -> dict[tuple[str, int], str]:
    """Of IPv4 (4) or IPv6 (6), or both: (interface, 4 or 6) -> the gateway of its first default route."""
    found: dict[tuple[str, int], str] = {}
    for version in versions:
        shown = await processes.run_async(["ip", "-j", f"-{version}", "route", "show", "default"])
        for route in json.loads(shown.stdout or "[]"):
            found.setdefault((str(route.get("dev", "")), version), str(route.get("gateway", "")))
    return found


async def _gateway(name: str, version: int) -> str:
    return (await default_routes(version)).get((name, version), "")


async def _set_family(link: dict[str, Any], wanted: Addressing, version: int) -> None:
    """What goes, goes first: with an address its younger ones of the same network go too, and may be wanted."""
    name, family = str(link["ifname"]), "inet" if version == 4 else "inet6"
    if wanted.mode == "dhcp" and not wanted.addresses:
        return  # there was no lease yet: its client will set it
    for address in _addresses(link, family):
        if address not in wanted.addresses:
            await processes.run_async(["ip", "addr", "del", address, "dev", name], check=False)
    there = _addresses(await _link(name), family)
    for address in wanted.addresses:
        if address not in there:
            spread = ["brd", "+"] if version == 4 and ipaddress.ip_interface(address).network.prefixlen < 31 else []
            at_once = ["nodad"] if version == 6 else []
            await processes.run_async(["ip", "addr", "add", address, *spread, "dev", name, *at_once])
    if wanted.addresses:
        await processes.run_async(["ip", "link", "set", name, "up"])
    await _set_gateway(name, int(link["ifindex"]), wanted.gateway, version)


async def _set_gateway(name: str, number: int, gateway: str, version: int) -> None:
    if await _gateway(name, version) == gateway:
        return
    family, gone = f"-{version}", False
    while not gone:
        words = ["ip", family, "route", "del", "default", "dev", name]
        gone = (await processes.run_async(words, check=False)).exit_code != 0
    if gateway:
        words = ["ip", family, "route", "add", "default", "via", gateway, "dev", name, "metric", str(METRIC + number)]
        await processes.run_async(words)


# -- name servers, and the host's name


def _name_servers() -> list[str]:
    try:
        lines = RESOLV_CONF.read_text().splitlines()
    except OSError:
        return []
    return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]


def _set_name_servers(servers: list[str]) -> None:
    """Only those lines; written in place, since the file may be a link or a mount."""
    try:
        lines = RESOLV_CONF.read_text().splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.split()[:1] != ["nameserver"]]
    RESOLV_CONF.write_text("".join(f"{line}\n" for line in [*kept, *(f"nameserver {server}" for server in servers)]))


async def set_hostname(hostname: str) -> None:
    """The kernel's first: if that fails nothing has changed."""
    try:
        await asyncio.to_thread(socket.sethostname, hostname)
        await asyncio.to_thread(HOSTNAME.write_text, f"{hostname}\n")
    except OSError as error:
        raise SeamError("HYPERVISOR", str(error)) from error
