"""Figures of storage: what the machines of a host read and write on each SR, and how full an SR is. The disks' counters
are QEMU's own, so this is what guests asked for; what hosts copy themselves (imports, exports) is not in it.

On a host the names are the original's, ``iops_read_<first eight of the SR's uuid>``; an SR has the sums of all hosts
without that ending, and its sizes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gespann.pool.model.database import Database
from gespann.pool.rrd.archive import NAN, Source
from gespann.pool.rrd.sources import MIB, Values, domains_by_start, mean_us, rate
from gespann.seams.host_agent import CountersReply, DiskCounters
from gespann.seams.xenapi.errors import XenApiError

SHORT = 8


@dataclass(frozen=True)
class Traffic:
    """Bytes and requests a second; ``reads_us``, ``writes_us``: how long the requests of a second took together."""

    read: float = 0.0
    written: float = 0.0
    reads: float = 0.0
    writes: float = 0.0
    reads_us: float = 0.0
    writes_us: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            self.reads + other.reads,
            self.writes + other.writes,
            self.reads_us + other.reads_us,
            self.writes_us + other.writes_us,
        )


UNKNOWN = Traffic(NAN, NAN, NAN, NAN, NAN, NAN)


def traffic_by_sr(db: Database, host: str, new: CountersReply, old: CountersReply | None) -> dict[str, Traffic]:
    """By SR uuid, for each SR that the host is connected to. A disk without an earlier count has no traffic yet; with
    no earlier counts at all nothing is known."""
    found = {db.get("SR", pbd["SR"])["uuid"]: Traffic() for pbd in _plugged(db, host)}
    if old is None:
        return dict.fromkeys(found, UNKNOWN)
    elapsed_s, earlier = new.taken_s - old.taken_s, domains_by_start(old)
    for domain in new.domains:
        was = earlier.get((domain.uuid, domain.start_id))
        before = {disk.device: disk for disk in was.disks} if was is not None else {}
        places = _places(db, domain.uuid)
        for disk in domain.disks:
            sr, known = places.get(disk.device, ""), before.get(disk.device)
            if sr in found and known is not None:
                found[sr] += _traffic(disk, known, elapsed_s)
    return found


def _plugged(db: Database, host: str) -> Iterable[Mapping[str, str]]:
    pbds = (db.get("PBD", ref) for ref in db.get("host", host)["PBDs"])
    return [pbd for pbd in pbds if pbd["currently_attached"]]


def _places(db: Database, vm_uuid: str) -> dict[int, str]:
    """Device number -> uuid of the SR that the disk is on."""
    found: dict[int, str] = {}
    try:
        vm = db.get("VM", db.by_uuid("VM", vm_uuid))
    except XenApiError:
        return found  # it has gone a moment ago
    for ref in vm["VBDs"]:
        vbd = db.get("VBD", ref)
        vdi = db.find("VDI", vbd["VDI"])
        if vdi is not None and vbd["userdevice"].isdigit():
            found[int(vbd["userdevice"])] = db.get("SR", vdi["SR"])["uuid"]
    return found


def _traffic(new: DiskCounters, old: DiskCounters, elapsed_s: float) -> Traffic:
    return Traffic(
        rate(new.read_bytes, old.read_bytes, elapsed_s),
        rate(new.written_bytes, old.written_bytes, elapsed_s),
        rate(new.reads, old.reads, elapsed_s),
        rate(new.writes, old.writes, elapsed_s),
        rate(new.reads_us, old.reads_us, elapsed_s),
        rate(new.writes_us, old.writes_us, elapsed_s),
    )


def traffic_values(traffic: Traffic, sr_uuid: str = "") -> Values:
    """``sr_uuid``: of a host's figures, which need to say of which SR."""
    ending = f"_{sr_uuid[:SHORT]}" if sr_uuid else ""
    of = f" of SR {sr_uuid}" if sr_uuid else ""
    found: Values = {}
    moved = {"read": traffic.read, "write": traffic.written, "total": traffic.read + traffic.written}
    asked = {"read": traffic.reads, "write": traffic.writes, "total": traffic.reads + traffic.writes}
    for what, value in moved.items():
        name = f"io_throughput_{what}{ending}"
        found[name] = (Source(name, f"Throughput of the machines' disks{of} ({what})", "MiB/s"), value / MIB)
    for what, value in asked.items():
        name = f"iops_{what}{ending}"
        found[name] = (Source(name, f"Requests of the machines' disks{of} ({what})", "requests/s"), value)
    latency = {"read": mean_us(traffic.reads_us, traffic.reads), "write": mean_us(traffic.writes_us, traffic.writes)}
    for what, value in latency.items():
        name = f"{what}_latency{ending}"
        found[name] = (Source(name, f"Time that a request of the machines' disks{of} takes ({what})", "us"), value)
    return found


def sr_values(record: Mapping[str, int], traffic: Iterable[Traffic]) -> Values:
    """``traffic``: of each host that is connected and has told."""
    size = Source("size", "Size of the storage repository", "B")
    used = Source("physical_utilisation", "Space that the storage repository has in use", "B")
    found: Values = {
        "size": (size, float(record["physical_size"])),
        "physical_utilisation": (used, float(record["physical_utilisation"])),
    }
    told = list(traffic)
    whole = UNKNOWN if not told else sum(told, Traffic())
    return found | traffic_values(whole)
