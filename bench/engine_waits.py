"""A session that waits for its next command awake or asleep (`--busy-poll`), on an idle and on a busy machine: part of
`make bench-engine`.

Two engines serve, one that polls as by default and one that never does, to one or four initiators at depth 1. Beside
them run as many counting loops as the machine has processors, or fewer, or none: what they get to is measured too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.engine import MIB, build_generator, fill_disk
from bench.quiet import add_directory, enter_own_network, measured
from bench.record import in_words, keep, medians, table
from bench.targets import Engine, cpu_seconds

SPAN_MIB = 256
LOOP = """
import sys, time
turns, end = 0, time.monotonic() + float(sys.argv[1])
print(flush=True)
while time.monotonic() < end:
    turns += 1
print(turns)
"""
WORKLOADS = {"read": "randread", "write": "randwrite"}
INITIATORS = (1, 4)
Figures = dict[str, float]


def rate(program: Path, engine: Engine, mode: str, initiators: int, loops: int, seconds: float) -> Figures:
    beside = [
        subprocess.Popen([sys.executable, "-c", LOOP, str(seconds)], stdout=subprocess.PIPE, text=True)
        for _ in range(loops)
    ]
    for loop in beside:
        assert loop.stdout
        loop.stdout.readline()  # it has begun
    before = cpu_seconds(engine.pid)
    words = [str(word) for word in (program, *engine.generator_words(), mode, 4096, 1, seconds, SPAN_MIB)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(initiators)]
    found = [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in running]
    if any(one["errors"] for one in found):
        raise SystemExit("commands failed")
    return {
        "iops": sum(one["iops"] for one in found),
        "p50_us": statistics.median(one["p50_us"] for one in found),
        "p99_us": max(one["p99_us"] for one in found),
        "cpu_us_per_io": (cpu_seconds(engine.pid) - before) / sum(one["ios"] for one in found) * 1e6,
        "turns": sum(float(loop.communicate(timeout=seconds + 60)[0]) for loop in beside),
    }


def run_all(options: argparse.Namespace, directory: Path) -> dict[str, dict[str, list[Figures]]]:
    """Case, to the name of the engine, to the figures of each repetition."""
    program = build_generator(directory)
    engines = {}
    for name, words in {"polls": [], "sleeps": ["--busy-poll", "0"]}.items():
        (directory / name).mkdir()
        engines[name] = Engine(directory / name, *words)
    started: list[Engine] = []
    taken: dict[str, dict[str, list[Figures]]] = {}
    try:
        for engine in engines.values():
            engine.start(SPAN_MIB * MIB)
            started.append(engine)
            fill_disk(program, engine, SPAN_MIB)
        for repetition in range(options.repetitions):
            for loops in range((os.cpu_count() or 1) + 1):
                for initiators in INITIATORS:
                    for word, mode in WORKLOADS.items():
                        case = f"{word}, initiators: {initiators}, loops beside: {loops}"
                        for name in engines if repetition % 2 else reversed(engines):
                            found = rate(program, engines[name], mode, initiators, loops, options.seconds)
                            taken.setdefault(case, {}).setdefault(name, []).append(found)
                            print(f"{case:45} {name:8} {found['iops']:10.0f} IOPS", flush=True)
    finally:
        for engine in started:
            engine.stop()
    return taken


def page(result: dict[str, Any]) -> str:
    how, rows = result["how"], []
    for case, row in result["medians"].items():
        polls, sleeps = row["polls"], row["sleeps"]
        cells = [case, f"{polls['iops']:.0f}", f"{sleeps['iops']:.0f}", f"{polls['iops'] / sleeps['iops']:.2f}"]
        for key, digits in (("p50_us", 0), ("p99_us", 0), ("cpu_us_per_io", 1)):
            cells.append(f"{polls[key]:.{digits}f} / {sleeps[key]:.{digits}f}")
        cells.append(f"{polls['turns'] / sleeps['turns']:.2f}" if sleeps["turns"] else "")
        rows.append(cells)
    return (
        "# Waiting awake or asleep\n\n"
        f"`make bench-engine`: 4 KiB at random places, depth 1, {how['repetitions']} repetitions of {how['seconds']} s "
        f"each, interleaved, medians; a disk of {SPAN_MIB} MiB on {how['file_system']}, {how['surroundings']}.\n"
        f"Machine: {in_words(how['machine'])}. All numbers are in `engine-waits.json`.\n\n"
        "An engine that polls for up to 50 us where that pays (the default), and one that always sleeps; times are of "
        "one and of the other.\n\n"
        + table(
            ["4 KiB", "IOPS, polls", "sleeps", "ratio", "p50 us", "p99 us", "CPU us per I/O", "turns of the loops"],
            rows,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_waits", description="Waiting awake or asleep.")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each case")
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_waits")
    taken, how = measured(options, lambda directory: run_all(options, directory))
    middle = {case: {name: medians(runs) for name, runs in row.items()} for case, row in taken.items()}
    result = {"how": how, "medians": middle, "runs": taken}
    keep("engine-waits", result, page(result))


if __name__ == "__main__":
    main()
