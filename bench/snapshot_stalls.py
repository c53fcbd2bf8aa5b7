"""What a writer sees of each single snapshot: part of `make bench-snapshots`.

For every snapshot the longest latency among the commands in flight from the ask to the answer, and among those in
flight in the half second from the ask on, in which writing comes back to normal. On a machine with other things to do
long latencies come without any snapshot. So the same is looked for where there was none: in windows of the same
lengths, as many, at random moments of runs without snapshots that alternate with the others.
"""

import asyncio
import os
import random
import statistics
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engine import Workload, measure
from bench.record import table
from bench.targets import Engine, MeasuredTarget
from gespann.seams.engine_socket import VERSION, Hello, Space
from gespann.system.json_lines import JsonLinesClient

WRITES = Workload("4 KiB random write, depth 32", "randwrite", 4096, 32)
AFTERWARDS_S = 0.5
APART_S = (AFTERWARDS_S + 0.02, AFTERWARDS_S + 0.12)  # from an answer to the next ask
LEAD_S = 0.2  # a writer begins slowly
SETTLE_S = 2.0  # of writing after the last snapshot, before a run that is to be without
PARTS_IN_WORDS = ("p50", "p90", "p99", "longest")
PARTS = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99}

Ask = Callable[[JsonLinesClient], Awaitable[object]]


@dataclass(frozen=True)
class Trace:
    """All commands of one run, in the order in which they ended."""

    ended_s: "array[float]"  # on the machine's clock
    latency_us: "array[float]"

    @classmethod
    def read(cls, path: Path) -> "Trace":
        data = path.read_bytes()
        count = len(data) // 12
        return cls(array("d", data[: count * 8]), array("f", data[count * 8 :]))

    def longest_us(self, begin_s: float, end_s: float) -> float:
        """Of the commands in flight at any moment of the window; 0 if there were none."""
        most_s = max(self.latency_us) / 1e6
        first, last = bisect_left(self.ended_s, begin_s), bisect_left(self.ended_s, end_s + most_s)
        begun_by_then = (at for at in range(first, last) if self.ended_s[at] - self.latency_us[at] / 1e6 <= end_s)
        return max((self.latency_us[at] for at in begun_by_then), default=0.0)


@dataclass(frozen=True)
class Run:
    """One run of the writer, and when something was asked of the engine: from the ask to the answer."""

    trace: Trace
    asked: list[tuple[float, float]]
    figures: dict[str, Any]


def stolen_ms() -> float:
    """What the hypervisor has taken from all processors so far."""
    fields = Path("/proc/stat").read_text().split(maxsplit=9)
    return int(fields[8]) * 1000 / os.sysconf("SC_CLK_TCK")


async def ask_now_and_then(socket: Path, ask: Ask, seconds: float, asked: list[tuple[float, float]]) -> None:
    client = JsonLinesClient(socket, hello=Hello(version=VERSION))
    ends = time.monotonic() + LEAD_S + seconds - AFTERWARDS_S
    try:
        await client.call(Space())  # connected from here on
        wait_s = LEAD_S
        while time.monotonic() + wait_s < ends:
            await asyncio.sleep(wait_s)
            began = time.monotonic()
            await ask(client)
            asked.append((began, time.monotonic()))
            wait_s = random.uniform(*APART_S)
    finally:
        await client.close()


def write_beside(program: Path, target: MeasuredTarget, seconds: float, span_mib: int, ask: Ask | None = None) -> Run:
    """A writer, and if it is the engine that is written to, what is asked of it now and then."""
    asked: list[tuple[float, float]] = []
    trace = program.parent / "trace"
    before = stolen_ms()
    if ask and isinstance(target, Engine):
        asking = ask_now_and_then(target.directory / "control.sock", ask, seconds, asked)
        thread = threading.Thread(target=asyncio.run, args=(asking,))
        thread.start()
        figures = measure(program, target, WRITES, LEAD_S + seconds, span_mib, trace)
        thread.join()
    else:
        figures = measure(program, target, WRITES, LEAD_S + seconds, span_mib, trace)
    figures["stolen_ms"] = stolen_ms() - before
    found = Trace.read(trace)
    whole = [one for one in asked if max(one[1], one[0] + AFTERWARDS_S) < found.ended_s[-1]]
    return Run(found, whole, figures)


def moved(runs: list[Run], lengths_s: list[float]) -> list[tuple[Trace, float, float]]:
    """Windows of these lengths at random moments of the runs."""
    found = []
    for length_s in lengths_s:
        trace = random.choice(runs).trace
        first, last = trace.ended_s[0] + LEAD_S, trace.ended_s[-1] - max(AFTERWARDS_S, length_s)
        begin = random.uniform(first, max(first, last))
        found.append((trace, begin, begin + length_s))
    return found


def spread_of(found: list[float]) -> dict[str, float]:
    ordered = sorted(found)
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] for name, part in PARTS.items()}
    return {**at, "max_us": ordered[-1]}


def look_at(windows: list[tuple[Trace, float, float]]) -> dict[str, Any]:
    during = [trace.longest_us(begin, end) for trace, begin, end in windows]
    after = [trace.longest_us(begin, begin + AFTERWARDS_S) for trace, begin, _ in windows]
    return {"during": spread_of(during), "half_second": spread_of(after), "each_us": [*zip(during, after, strict=True)]}


def medians(runs: list[Run]) -> dict[str, float]:
    return {key: statistics.median(run.figures[key] for run in runs) for key in runs[0].figures}


def compare(alone: list[Run], beside: list[Run]) -> dict[str, Any]:
    """What every snapshot of the one showed, and windows like theirs of the other."""
    windows = [(run.trace, begin, end) for run in beside for begin, end in run.asked]
    lengths_s = [end - begin for _, begin, end in windows]
    ordered_ms = sorted(length * 1000 for length in lengths_s)
    return {
        "snapshots": len(windows),
        "length_ms": {"p50": statistics.median(ordered_ms), "max": ordered_ms[-1]},
        "normal_p999_us": medians(alone)["p999_us"],
        "rows": {"a snapshot": look_at(windows), "none, windows alike": look_at(moved(alone, lengths_s))},
    }


def page(found: dict[str, Any]) -> str:
    """The part of the page that says what a writer sees of each snapshot."""
    names = (*PARTS, "max_us")
    rows = [
        [name, *(f"{row[part][key]:.0f}" for part in ("during", "half_second") for key in names)]
        for name, row in found["rows"].items()
    ]
    head = [f"{words} {name}" for words in ("until the answer:", "half a second:") for name in PARTS_IN_WORDS]
    limit = 2 * found["normal_p999_us"]
    each = found["rows"]["a snapshot"]["each_us"]
    like = found["rows"]["none, windows alike"]["each_us"]
    within = [sum(one[0] <= limit for one in ones) for ones in (each, like)]
    return (
        f"## What a writer at depth 32 sees of one snapshot\n\nOf each of {found['snapshots']} snapshots the longest "
        "latency in us among the commands in flight from the ask to the answer "
        f"({found['length_ms']['p50']:.0f} ms, at most {found['length_ms']['max']:.0f}), and in the half second from "
        "the ask on. Below, the same of windows of the same lengths, as many, at random moments of the runs alone, "
        "which alternate with those with snapshots.\n"
        f"Twice the writer's p99.9 in the runs alone is {limit:.0f} us. Until the answer no latency was longer in "
        f"{within[0]} of the {found['snapshots']} windows with a snapshot, and in {within[1]} of those without.\n\n"
        + table(["window", *head], rows)
    )
