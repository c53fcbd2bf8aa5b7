"""What this machine has used since it started, from /proc and /sys."""

import os
import time
from pathlib import Path

from gespann.seams.host_agent import CountersReply, DomainCounters, InterfaceCounters

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def host_counters(domains: list[DomainCounters], memory: dict[str, int]) -> CountersReply:
    """``memory``: of ``facts.meminfo``."""
    return CountersReply(
        taken_s=time.monotonic(),
        cpu_busy_seconds=busy_seconds(Path("/proc/stat").read_text()),
        load_average=os.getloadavg()[0],
        memory_total_bytes=memory["MemTotal"],
        memory_free_bytes=memory["MemAvailable"],
        interfaces=interface_counters(Path("/proc/net/dev").read_text(), Path("/sys/class/net")),
        domains=domains,
    )


def busy_seconds(stat: str) -> list[float]:
    """Of each CPU of /proc/stat: all but idle and waiting for I/O. Guest time is part of user time already."""
    busy = []
    for line in stat.splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, rest.split()[:8])
            busy.append((user + nice + system + irq + softirq + steal) / _TICKS_A_SECOND)
    return busy


def interface_counters(dev: str, sysfs: Path) -> list[InterfaceCounters]:
    """Cards, of /proc/net/dev: not loopback, taps or bridges."""
    found = []
    for line in dev.splitlines()[2:]:
        device, _, rest = line.partition(":")
        device = device.strip()
        entry = sysfs / device
        if device == "lo" or (entry / "bridge").exists() or (entry / "tun_flags").exists():
            continue
        numbers = rest.split()
        found.append(InterfaceCounters(device=device, received_bytes=int(numbers[0]), sent_bytes=int(numbers[8])))
    return found
