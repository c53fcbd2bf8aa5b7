"""The life inside a fake machine.

started --boot_s--> agent answers --address_s--> has an address
"""

from dataclasses import dataclass, field

from gespann.seams.host_agent import Domain, GuestMetricsReply


@dataclass
class GuestBehaviour:
    """How a guest lives, and how it misbehaves."""

    boot_s: float = 0.002
    address_s: float = 0.002
    has_agent: bool = True
    obeys_shutdown: bool = True
    obeys_unplug: bool = True
    panics_at_boot: bool = False
    obeys_freeze: bool = True  # False: it does not answer, and freezes all the same
    deaf_to_thaws: int = 0  # so many times it does not answer
    shutdown_s: float = 0.002
    save_s: float = 0.0


@dataclass
class FakeDomain:
    """A machine that runs. ``generation`` rises with each boot, so that what an earlier boot planned does nothing."""

    domain: Domain
    macs: dict[int, str] = field(default_factory=dict)
    bridges: dict[int, str] = field(default_factory=dict)
    serials: dict[int, str] = field(default_factory=dict)
    sizes_bytes: dict[int, int] = field(default_factory=dict)
    vcpus_max: int = 1
    generation: int = 0
    agent_up: bool = False
    has_address: bool = False
    frozen: bool = False

    def metrics(self) -> GuestMetricsReply:
        if not self.agent_up:
            return GuestMetricsReply(live=False)
        networks: dict[str, str] = {}
        if self.has_address:
            for device, mac in sorted(self.macs.items()):
                networks[f"{device}/ip"] = networks[f"{device}/ipv4/0"] = address_of(mac)
        return GuestMetricsReply(
            live=True,
            agent_version="7.2.0-fake",
            os_version={"name": "Fake 12", "distro": "fake", "major": "12", "minor": "", "uname": "6.1.0-fake"},
            networks=networks,
        )


def address_of(mac: str) -> str:
    """10.254.x.y by the last two octets of the MAC: different for each NIC of a test, the same at each start."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    return f"10.254.{octets[4]}.{octets[5]}"
