"""What a fake host says of itself."""

import uuid

from gespann import __version__
from gespann.seams.host_agent import FactsReply, HostInterface

FAKE_DEVICES = ("eth0",)
_HOSTS = uuid.UUID("6f1c3c0e-59a8-4a0c-8d0e-6b1f3b0c4a11")


def fake_facts(hostname: str, memory_bytes: int, used_bytes: int, bridges: list[str], boot_id: str) -> FactsReply:
    return FactsReply(
        hostname=hostname,
        host_uuid=str(uuid.uuid5(_HOSTS, hostname)),
        cpu_count=8,
        cpu_model="Fake CPU",
        cpu_vendor="GenuineFake",
        cpu_mhz=2000,
        cpu_flags="fpu lm",
        memory_total_bytes=memory_bytes,
        memory_free_bytes=memory_bytes - used_bytes,
        accelerator="fake",
        software_version={"gespann": __version__, "qemu": "none", "libvirt": "none", "linux": "none"},
        interfaces=[
            HostInterface(device="eth0", mac="02:fa:4e:00:00:01", mtu=1500, carrier=True, addresses=["127.0.0.1/8"])
        ],
        bridges=bridges,
        boot_id=boot_id,
        bios_strings={"bios-vendor": "Fake", "system-manufacturer": "Fake Inc.", "system-product-name": hostname},
    )
