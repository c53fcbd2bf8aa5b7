"""The machine under a fake hypervisor's domains, and the failures that a test asks for."""

from collections import defaultdict

import msgspec

from gespann.host.bonds import CardPlace
from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.host_bonds import BondShape
from gespann.seams.host_network import vlan_interface
from gespann.seams.json_lines import SeamError


def none_at_all() -> InterfaceAddresses:
    return InterfaceAddresses(ipv4=Addressing(mode="none"), ipv6=Addressing(mode="none"), dns=[])


class FakeMachine:
    def __init__(self, hostname: str) -> None:
        self.bridges: dict[str, int] = {}
        self.vlans: dict[tuple[str, int], str] = {}  # (device, tag) -> bridge
        self.vlan_addresses: dict[str, InterfaceAddresses] = {}  # of a VLAN's bridge
        self.hostname = self.first_name = hostname
        none = Addressing(mode="none")
        eth0 = Addressing(mode="static", addresses=["127.0.0.1/8"])
        self.cards = {"eth0": InterfaceAddresses(ipv4=eth0, ipv6=none, dns=[])}
        self.bonds: dict[str, BondShape] = {}
        self.ports: dict[str, str] = {}  # card or bond -> the bridge that it is a port of
        self.without_gro: set[str] = set()
        self.knows_bonds = True  # the kernel
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
        has = self.vlan_addresses if device not in self.cards else self.cards
        bearer = self._vlan_bridge(device) or device
        has[bearer] = msgspec.structs.replace(self._card(device), **given)

    # -- bonds

    async def bond_places(self, device: str, members: list[str]) -> dict[str, CardPlace]:
        self._maybe_fail("bond_places")
        within = {card: name for name, shape in self.bonds.items() for card in shape.members}
        for card in members:
            self._card(card)
            if within.get(card, device) != device:
                raise SeamError("BAD_STATE", f"{card} is a port of {within[card]} already")
        return {card: CardPlace(bridge=self.ports.get(card, "")) for card in members if card not in within}

    async def bond_set(self, shape: BondShape) -> None:
        self._maybe_fail("bond_set")
        await self.bond_places(shape.device, shape.members)
        if not self.knows_bonds:
            raise SeamError("HYPERVISOR", "ip link add: Unknown device type.")
        for card in shape.members:
            self.ports.pop(card, None)
            assert self.cards[card].ipv4 == Addressing(mode="none"), f"{card} has addresses beside its bond's"
        assert not any(device in shape.members for device, _ in self.vlans), "a VLAN takes frames from the bond"
        self.cards.setdefault(shape.device, none_at_all())
        self.bonds[shape.device], self.ports[shape.device] = shape, shape.bridge
        self.bridges.setdefault(shape.bridge, shape.mtu)

    async def bond_remove(self, device: str, places: dict[str, CardPlace]) -> None:
        self._maybe_fail("bond_remove")
        self.bonds.pop(device, None)
        self.ports.pop(device, None)
        self.cards.pop(device, None)
        for end in [end for end in self.vlans if end[0] == device]:
            del self.vlans[end]
        for card, place in places.items():
            if place.bridge:
                self.ports[card] = place.bridge

    async def card_gro_set(self, device: str, *, on: bool) -> None:
        self._maybe_fail("card_gro_set")
        self._card(device)
        (self.without_gro.discard if on else self.without_gro.add)(device)

    def vlans_with_addresses(self) -> dict[str, InterfaceAddresses]:
        """By their bridges."""
        return {bridge: has for bridge, has in self.vlan_addresses.items() if has != none_at_all()}

    def _vlan_bridge(self, device: str) -> str:
        """ "": it is no VLAN's interface."""
        return next((bridge for ends, bridge in self.vlans.items() if vlan_interface(*ends) == device), "")

    def _card(self, device: str) -> InterfaceAddresses:
        if bridge := self._vlan_bridge(device):
            return self.vlan_addresses.setdefault(bridge, none_at_all())
        if device not in self.cards:
            raise SeamError("NOT_FOUND", f"this host has no interface {device}")
        return self.cards[device]

    async def hostname_set(self, hostname: str) -> None:
        self._maybe_fail("hostname_set")
        self.hostname = hostname
