"""What a fake host says of itself."""

import uuid
from typing import Any

from gespann import __version__
from gespann.host.fake.machine import FakeMachine, none_at_all
from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.host_agent import FactsReply, HostInterface
from gespann.seams.host_network import vlan_interface

CPU_COUNT = 8
_HOSTS = uuid.UUID("6f1c3c0e-59a8-4a0c-8d0e-6b1f3b0c4a11")


def fake_facts(machine: FakeMachine, memory_bytes: int, used_bytes: int, bridges: list[str]) -> FactsReply:
    cards = sorted(machine.cards.keys() - machine.bonds.keys())
    return FactsReply(
        hostname=machine.hostname,
        host_uuid=str(uuid.uuid5(_HOSTS, machine.first_name)),
        cpu_count=CPU_COUNT,
        cpu_model="Fake CPU",
        cpu_vendor="GenuineFake",
        cpu_mhz=2000,
        cpu_flags="fpu lm",
        memory_total_bytes=memory_bytes,
        memory_free_bytes=memory_bytes - used_bytes,
        accelerator="fake",
        software_version={"gespann": __version__, "qemu": "none", "libvirt": "none", "linux": "none"},
        interfaces=[
            *(_interface(number, device, machine) for number, device in enumerate(cards)),
            *(_interface(0, device, machine) for device in machine.bonds),
        ],
        vlans=[_vlan(ends, bridge, machine) for ends, bridge in sorted(machine.vlans.items())],
        bridges=bridges,
        boot_id=machine.boot_id,
        bios_strings={
            "bios-vendor": "Fake",
            "system-manufacturer": "Fake Inc.",
            "system-product-name": machine.first_name,
        },
    )


def _interface(number: int, device: str, machine: FakeMachine) -> HostInterface:
    bonds = [shape for shape in machine.bonds.values() if device in shape.members]
    own = machine.bonds.get(device)
    return HostInterface(
        device=device,
        mac=own.mac if own is not None else f"02:fa:4e:00:00:{number + 1:02x}",
        mtu=1500,
        carrier=True,
        bridge=machine.ports.get(device, ""),
        bond=bonds[0].device if bonds else "",
        gro=device not in machine.without_gro,
        **_addresses(machine.cards[device]),
    )


def _vlan(ends: tuple[str, int], bridge: str, machine: FakeMachine) -> HostInterface:
    has = machine.vlan_addresses.get(bridge, none_at_all())
    device = vlan_interface(*ends)
    return HostInterface(
        device=device, mac="02:fa:4e:00:01:01", mtu=1500, carrier=True, bridge=bridge, **_addresses(has)
    )


def _addresses(has: InterfaceAddresses) -> dict[str, Any]:
    ipv4, ipv6 = has.ipv4 or Addressing(mode="none"), has.ipv6 or Addressing(mode="none")
    return {
        "addresses": [*ipv4.addresses, *ipv6.addresses],
        "gateway": ipv4.gateway,
        "ipv6_gateway": ipv6.gateway,
    }
