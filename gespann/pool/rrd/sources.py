"""From the counters of two moments to named values: rates, parts and sizes. Names and units are the original's, since
clients find figures by name."""

import math
from collections.abc import Mapping, Sequence

from gespann.pool.rrd.archive import NAN, Source
from gespann.seams.host_agent import CountersReply, DiskCounters, DomainCounters

Values = dict[str, tuple[Source, float]]
MIB = 1024 * 1024


def rate(new: float, old: float | None, elapsed_s: float) -> float:
    """NaN where there was no earlier count, or the counter has started anew."""
    if old is None or elapsed_s <= 0 or new < old:
        return NAN
    return (new - old) / elapsed_s


def _part(new: float, old: float | None, elapsed_s: float) -> float:
    """Of one CPU's time; a little more than all of it is measured now and then."""
    part = rate(new, old, elapsed_s)
    return part if math.isnan(part) else min(1.0, part)


def disk_letters(device: int) -> str:
    """0 -> xvda, 26 -> xvdaa: whatever the guest calls its disks, this is how clients know figures of disks."""
    letters, number = "", device + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"xvd{letters}"


class _Values:
    def __init__(self) -> None:
        self.found: Values = {}

    def add(self, name: str, text: str, units: str, value: float, most: float = math.inf) -> None:
        self.found[name] = (Source(name, text, units, most=most), value)


def host_values(new: CountersReply, old: CountersReply | None) -> Values:
    values = _Values()
    elapsed_s = new.taken_s - old.taken_s if old else 0.0
    parts = []
    for number, busy in enumerate(new.cpu_busy_seconds):
        before = old.cpu_busy_seconds if old else []
        part = _part(busy, before[number] if number < len(before) else None, elapsed_s)
        parts.append(part)
        values.add(f"cpu{number}", f"Physical cpu usage for cpu {number}", "(fraction)", part, 1.0)
    values.add("cpu_avg", "Average physical cpu usage", "(fraction)", _mean(parts), 1.0)
    values.add("loadavg", "Domain0 loadavg", "(fraction)", new.load_average)
    values.add("memory_total_kib", "Total amount of memory in use", "KiB", new.memory_total_bytes / 1024)
    values.add("memory_free_kib", "Total amount of free memory", "KiB", new.memory_free_bytes / 1024)
    earlier = {card.device: card for card in old.interfaces} if old else {}
    received, sent = 0.0, 0.0
    for card in new.interfaces:
        was = earlier.get(card.device)
        came = rate(card.received_bytes, was.received_bytes if was else None, elapsed_s)
        went = rate(card.sent_bytes, was.sent_bytes if was else None, elapsed_s)
        values.add(f"pif_{card.device}_rx", f"Bytes per second received on {card.device}", "B/s", came)
        values.add(f"pif_{card.device}_tx", f"Bytes per second sent on {card.device}", "B/s", went)
        received, sent = received + came, sent + went
    values.add("pif_aggr_rx", "Bytes per second received on all physical interfaces", "B/s", received)
    values.add("pif_aggr_tx", "Bytes per second sent on all physical interfaces", "B/s", sent)
    return values.found


def vm_values(new: DomainCounters, old: DomainCounters | None, elapsed_s: float) -> Values:
    """``old``: of the same start of the machine, or nothing."""
    values = _Values()
    parts = []
    for number, busy in enumerate(new.vcpu_seconds):
        before = old.vcpu_seconds if old else []
        part = _part(busy, before[number] if number < len(before) else None, elapsed_s)
        parts.append(part)
        values.add(f"cpu{number}", f"CPU{number} usage", "(fraction)", part, 1.0)
    values.add("cpu_usage", "Domain CPU usage", "(fraction)", _mean(parts), 1.0)
    values.add("memory", "Memory currently allocated to VM", "B", float(new.memory_bytes))
    if new.memory_free_bytes >= 0:
        free_kib = new.memory_free_bytes / 1024
        values.add("memory_internal_free", "Memory free in the guest, as it says itself", "KiB", free_kib)
    for card in new.nics:
        was = next((c for c in old.nics if c.device == card.device), None) if old else None
        came = rate(card.received_bytes, was.received_bytes if was else None, elapsed_s)
        went = rate(card.sent_bytes, was.sent_bytes if was else None, elapsed_s)
        values.add(f"vif_{card.device}_rx", f"Bytes per second received on interface {card.device}", "B/s", came)
        values.add(f"vif_{card.device}_tx", f"Bytes per second sent on interface {card.device}", "B/s", went)
    for disk in new.disks:
        was_disk = next((d for d in old.disks if d.device == disk.device), None) if old else None
        _add_disk(values, disk, was_disk, elapsed_s)
    return values.found


def _add_disk(values: _Values, new: DiskCounters, old: DiskCounters | None, elapsed_s: float) -> None:
    name = disk_letters(new.device)
    read = rate(new.read_bytes, old.read_bytes if old else None, elapsed_s)
    written = rate(new.written_bytes, old.written_bytes if old else None, elapsed_s)
    reads = rate(new.reads, old.reads if old else None, elapsed_s)
    writes = rate(new.writes, old.writes if old else None, elapsed_s)
    values.add(f"vbd_{name}_read", f"Reads from device {name} in bytes per second", "B/s", read)
    values.add(f"vbd_{name}_write", f"Writes to device {name} in bytes per second", "B/s", written)
    values.add(f"vbd_{name}_iops_read", f"Read requests per second of device {name}", "requests/s", reads)
    values.add(f"vbd_{name}_iops_write", f"Write requests per second of device {name}", "requests/s", writes)
    values.add(f"vbd_{name}_iops_total", f"Requests per second of device {name}", "requests/s", reads + writes)
    read_us = rate(new.reads_us, old.reads_us if old else None, elapsed_s)
    write_us = rate(new.writes_us, old.writes_us if old else None, elapsed_s)
    for what, spent_us, requests in (("read", read_us, reads), ("write", write_us, writes)):
        text = f"Time that a request of device {name} takes ({what})"
        values.add(f"vbd_{name}_{what}_latency", text, "us", mean_us(spent_us, requests))
    for what, amount in (("read", read), ("write", written), ("total", read + written)):
        text = f"Throughput of device {name} ({what})"
        values.add(f"vbd_{name}_io_throughput_{what}", text, "MiB/s", amount / MIB)


def mean_us(spent_us: float, requests: float) -> float:
    """Of one request, both given for a second; 0 without any."""
    return 0.0 if requests == 0 else spent_us / requests


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else NAN


def domains_by_start(reply: CountersReply | None) -> Mapping[tuple[str, str], DomainCounters]:
    return {(domain.uuid, domain.start_id): domain for domain in reply.domains} if reply else {}
