"""What the guest's agent says, and when it says something new. All of it is a stranger's word: short, and checked."""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any

import libvirt
import libvirt_qemu

from gespann.host.libvirt.domain_xml import DomainView
from gespann.seams.host_agent import GuestMetricsReply
from gespann.seams.json_lines import SeamError

AGENT_TIMEOUT_S = 8  # libvirt's own default is to wait for ever
WATCH_FIRST_S = 0.5
WATCH_MOST_S = 30.0
TEXT_LIMIT = 256
ADDRESSES_LIMIT = 64

_NOTHING = GuestMetricsReply(live=False)


def set_agent_timeout(domain: libvirt.virDomain) -> None:
    """Not kept by libvirtd: to be said after each start and each connection. In a worker."""
    domain.agentSetResponseTimeout(AGENT_TIMEOUT_S, 0)


def ask(domain: libvirt.virDomain, view: DomainView) -> GuestMetricsReply:
    """In a worker."""
    if not view.agent_connected:
        return _NOTHING
    try:
        kinds = libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES
        info = domain.guestInfo(kinds, 0)
        version = _version(libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-info"}', AGENT_TIMEOUT_S, 0))
    except libvirt.libvirtError:
        return _NOTHING
    return GuestMetricsReply(
        live=True, agent_version=version, os_version=os_version(info), networks=networks(info, view.nics)
    )


def _version(answer: str) -> str:
    try:
        return _short(json.loads(answer)["return"]["version"])
    except (ValueError, KeyError, TypeError):
        return ""


def _short(value: Any) -> str:
    return "".join(letter for letter in str(value)[:TEXT_LIMIT] if letter.isprintable())


def os_version(info: dict[str, Any]) -> dict[str, str]:
    """XenAPI's VM_guest_metrics.os_version from virDomainGetGuestInfo's os.* fields."""
    major, _, minor = _short(info.get("os.version-id", "")).partition(".")
    return {
        "name": _short(info.get("os.pretty-name", info.get("os.name", ""))),
        "distro": _short(info.get("os.id", "")),
        "major": major,
        "minor": minor,
        "uname": _short(info.get("os.kernel-release", "")),
    }


def networks(info: dict[str, Any], nics: dict[int, str]) -> dict[str, str]:
    """XenAPI's VM_guest_metrics.networks: "0/ip", "0/ipv4/0", "0/ipv6/0", by the MACs of our NICs."""
    devices = {mac: device for device, mac in nics.items()}
    found: dict[str, str] = {}
    for number in range(min(int(info.get("if.count", 0)), ADDRESSES_LIMIT)):
        device = devices.get(str(info.get(f"if.{number}.hwaddr", "")).lower())
        if device is None:
            continue
        counts = {4: 0, 6: 0}
        for index in range(min(int(info.get(f"if.{number}.addr.count", 0)), ADDRESSES_LIMIT)):
            try:
                address = ipaddress.ip_address(info[f"if.{number}.addr.{index}.addr"])
            except (KeyError, ValueError):
                continue
            found[f"{device}/ipv{address.version}/{counts[address.version]}"] = str(address)
            if address.version == 4 and not counts[4]:
                found[f"{device}/ip"] = str(address)
            counts[address.version] += 1
    return found


class GuestWatch:
    """Asks the agents that are there, soon after they come and then ever more rarely, and tells of what is new."""

    def __init__(
        self, ask_guest: Callable[[str], Awaitable[GuestMetricsReply]], changed: Callable[[str], None]
    ) -> None:
        self._ask = ask_guest
        self._changed = changed
        self._watches: dict[str, asyncio.Task[None]] = {}

    def begin(self, uuid: str) -> None:
        self.end(uuid)
        self._watches[uuid] = asyncio.create_task(self._watch(uuid))

    def end(self, uuid: str) -> None:
        watch = self._watches.pop(uuid, None)
        if watch is not None:
            watch.cancel()

    async def close(self) -> None:
        watches = list(self._watches.values())
        for uuid in list(self._watches):
            self.end(uuid)
        await asyncio.gather(*watches, return_exceptions=True)

    async def _watch(self, uuid: str) -> None:
        last: GuestMetricsReply | None = None
        wait_s = WATCH_FIRST_S
        while True:
            with contextlib.suppress(SeamError):
                said = await self._ask(uuid)
                if said != last:
                    self._changed(uuid)
                    last = said
                    wait_s = WATCH_FIRST_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, WATCH_MOST_S)
