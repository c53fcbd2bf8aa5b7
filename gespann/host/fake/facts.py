"""What a fake host says of itself."""

import uuid

from gespann import __version__
from gespann.host.fake.machine import FakeMachine
from gespann.seams.host_addresses import Addressing
from gespann.seams.host_agent import FactsReply, HostInterface

CPU_COUNT = 8
_HOSTS = uuid.UUID("6f1c3c0e-59a8-4a0c-8d0e-6b1f3b0c4a11")


def fake_facts(machine: FakeMachine, memory_bytes: int, used_bytes: int, bridges: list[str]) -> FactsReply:
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
        interfaces=[_interface(number, device, machine) for number, device in enumerate(sorted(machine.cards))],
        bridges=bridges,
        boot_id=machine.boot_id,
        bios_strings={
            "bios-vendor": "Fake",
            "system-manufacturer": "Fake Inc.",
            "system-product-name": machine.first_name,
        },
    )


def _interface(number: int, device: str, machine: FakeMachine) -> HostInterface:
    has = machine.cards[device]
    ipv4, ipv6 = has.ipv4 or Addressing(mode="none"), has.ipv6 or Addressing(mode="none")
    return HostInterface(
        device=device,
        mac=f"02:fa:4e:00:00:{number + 1:02x}",
        mtu=1500,
        carrier=True,
        addresses=[*ipv4.addresses, *ipv6.addresses],
        gateway=ipv4.gateway,
        ipv6_gateway=ipv6.gateway,
    )
