"""The machine under a fake hypervisor's domains, and the failures that a test asks for."""

from collections import defaultdict

import msgspec

from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.json_lines import SeamError


class FakeMachine:
    def __init__(self, hostname: str) -> None:
        self.hostname = self.first_name = hostname
        none = Addressing(mode="none")
        eth0 = Addressing(mode="static", addresses=["127.0.0.1/8"])
        self.cards = {"eth0": InterfaceAddresses(ipv4=eth0, ipv6=none, dns=[])}
        self.leases: dict[str, Addressing] = {}  # card -> what its network's DHCP server gives
        self.boot_id = "first"
        self.powered: list[str] = []  # what the host itself was told to do
        self.kernel_lines = ["Linux, the fake one"]
        self._failures: defaultdict[str, list[SeamError]] = defaultdict(list)

    def fail_next(self, method: str, error: SeamError, times: int = 1) -> None:
        """The next calls of ``method`` ("create", "disk_attach", ...) fail before they do anything."""
        self._failures[method] += [error] * times

    def _maybe_fail(self, method: str) -> None:
        if self._failures[method]:
            raise self._failures[method].pop(0)

    async def power(self, *, reboot: bool) -> None:
        self._maybe_fail("power")
        self.powered.append("reboot" if reboot else "off")

    async def kernel_log(self, *, clear: bool) -> str:
        self._maybe_fail("kernel_log")
        text = "".join(f"{line}\n" for line in self.kernel_lines)
        if clear:
            self.kernel_lines.clear()
        return text

    async def addresses_show(self, device: str) -> InterfaceAddresses:
        self._maybe_fail("addresses_show")
        return self._card(device)

    async def addresses_lease(self, device: str) -> InterfaceAddresses:
        self._maybe_fail("addresses_lease")
        self._card(device)
        if device not in self.leases:
            raise SeamError("REFUSED", f"no DHCP server answers on {device}")
        return InterfaceAddresses(ipv4=self.leases[device])

    async def addresses_set(self, device: str, wanted: InterfaceAddresses) -> None:
        self._maybe_fail("addresses_set")
        fields = {name: getattr(wanted, name) for name in ("ipv4", "ipv6", "dns")}
        given = {name: value for name, value in fields.items() if value is not None}
        self.cards[device] = msgspec.structs.replace(self._card(device), **given)

    def _card(self, device: str) -> InterfaceAddresses:
        if device not in self.cards:
            raise SeamError("NOT_FOUND", f"this host has no interface {device}")
        return self.cards[device]

    async def hostname_set(self, hostname: str) -> None:
        self._maybe_fail("hostname_set")
        self.hostname = hostname
