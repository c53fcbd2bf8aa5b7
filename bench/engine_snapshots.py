"""What snapshots and clones cost, in time, in stalls of writers, and afterwards: `make bench-snapshots`.

A volume of 40 GiB of which a part is written, before and after a million random overwrites with snapshots between
them, so that its map has no order left. *Pause* is how long writers had to stand still, as the engine says; *whole* is
the time until the answer, with everything on stable storage. Writers run at queue depth 32 over loopback.

What a writer sees of each snapshot is told in `snapshot_stalls`. What it waits at most in a whole run is compared
with what others cause: a SYNCHRONIZE CACHE from another session, and, without any engine, a writer to a plain file
whose data another process syncs. *Stolen* is the time for which the machine below this one took its processors away;
no program here can answer meanwhile.

A write right after a snapshot is the first to its place in a file, so next to it stands what that costs without any
engine: random writes to a file that is one hole, against those to a full one. Before all, memory is used once by
reading an empty file: the first touch of a page that a virtual machine never had can take its host a hundred
microseconds and more.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import snapshot_stalls
from bench.engine import MIB, Workload, build_generator, fill_disk, measure
from bench.quiet import add_directory, enter_own_network, measured
from bench.record import in_words, keep, table
from bench.snapshot_stalls import SETTLE_S, WRITES, Run, write_beside
from bench.targets import Engine, LocalFile, MeasuredTarget, sparse_file
from gespann.seams.engine_socket import (
    VERSION,
    Hello,
    SharePair,
    Space,
    VolumeCreate,
    VolumeDelete,
    VolumeSnapshot,
)
from gespann.system.json_lines import JsonLinesClient

SIZE_BYTES = 40 << 30
VOLUME = f"6{0:031x}"
SYNCS = Workload("made durable every half second", "sync", 4096, 1)


class Snapshots:
    """Takes and deletes them over the control socket, and times it."""

    def __init__(self, engine: Engine) -> None:
        self.socket = engine.directory / "control.sock"
        self.taken: list[str] = []
        self.next = 1

    async def _take(self, count: int, source: str) -> list[tuple[float, float]]:
        client = JsonLinesClient(self.socket, hello=Hello(version=VERSION))
        times = []
        try:
            for _ in range(count):
                volume = f"7{self.next:031x}"
                self.next += 1
                began = time.perf_counter()
                reply = await client.call(VolumeSnapshot(pairs=[SharePair(source=source, volume=volume)]))
                times.append((reply.pause_us, (time.perf_counter() - began) * 1e6))
                self.taken.append(volume)
        finally:
            await client.close()
        return times

    def take(self, count: int, source: str = VOLUME) -> list[tuple[float, float]]:
        """Pause and whole time of each, microseconds."""
        return asyncio.run(self._take(count, source))

    async def _call(self, requests: list[Any]) -> list[Any]:
        client = JsonLinesClient(self.socket, hello=Hello(version=VERSION))
        try:
            return [await client.call(request) for request in requests]
        finally:
            await client.close()

    def call(self, *requests: Any) -> list[Any]:
        return asyncio.run(self._call(list(requests)))

    async def take_on(self, client: JsonLinesClient, source: str = VOLUME) -> None:
        """One more, over a connection that is there."""
        volume = f"7{self.next:031x}"
        self.next += 1
        await client.call(VolumeSnapshot(pairs=[SharePair(source=source, volume=volume)]))
        self.taken.append(volume)

    def begin_to_delete_all(self) -> float:
        """The moment."""
        began = time.perf_counter()
        self.call(*(VolumeDelete(volume=volume) for volume in self.taken))
        self.taken.clear()
        return began

    def all_gone(self) -> float:
        """Waits until nothing is left to be given back; the moment at which that was first seen."""
        used, since = -1, 0.0
        while True:
            space = self.call(Space())[0]
            now = time.perf_counter()
            if space.reclaiming_bytes or space.used_bytes != used:
                used, since = space.used_bytes, now
            elif now - since > 1.0:
                return since
            time.sleep(0.1)

    def delete_all(self) -> float:
        """Seconds until all were deleted and nothing was left to be given back."""
        began = self.begin_to_delete_all()
        return self.all_gone() - began


def spread(times: list[tuple[float, float]]) -> dict[str, float]:
    pauses, wholes = sorted(pause for pause, _ in times), sorted(whole for _, whole in times)
    return {
        "pause_p50_us": statistics.median(pauses),
        "pause_max_us": pauses[-1],
        "whole_p50_ms": statistics.median(wholes) / 1000,
        "whole_max_ms": wholes[-1] / 1000,
    }


def du(engine: Engine) -> int:
    words = ["du", "-s", "-B1", str(engine.directory / "data/volumes")]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])


def overwrite(program: Path, engine: Engine, span_mib: int, writes: int, snapshots: Snapshots) -> int:
    """Random overwrites with a snapshot now and then; how many there were."""
    done = 0
    while done < writes:
        done += int(measure(program, engine, WRITES, 1.0, span_mib)["ios"])
        snapshots.take(1)
    return done


def beside_syncs(program: Path, target: MeasuredTarget, seconds: float, span_mib: int) -> Run:
    """A writer, while what it wrote is made durable every half second from another session, or process."""
    thread = threading.Thread(target=measure, args=(program, target, SYNCS, seconds, span_mib))
    thread.start()
    try:
        return write_beside(program, target, seconds, span_mib)
    finally:
        thread.join()


def stalls(program: Path, engine: Engine, file: LocalFile, options: argparse.Namespace, snapshots: Snapshots) -> Any:
    """A writer alone, and while something is made durable: interleaved rounds, until there were enough snapshots."""
    span_mib, seconds = options.span_mib, options.seconds

    def alone() -> Run:
        measure(program, engine, WRITES, SETTLE_S, span_mib)
        return write_beside(program, engine, seconds, span_mib)

    kinds: dict[str, Callable[[], Run]] = {
        "the engine, alone": alone,
        "the engine, snapshots": lambda: write_beside(program, engine, seconds, span_mib, snapshots.take_on),
        "the engine, SYNCHRONIZE CACHE": lambda: beside_syncs(program, engine, seconds, span_mib),
        "a file, alone": lambda: write_beside(program, file, seconds, span_mib),
        "a file, fdatasync": lambda: beside_syncs(program, file, seconds, span_mib),
    }
    taken: dict[str, list[Run]] = {kind: [] for kind in kinds}
    engine_alone, with_snapshots = (taken[kind] for kind in list(kinds)[:2])
    rounds = 0
    while rounds < options.rounds or sum(len(run.asked) for run in with_snapshots) < options.stalls:
        for kind in list(kinds)[: None if rounds < options.rounds else 2]:
            taken[kind].append(kinds[kind]())
        rounds += 1
    return {
        "medians": {kind: snapshot_stalls.medians(runs) for kind, runs in taken.items()},
        "runs": {kind: [run.figures for run in runs] for kind, runs in taken.items()},
        "each": snapshot_stalls.compare(engine_alone, with_snapshots),
    }


def deletion(program: Path, engine: Engine, options: argparse.Namespace, snapshots: Snapshots) -> dict[str, Any]:
    """All snapshots are deleted while a writer goes on; the same writer before and after."""
    runs: dict[str, list[Run]] = {"nothing": [], "deletion": []}

    def write(name: str) -> None:
        runs[name].append(write_beside(program, engine, 2.0, options.span_mib))

    count = len(snapshots.taken)
    measure(program, engine, WRITES, SETTLE_S, options.span_mib)
    for _ in range(2):
        write("nothing")
    held = du(engine)
    began = snapshots.begin_to_delete_all()
    while snapshots.call(Space())[0].reclaiming_bytes or not runs["deletion"]:
        write("deletion")
    gone = snapshots.all_gone()
    for _ in range(2):
        write("nothing")
    return {
        "count": count,
        "seconds": gone - began,
        "held": held,
        "left": du(engine),
        "medians": {name: snapshot_stalls.medians(taken) for name, taken in runs.items()},
        "longest_us": {name: max(run.figures["max_us"] for run in taken) for name, taken in runs.items()},
        "runs": {name: [run.figures for run in taken] for name, taken in runs.items()},
    }


def use_memory(directory: Path) -> Path:
    """Fills free memory with pages of an empty file, which stay cached until they are needed elsewhere."""
    figures = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    path = sparse_file(directory / "nothing.img", int(figures["MemFree"].split()[0]) * 1024)
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)
    return path


def rates(
    program: Path, engine: Engine, full: LocalFile, options: argparse.Namespace, snapshots: Snapshots
) -> dict[str, Any]:
    """Random writes before a snapshot and right after it, to a full file and to one hole: medians of rounds."""
    runs: dict[str, list[dict[str, Any]]] = {"before": [], "after": [], "file": [], "hole": []}
    for number in range(options.rate_rounds):
        hole = LocalFile(full.disk.parent / f"hole-{number}")
        hole.disk.parent.mkdir()
        hole.start(options.span_mib * MIB)

        def write(name: str, target: MeasuredTarget) -> None:
            runs[name].append(measure(program, target, WRITES, 1.0, options.span_mib))

        write("before", engine)
        snapshots.take(1)
        write("after", engine)
        write("file", full)
        write("hole", hole)
    found: dict[str, Any] = {"runs": runs}
    for name, taken in runs.items():
        found[name] = {key: statistics.median(run[key] for run in taken) for key in ("iops", "cpu_us_per_io")}
    for name, later, earlier in (("ratio", "after", "before"), ("file_ratio", "hole", "file")):
        pairs = zip(runs[later], runs[earlier], strict=True)
        found[name] = statistics.median(one["iops"] / other["iops"] for one, other in pairs)
    return found


def run_all(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    program = build_generator(directory)
    use_memory(directory)
    engine = Engine(directory)
    engine.start(SIZE_BYTES)
    file = LocalFile(directory)
    file.start(options.span_mib * MIB)
    snapshots = Snapshots(engine)
    result: dict[str, Any] = {}

    def tell(name: str, found: Any) -> None:
        result[name] = found
        print(f"{name}: {json.dumps(found)}", flush=True)

    try:
        fill_disk(program, engine, options.span_mib)
        fill_disk(program, file, options.span_mib)
        snapshots.take(1)  # what is in memory goes to the disk
        tell("in order", spread(snapshots.take(50)))
        tell("overwrites", overwrite(program, engine, options.span_mib, options.overwrites, snapshots))
        snapshots.take(1)
        tell("after the overwrites", spread(snapshots.take(50)))
        tell("stalls", stalls(program, engine, file, options, snapshots))
        tell("rates", rates(program, engine, file, options, snapshots))
        file.stop()
        tell("deletion", deletion(program, engine, options, snapshots))
        tell("next after 1 of a volume", spread(snapshots.take(100)))
        snapshots.take(max(0, 412 - len(snapshots.taken)))
        tell("next after 412 of a volume", spread(snapshots.take(100)))
        small = [f"8{number:031x}" for number in range(20)]
        snapshots.call(*(VolumeCreate(volume=volume, size_bytes=64 * MIB) for volume in small))
        for volume in small:
            snapshots.take(options.pool // len(small), volume)
        tell("next with so many in the pool", {"count": len(snapshots.taken), **spread(snapshots.take(100))})
        tell("1,000th clone of one volume", spread(snapshots.take(1000, small[0])[-100:]))
        tell("everything deleted, s", snapshots.delete_all())
    finally:
        engine.stop()
    return result


def page(how: dict[str, Any], found: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{found[name][key]:.1f}" for key in ("pause_p50_us", "pause_max_us", "whole_p50_ms", "whole_max_ms"))]
        for name in found
        if isinstance(found[name], dict) and "pause_p50_us" in found[name] and name != "stalls"
    ]
    stall, rate, gone = found["stalls"], found["rates"], found["deletion"]
    stall_rows = [
        [name, *(f"{row[key]:.0f}" for key in ("iops", "p50_us", "p99_us", "p999_us", "max_us", "stolen_ms"))]
        for name, row in stall["medians"].items()
    ]
    rate_names = {
        "before": "the engine, before a snapshot",
        "after": "the engine, right after it",
        "file": "a file, full",
        "hole": "a file, one hole",
    }
    rate_rows = [
        [words, f"{rate[name]['iops']:.0f}", f"{rate[name]['cpu_us_per_io']:.1f}"] for name, words in rate_names.items()
    ]
    return (
        "# Snapshots and clones\n\n"
        f"`make bench-snapshots`: a volume of 40 GiB with {how['span_mib']} MiB written on {how['file_system']}, "
        f"{found['overwrites']} random overwrites, {how['surroundings']}.\n"
        f"Machine: {in_words(how['machine'])}, which took {how['took_s'] / 60:.0f} minutes. "
        "All numbers are in `engine-snapshots.json`.\n\n"
        + table(["snapshots", "pause p50 us", "pause max us", "whole p50 ms", "whole max ms"], rows)
        + "\n"
        + snapshot_stalls.page(stall["each"])
        + "\n## A writer at depth 32 over whole runs, alone and while its data is made durable every half second\n\n"
        f"Medians of interleaved runs of {how['seconds']:.0f} s each. "
        "Stolen: time that the machine below took from the processors.\n\n"
        + table(["beside it", "IOPS", "p50 us", "p99 us", "p99.9 us", "longest us", "stolen ms"], stall_rows)
        + "\n## Afterwards\n\n"
        f"Medians of {how['rate_rounds']} rounds of a second each; the median of the ratios of IOPS is "
        f"{rate['ratio']:.2f} after a snapshot to before it, and {rate['file_ratio']:.2f} a hole to a full file.\n\n"
        + table(["4 KiB random write, depth 32", "IOPS", "CPU us per I/O"], rate_rows)
        + deletion_page(gone, how["span_mib"] * MIB)
    )


def deletion_page(gone: dict[str, Any], written_bytes: int) -> str:
    rows = [
        [
            words,
            *(f"{gone['medians'][name][key]:.0f}" for key in ("iops", "p50_us", "p99_us", "p999_us", "max_us")),
            f"{gone['longest_us'][name]:.0f}",
            f"{gone['medians'][name]['stolen_ms']:.0f}",
        ]
        for name, words in (("nothing", "nothing"), ("deletion", f"the deletion of {gone['count']} snapshots"))
    ]
    gib = {name: gone[name] / 2**30 for name in ("held", "left")}
    return (
        "\n## A writer at depth 32 while snapshots are deleted\n\n"
        f"On the disk: {gib['held']:.2f} GiB with all snapshots, {gib['left']:.2f} GiB {gone['seconds']:.1f} s after "
        f"their deletion began; {written_bytes / 2**30:.2f} GiB are the volume's. Medians of runs of 2 s until all "
        "space was back; of the longest latencies also the greatest.\n\n"
        + table(["beside it", "IOPS", "p50 us", "p99 us", "p99.9 us", "longest us", "of all", "stolen ms"], rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_snapshots", description="Snapshots and clones.")
    parser.add_argument("--span-mib", type=int, default=7168, help="what of the 40 GiB is written")
    parser.add_argument("--overwrites", type=int, default=1_000_000)
    parser.add_argument("--pool", type=int, default=10_000, help="snapshots in the pool")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the writers whose stalls are looked at")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind of writers")
    parser.add_argument("--stalls", type=int, default=100, help="snapshots of which each is looked at by itself")
    parser.add_argument("--rate-rounds", type=int, default=5, help="of writers before and after a snapshot")
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_snapshots")
    found, how = measured(options, lambda directory: run_all(options, directory))
    keep("engine-snapshots", {"how": how, "found": found}, page(how, found))


if __name__ == "__main__":
    main()
