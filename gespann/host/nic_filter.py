"""What may pass between a machine's network interface and its bridge: nftables' bridge filter, by the name of the tap.

The name is made of the machine's uuid, so a rule is in force before the tap is there, and also where the machine
arrives from another host. The whole table is replaced at once, so there is no moment without it. What is wanted is kept
in RUN, which goes with a boot as the taps do; a table that somebody else has flushed is made again.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from gespann.seams.host_agent import Nic
from gespann.seams.json_lines import SeamError
from gespann.system import processes
from gespann.system.files import write_secret

log = logging.getLogger(__name__)

TABLE = "gespann"
FILE = "nic-locks.json"
LOOK_EVERY_S = 10.0
#: before and behind all that others may have in the bridge
FIRST, LAST = -250, 250
DHCP_SERVER, DHCP_CLIENT = 67, 68  # RFC 2131 section 4.1
ND_TARGET = "@nh,384,128"  # RFC 4861 section 4.4: 8 bytes into the message, behind the 40 of the IPv6 header


def tap_name(uuid: str, device: int) -> str:
    """At most 15 bytes; libvirt keeps names that do not begin as its own do."""
    return f"gt{hashlib.sha256(uuid.encode()).hexdigest()[:10]}.{device}"


class NicFilter:
    def __init__(self, run_dir: Path, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._path = run_dir / FILE
        self._wanted: dict[str, Nic] = {}  # tap -> what it may; unlocked ones are not there
        self._lock = asyncio.Lock()
        self._sleep = sleep
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._path.exists():
            kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Nic])
            there = {name for _, name in socket.if_nameindex()}
            self._wanted = {tap: nic for tap, nic in kept.items() if tap in there}
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """What is in force stays so."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def ensure(self, taps: dict[str, Nic]) -> None:
        """Exactly this is in force for these taps when it returns. HYPERVISOR, and it is as it was, if that fails."""
        async with self._lock:
            before = self._wanted
            wanted = {tap: nic for tap, nic in before.items() if tap not in taps}
            wanted |= {tap: nic for tap, nic in taps.items() if nic.locking != "unlocked"}
            if wanted == before:
                return
            self._keep(wanted)
            try:
                await self._apply()
            except SeamError:
                self._keep(before)
                raise

    def _keep(self, wanted: dict[str, Nic]) -> None:
        write_secret(self._path, msgspec.json.encode(wanted))
        self._wanted = wanted

    async def _apply(self) -> None:
        try:
            await processes.run_async(["nft", "-f", "-"], stdin=rules(self._wanted).encode())
        except processes.CommandFailed as error:
            raise SeamError("HYPERVISOR", f"the filter of locked interfaces: {error}") from error

    async def _watch(self) -> None:
        while True:
            await self._sleep(LOOK_EVERY_S)
            async with self._lock:
                with contextlib.suppress(processes.CommandFailed):
                    await self._look()

    async def _look(self) -> None:
        if not self._wanted:
            return
        shown = await processes.run_async(["nft", "list", "table", "bridge", TABLE], check=False)
        if shown.exit_code == 0 and all(f'"{tap}"' in shown.stdout for tap in self._wanted):
            return
        log.warning("somebody has taken the filter of locked interfaces away: it is made again")
        try:
            await self._apply()
        except SeamError as error:
            log.error("%s", error)


def rules(wanted: dict[str, Nic]) -> str:
    """For `nft -f`: replaces the table, or takes it away if nothing is locked."""
    lines = [f"add table bridge {TABLE}", f"delete table bridge {TABLE}"]
    if not wanted:
        return "\n".join(lines) + "\n"
    lines.append(f"table bridge {TABLE} {{")
    for tap, nic in sorted(wanted.items()):
        if not _is_closed(nic):
            lines += _chain(f"from-{tap}", _from_guest(nic)) + _chain(f"to-{tap}", _to_guest(nic))
    for way, hook, priority, key in (
        ("from", "prerouting", FIRST, "iifname"),
        ("to", "postrouting", LAST, "oifname"),
    ):
        verdicts = (f'"{tap}" : {"drop" if _is_closed(nic) else f"goto {way}-{tap}"}' for tap, nic in wanted.items())
        body = [
            f"type filter hook {hook} priority {priority}; policy accept;",
            f"{key} vmap {{ {', '.join(verdicts)} }}",
        ]
        lines += _chain(way, body)
    return "\n".join([*lines, "}"]) + "\n"


def _is_closed(nic: Nic) -> bool:
    """Locked to nothing is closed: who may use no address has nothing to say."""
    return nic.locking == "disabled" or not (nic.ipv4_allowed or nic.ipv6_allowed)


def _chain(name: str, body: Iterable[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {line}" for line in body), "  }"]


def _from_guest(nic: Nic) -> list[str]:
    lines = [f"ether saddr != {nic.mac} drop"]
    if nic.ipv4_allowed:
        own = _set(nic.ipv4_allowed)
        lines += [
            f"ether type arp arp saddr ether {nic.mac} arp saddr ip {own} accept",
            f"ether type arp arp saddr ether {nic.mac} arp saddr ip 0.0.0.0 arp daddr ip {own} accept",  # RFC 5227
            f"ether type ip ip saddr {own} accept",
            f"ether type ip ip saddr 0.0.0.0 udp sport {DHCP_CLIENT} udp dport {DHCP_SERVER} accept",
        ]
    if nic.ipv6_allowed:
        allowed = [*nic.ipv6_allowed, link_local(nic.mac)]
        own, targets = _set(allowed), _set(hex(int(ipaddress.IPv6Address(text))) for text in allowed)
        lines += [
            "ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop",
            f"ether type ip6 icmpv6 type nd-neighbor-advert {ND_TARGET} != {targets} drop",
            f"ether type ip6 ip6 saddr {own} accept",
            # RFC 4862 section 5.4.2: is it free?
            f"ether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit {ND_TARGET} {targets} accept",
        ]
    return [*lines, "drop"]


def _to_guest(nic: Nic) -> list[str]:
    lines = [f"ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {nic.mac} drop"]
    if nic.ipv4_allowed:
        lines += [
            "ether type arp accept",
            f"ether type ip ip daddr {_set(nic.ipv4_allowed)} accept",
            f"ether type ip udp sport {DHCP_SERVER} udp dport {DHCP_CLIENT} accept",
        ]
    if nic.ipv6_allowed:
        kinds = "{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }"
        lines += [
            f"ether type ip6 ip6 daddr {_set([*nic.ipv6_allowed, link_local(nic.mac)])} accept",
            f"ether type ip6 ip6 daddr ff00::/8 icmpv6 type {kinds} accept",
        ]
    return [*lines, "drop"]


def _set(addresses: Iterable[str]) -> str:
    return "{ " + ", ".join(sorted(set(addresses))) + " }"


def link_local(mac: str) -> str:
    """RFC 4291 appendix A: what a guest that does not hide its MAC address calls itself on its link."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    interface = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))
