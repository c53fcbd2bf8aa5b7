"""What all machines have used, in one question to libvirt (virConnectGetAllDomainStats)."""

from typing import Any

import libvirt

from gespann.host.libvirt.domain_xml import parse_domain
from gespann.seams.host_agent import DiskCounters, DomainCounters, NicCounters

_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
#: NOWAIT: a machine that another call holds (one that hangs, too) answers with what needs no monitor
_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def domain_counters(connection: libvirt.virConnect) -> list[DomainCounters]:
    """In a worker."""
    found = []
    for domain, numbers in connection.getAllDomainStats(_GROUPS, _FLAGS):
        try:
            view = parse_domain(domain.XMLDesc(0))
        except libvirt.libvirtError:
            continue  # it has stopped meanwhile
        if view.start_id:
            found.append(counters_of(view.uuid, view.start_id, view.nics, numbers))
    return found


def counters_of(uuid: str, start_id: str, nics: dict[int, str], numbers: dict[str, Any]) -> DomainCounters:
    """``numbers``: as libvirt's page on virConnectGetAllDomainStats names them; ``nics``: those that the machine has,
    in the order of its XML, which is how libvirt counts them."""
    vcpus = range(int(numbers.get("vcpu.maximum", 0)))
    usable_kib = numbers.get("balloon.usable", numbers.get("balloon.unused"))
    return DomainCounters(
        uuid=uuid,
        start_id=start_id,
        vcpu_seconds=[numbers[f"vcpu.{n}.time"] / 1e9 for n in vcpus if f"vcpu.{n}.time" in numbers],
        memory_bytes=int(numbers.get("balloon.current", 0)) * 1024,
        memory_free_bytes=-1 if usable_kib is None else int(usable_kib) * 1024,
        disks=_disks(numbers),
        nics=[
            # libvirt counts at the tap, which for a plain tap is told from the guest's side already
            NicCounters(
                device=device,
                received_bytes=int(numbers.get(f"net.{at}.rx.bytes", 0)),
                sent_bytes=int(numbers.get(f"net.{at}.tx.bytes", 0)),
            )
            for at, device in enumerate(nics)
            if f"net.{at}.rx.bytes" in numbers
        ],
    )


def _disks(numbers: dict[str, Any]) -> list[DiskCounters]:
    found = []
    for at in range(int(numbers.get("block.count", 0))):
        if f"block.{at}.rd.bytes" not in numbers:  # an empty drive, or no answer from the monitor
            continue
        found.append(
            DiskCounters(
                device=device_of(numbers[f"block.{at}.name"]),
                read_bytes=int(numbers[f"block.{at}.rd.bytes"]),
                written_bytes=int(numbers[f"block.{at}.wr.bytes"]),
                reads=int(numbers[f"block.{at}.rd.reqs"]),
                writes=int(numbers[f"block.{at}.wr.reqs"]),
                reads_us=int(numbers.get(f"block.{at}.rd.times", 0)) // 1000,
                writes_us=int(numbers.get(f"block.{at}.wr.times", 0)) // 1000,
            )
        )
    return found


def device_of(target: str) -> int:
    """The number behind ``domain_xml.target_name``: sda is 0, sdaa 26."""
    number = 0
    for letter in target.removeprefix("sd"):
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1
