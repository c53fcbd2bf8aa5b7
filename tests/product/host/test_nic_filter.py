"""What a locked interface lets pass, with real frames: a bridge in a network namespace, two cables to it in place of
the taps of two machines, and raw sockets at their other ends."""

import asyncio
import ctypes
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gespann.host import nic_filter
from gespann.host.nic_filter import NicFilter, link_local
from gespann.lab.node import wait_until
from gespann.seams.host_agent import Nic
from gespann.seams.json_lines import SeamError
from gespann.system import processes

pytestmark = pytest.mark.real
GUEST, OTHER, STRANGE = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
ALLOWED, FORBIDDEN, PEER = "10.9.0.10", "10.9.0.99", "10.9.0.11"
ALLOWED6, FORBIDDEN6, PEER6 = "fd09::10", "fd09::99", "fd09::11"
BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
SOLICIT, ADVERT, ROUTER_ADVERT = 135, 136, 134  # RFC 4861


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, target: str, kind: int, body: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + body


def ip(
    source: str,
    target: str,
    ports: tuple[int, int] = (1000, 1000),
    mac: str = GUEST,
    to: str = OTHER,
    payload: bytes = b"",
) -> bytes:
    """UDP. Whole and right: a kernel that looks into bridged packets drops others, and cuts off what is behind them."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return ethernet(mac, to, IPV4, head + datagram)


def arp(sender: str, asked: str, mac: str = GUEST, claims: str = "", to: str = BROADCAST) -> bytes:
    own = mac_bytes(claims or mac) + socket.inet_aton(sender)
    return ethernet(mac, to, ARP, struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + own + bytes(6) + socket.inet_aton(asked))


def ipv6(source: str, target: str, message: int = 0, about: str = "::", mac: str = GUEST, to: str = OTHER) -> bytes:
    """UDP, or a message of ICMPv6 with a target."""
    pack = socket.inet_pton
    if message:
        body = struct.pack("!BBHI", message, 0, 0, 0) + pack(socket.AF_INET6, about)
    else:
        body = struct.pack("!HHHH", 1000, 1000, 8, 0)
    addresses = pack(socket.AF_INET6, source) + pack(socket.AF_INET6, target)
    head = struct.pack("!IHBB", 6 << 28, len(body), 58 if message else 17, 255) + addresses
    return ethernet(mac, to, IPV6, head + body)


@dataclass
class Net:
    """``guest`` and ``other``: raw sockets where machines would be. ``tap``: the bridge's end of the first."""

    namespace: str
    tap: str
    filter: NicFilter
    guest: socket.socket
    other: socket.socket

    async def lock(self, **fields: Any) -> None:
        await self.filter.ensure({self.tap: Nic(device=0, mac=GUEST, bridge="lan", **fields)})

    def passes(self, frame: bytes, *, back: bool = False) -> bool:
        """A frame that always passes is sent behind it: when that is there, the first one is there or is lost."""
        source, target = (self.other, self.guest) if back else (self.guest, self.other)
        marker = os.urandom(8)
        source.send(frame)
        last = ip(PEER, ALLOWED, mac=OTHER, to=GUEST, payload=marker) if back else ip(ALLOWED, PEER, payload=marker)
        source.send(last)
        seen = False
        while True:
            heard = target.recv(2000)
            if heard.endswith(marker):
                return seen
            seen = seen or heard.startswith(frame)


@pytest.fixture
async def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Net]:
    namespace, tap = f"gsf{os.getpid()}", "gt0123456789.0"
    enter = ["nsenter", f"--net=/run/netns/{namespace}"]
    run_async = processes.run_async

    async def run_there(words: Sequence[str], **how: Any) -> processes.Result:
        return await run_async([*enter, *words], **how)

    processes.run(["ip", "netns", "add", namespace])
    sockets: list[socket.socket] = []
    try:
        processes.run([*enter, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])  # nobody but us speaks
        words = ["link", "add", "lan", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]
        processes.run([*enter, "ip", *words])
        ends = ((tap, "guest"), ("gtfedcba9876.0", "other"))
        for number, (port, end) in enumerate(ends):
            processes.run([*enter, "ip", "link", "add", port, "type", "veth", "peer", "name", end])
            processes.run([*enter, "ip", "link", "set", port, "master", "lan", "up"])
            processes.run([*enter, "ip", "link", "set", end, "address", (GUEST, OTHER)[number], "up"])
        processes.run([*enter, "ip", "link", "set", "lan", "up"])
        for port, _ in ends:
            wait_until(partial(forwards, enter, port), 20, f"{port} forwards")
        sockets = [raw_socket(namespace, end) for _, end in ends]
        monkeypatch.setattr(nic_filter.processes, "run_async", run_there)
        made = NicFilter(tmp_path)
        yield Net(namespace, tap, made, *sockets)
        await made.close()
    finally:
        for one in sockets:
            one.close()
        processes.run(["ip", "netns", "del", namespace])


def forwards(enter: list[str], port: str) -> bool:
    shown = json.loads(processes.run([*enter, "ip", "-j", "-d", "link", "show", "dev", port]).stdout)
    return bool(shown[0]["linkinfo"]["info_slave_data"]["state"] == "forwarding")


def raw_socket(namespace: str, device: str) -> socket.socket:
    """Opened by a thread of its own, which goes there and ends."""

    def work() -> socket.socket:
        with open(f"/run/netns/{namespace}") as there:
            set_network_of_thread(there.fileno())
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        made.bind((device, 0))
        made.settimeout(20)
        return made

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def set_network_of_thread(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


async def test_what_a_locked_interface_may_send_and_get(net: Net) -> None:
    odd = [
        ip(FORBIDDEN, PEER),
        ip(ALLOWED, PEER, mac=STRANGE),
        arp(FORBIDDEN, PEER),
        arp(ALLOWED, PEER, claims=STRANGE),
        ip("0.0.0.0", PEER),
        ipv6(ALLOWED6, PEER6),
        ethernet(GUEST, OTHER, 0x88B5, bytes(46)),
    ]
    for frame in odd:
        assert net.passes(frame), frame.hex()  # nothing is locked yet
    await net.lock(locking="locked", ipv4_allowed=[ALLOWED])
    for frame in odd:
        assert not net.passes(frame), frame.hex()
    assert net.passes(ip(ALLOWED, PEER))
    assert net.passes(arp(ALLOWED, PEER))
    assert net.passes(arp("0.0.0.0", ALLOWED))
    assert net.passes(ip("0.0.0.0", "255.255.255.255", (68, 67), to=BROADCAST))

    assert net.passes(ip(PEER, ALLOWED, mac=OTHER, to=GUEST), back=True)
    assert net.passes(arp(PEER, ALLOWED, mac=OTHER), back=True)
    assert net.passes(ip(PEER, ALLOWED, (67, 68), mac=OTHER, to=GUEST), back=True)
    assert not net.passes(ip(PEER, FORBIDDEN, mac=OTHER, to=GUEST), back=True)
    assert not net.passes(ip(PEER, ALLOWED, mac=OTHER, to=STRANGE), back=True)

    await net.lock()
    for frame in odd:
        assert net.passes(frame), frame.hex()


async def test_a_locked_interface_and_ipv6(net: Net) -> None:
    own = link_local(GUEST)
    assert own == "fe80::ff:fe00:a"
    await net.lock(locking="locked", ipv4_allowed=[ALLOWED], ipv6_allowed=[ALLOWED6])
    assert net.passes(ipv6(ALLOWED6, PEER6))
    assert net.passes(ipv6(own, PEER6))
    assert not net.passes(ipv6(FORBIDDEN6, PEER6))
    assert net.passes(ipv6("::", "ff02::1:ff00:10", SOLICIT, ALLOWED6))
    assert not net.passes(ipv6("::", "ff02::1:ff00:99", SOLICIT, FORBIDDEN6))
    assert net.passes(ipv6(ALLOWED6, PEER6, ADVERT, ALLOWED6))
    assert not net.passes(ipv6(ALLOWED6, PEER6, ADVERT, FORBIDDEN6))
    assert not net.passes(ipv6(own, "ff02::1", ROUTER_ADVERT))
    assert net.passes(ipv6(PEER6, ALLOWED6, mac=OTHER, to=GUEST), back=True)
    assert not net.passes(ipv6(PEER6, FORBIDDEN6, mac=OTHER, to=GUEST), back=True)
    assert net.passes(ipv6(PEER6, "ff02::1:ff00:10", SOLICIT, ALLOWED6, mac=OTHER, to=GUEST), back=True)


async def test_a_disabled_interface_and_one_locked_to_nothing(net: Net) -> None:
    for fields in ({"locking": "disabled", "ipv4_allowed": [ALLOWED]}, {"locking": "locked"}):
        await net.lock(**fields)
        for frame in (ip(ALLOWED, PEER), arp(ALLOWED, PEER), ip("0.0.0.0", "255.255.255.255", (68, 67))):
            net.guest.send(frame)
        net.other.send(ip(PEER, ALLOWED, mac=OTHER, to=GUEST))
        await net.lock()
        assert heard(net, net.guest, net.other) == []
        assert heard(net, net.other, net.guest) == []


def heard(net: Net, source: socket.socket, target: socket.socket) -> list[bytes]:
    """What has come until now: everything before a last word."""
    last = ethernet(GUEST if source is net.guest else OTHER, BROADCAST, 0x88B5, os.urandom(46))
    source.send(last)
    frames: list[bytes] = []
    while (frame := target.recv(2000)) != last:
        frames.append(frame)
    return frames


async def test_a_filter_that_somebody_flushes_is_made_again(tmp_path: Path, net: Net) -> None:
    looked = asyncio.Event()

    async def soon(delay_s: float) -> None:
        await looked.wait()
        looked.clear()

    watched = NicFilter(tmp_path, sleep=soon)
    await watched.open()
    await watched.ensure({net.tap: Nic(device=0, mac=GUEST, bridge="lan", locking="locked", ipv4_allowed=[ALLOWED])})
    processes.run(["nsenter", f"--net=/run/netns/{net.namespace}", "nft", "flush", "ruleset"])
    assert net.passes(ip(FORBIDDEN, PEER))
    looked.set()
    async with asyncio.timeout(20):
        while net.passes(ip(FORBIDDEN, PEER)):  # noqa: ASYNC110 another task does it
            await asyncio.sleep(0.01)
    await watched.close()


async def test_what_cannot_be_put_in_force_changes_nothing(net: Net) -> None:
    await net.lock(locking="locked", ipv4_allowed=[ALLOWED])
    with pytest.raises(SeamError, match="the filter of locked interfaces"):
        await net.lock(locking="locked", ipv4_allowed=["no address"])
    assert net.passes(ip(ALLOWED, PEER))
    assert not net.passes(ip(FORBIDDEN, PEER))
    await net.lock(locking="disabled")
    await net.lock(locking="locked", ipv4_allowed=[ALLOWED])
    assert not net.passes(ip(FORBIDDEN, PEER))
