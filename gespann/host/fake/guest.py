"""The life inside a fake machine.

started --boot_s--> agent answers --address_s--> has an address
"""

from dataclasses import dataclass, field

import msgspec

from gespann.host.fake.facts import CPU_COUNT
from gespann.seams.host_agent import CpuTuning, Domain, DomainSpec, GuestMetricsReply, IscsiSource, Nic
from gespann.seams.host_mirror import MirrorTarget, opening_meant
from gespann.seams.json_lines import SeamError


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
    has_balloon: bool = True
    shutdown_s: float = 0.002
    save_s: float = 0.0
    send_s: float = 0.0  # how long its memory takes to another host
    mirror_s: float = 0.0  # how long a disk takes to another volume


@dataclass
class FakeDomain:
    """A machine that runs. ``generation`` rises with each boot, so that what an earlier boot planned does nothing."""

    domain: Domain
    macs: dict[int, str] = field(default_factory=dict)
    bridges: dict[int, str] = field(default_factory=dict)
    locks: dict[int, tuple[str, ...]] = field(default_factory=dict)  # how it is locked, and what it may use
    serials: dict[int, str] = field(default_factory=dict)
    lead_to: dict[int, MirrorTarget] = field(default_factory=dict)  # iSCSI disks: which openings
    sizes_bytes: dict[int, int] = field(default_factory=dict)
    vcpus_max: int = 1
    memory_max_bytes: int = 0
    memory_target_bytes: int = 0
    bios_strings: dict[str, str] = field(default_factory=dict)
    tuning: CpuTuning = field(default_factory=CpuTuning)
    pressed: list[str] = field(default_factory=list)  # buttons and keys
    generation: int = 0
    booted: bool = False
    agent_up: bool = False
    has_address: bool = False
    frozen: bool = False

    def go_on_from(self, earlier: "FakeDomain") -> None:
        """The same guest, in another domain."""
        for name in ("generation", "sizes_bytes", "booted", "agent_up", "has_address", "serials"):
            setattr(self, name, getattr(earlier, name))
        for name in ("vcpus_max", "memory_max_bytes", "memory_target_bytes"):
            setattr(self, name, getattr(earlier, name))
        has = earlier.domain
        self.domain = msgspec.structs.replace(self.domain, vcpus=has.vcpus, memory_bytes=has.memory_bytes)

    def tune(self, tuning: CpuTuning) -> None:
        if tuning.cpus and tuning.cpus[-1] >= CPU_COUNT:
            raise SeamError("REFUSED", f"this host has {CPU_COUNT} processors")
        self.tuning = tuning

    def follows_balloon(self, behaviour: GuestBehaviour) -> bool:
        """A guest whose driver is there follows its target at once; True: that has changed something."""
        if not (self.booted and behaviour.has_balloon) or self.domain.memory_bytes == self.memory_target_bytes:
            return False
        self.domain = msgspec.structs.replace(self.domain, memory_bytes=self.memory_target_bytes)
        return True

    def metrics(self) -> GuestMetricsReply:
        if not self.agent_up:
            return GuestMetricsReply(live=False)
        networks: dict[str, str] = {}
        if self.has_address:
            for device, mac in sorted(self.macs.items()):
                if self.locks.get(device, ("unlocked",)) != ("unlocked",):
                    continue  # whom it asks for an address, does not hear it
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


def lock_of(nic: Nic) -> tuple[str, ...]:
    return (nic.locking, *nic.ipv4_allowed, *nic.ipv6_allowed)


def started(spec: DomainSpec, domid: int, serial_socket: str, vnc_socket: str) -> FakeDomain:
    """What a start makes of it."""
    domain = Domain(
        uuid=spec.uuid,
        start_id=spec.start_id,
        state="paused" if spec.paused else "running",
        reason="user" if spec.paused else "",
        domid=domid,
        memory_bytes=spec.memory_bytes,
        vcpus=spec.vcpus,
        disks=sorted(disk.device for disk in spec.disks),
        nics=sorted(nic.device for nic in spec.nics),
        serial_socket=serial_socket,
        vnc_socket=vnc_socket,
    )
    return FakeDomain(
        domain=domain,
        macs={nic.device: nic.mac for nic in spec.nics},
        bridges={nic.device: nic.bridge for nic in spec.nics},
        locks={nic.device: lock_of(nic) for nic in spec.nics},
        serials={disk.device: disk.serial for disk in spec.disks},
        lead_to={
            disk.device: opening_meant(disk.source) for disk in spec.disks if isinstance(disk.source, IscsiSource)
        },
        vcpus_max=max(spec.vcpus, spec.vcpus_max),
        memory_max_bytes=spec.memory_bytes,
        memory_target_bytes=spec.memory_target_bytes or spec.memory_bytes,
        bios_strings=dict(spec.bios_strings),
        tuning=spec.tuning,
    )
