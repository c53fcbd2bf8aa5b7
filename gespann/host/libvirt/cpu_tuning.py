"""How much of the host's processors a machine has, and which: by libvirt, on a machine that runs.

Shares and the cap are set on the machine's control group, so they need the CPU controller; which processors it runs on
is the threads' own affinity, and needs nothing.
"""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

import libvirt

from gespann.seams.host_agent import WEIGHT_DEFAULT, CpuTuning
from gespann.seams.json_lines import SeamError

log = logging.getLogger(__name__)

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
#: of control groups: what a group has that was told nothing, and the most it may have (cgroups(7): cpu.shares of
#: version 1, cpu.weight of version 2)
SHARES_V1, MOST_V1 = 1024, 262_144
SHARES_V2, MOST_V2 = 100, 10_000
PERIOD_US = 100_000
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


def scheduler_parameters(tuning: CpuTuning, *, unified: bool) -> dict[str, int]:
    """As ``virDomainSetSchedulerParametersFlags`` takes them. A cap is for the whole machine, of all its vCPUs."""
    usual, most = (SHARES_V2, MOST_V2) if unified else (SHARES_V1, MOST_V1)
    shares = (tuning.weight or WEIGHT_DEFAULT) * usual // WEIGHT_DEFAULT
    quota_us = tuning.cap_percent * PERIOD_US // 100 if tuning.cap_percent else -1
    return {"cpu_shares": min(max(shares, 2), most), "global_period": PERIOD_US, "global_quota": quota_us}


def tune(domain: libvirt.virDomain, tuning: CpuTuning, before: CpuTuning) -> None:
    """In a worker. Only what differs is touched. REFUSED: this host cannot do that."""
    if tuning.cpus != before.cpus:
        _pin(domain, tuning.cpus)
    if (tuning.weight, tuning.cap_percent) == (before.weight, before.cap_percent):
        return
    try:
        domain.setSchedulerParametersFlags(scheduler_parameters(tuning, unified=UNIFIED.exists()), LIVE)
    except libvirt.libvirtError as error:
        raise SeamError("REFUSED", f"weight and cap cannot be set on this host: {error}") from error


def tune_at_start(domain: libvirt.virDomain, tuning: CpuTuning) -> None:
    """In a worker. A machine that cannot be held to it runs all the same."""
    try:
        tune(domain, tuning, CpuTuning())
    except SeamError as error:
        log.warning("%s: %s", domain.name(), error.message)


def _pin(domain: libvirt.virDomain, cpus: list[int]) -> None:
    count = domain.connect().getInfo()[2]
    if cpus and cpus[-1] >= count:
        raise SeamError("REFUSED", f"this host has {count} processors, none with the number {cpus[-1]}")
    allowed = tuple(not cpus or number in cpus for number in range(count))
    try:
        for vcpu, *_ in domain.vcpus()[0]:
            domain.pinVcpuFlags(vcpu, allowed, LIVE)
    except libvirt.libvirtError as error:
        raise SeamError("REFUSED", f"vCPUs cannot be kept to processors on this host: {error}") from error


def pin_as_the_first(vcpus: Iterable[int], domain: libvirt.virDomain) -> None:
    """In a worker, of vCPUs just plugged. Where threads cannot be told apart none is kept to anything."""
    with contextlib.suppress(libvirt.libvirtError):
        allowed = domain.vcpuPinInfo(LIVE)[0]
        for vcpu in vcpus:
            domain.pinVcpuFlags(vcpu, allowed, LIVE)
