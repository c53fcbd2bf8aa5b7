"""Two cores and two initiators against one core and one initiator: part of `make bench-engine`.

Engine and generators are bound to the same cores, so both sides have to share them, alone on one and together on two.
Each initiator has a volume of its own, or both use one. The same is done with volumes in memory, and a plain loop is
counted on one core and on both at once: what the machine itself can do.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.engine import MIB, bind, build_generator, fill_disk
from bench.quiet import add_directory, enter_own_network, measured
from bench.record import in_words, keep, table
from bench.targets import Engine, MemoryEngine

SPAN_MIB = 256
SPIN = """
import time
end, turns = time.monotonic() + 0.5, 0
while time.monotonic() < end:
    turns += 1
print(turns)
"""
LOOP = "a loop, turns in half a second"
WORKLOADS = {"4 KiB random read, depth 32": "randread", "4 KiB random write, depth 32": "randwrite"}


class OneVolume:
    """A volume of the engine as a target of its own."""

    def __init__(self, engine: Engine, volume: int) -> None:
        self.name, self.pid, self.words = "engine", engine.pid, engine.generator_words(volume)

    def start(self, size_bytes: int) -> None:
        pass

    def stop(self) -> None:
        pass

    def generator_words(self) -> list[str]:
        return self.words


def rate(program: Path, engine: Engine, mode: str, volumes: list[int], cores: list[int], seconds: float) -> float:
    """I/Os a second of one generator a volume, together."""
    bind(engine.pid, cores)
    running = []
    for volume in volumes:
        words = [program, *engine.generator_words(volume), mode, 4096, 32, seconds, SPAN_MIB]
        bound = ["taskset", "-c", ",".join(map(str, cores)), *map(str, words)]
        running.append(subprocess.Popen(bound, stdout=subprocess.PIPE, text=True))
    total = 0.0
    for process in running:
        output, _ = process.communicate(timeout=seconds + 60)
        found = json.loads(output)
        if found["errors"]:
            raise SystemExit(f"{found['errors']} commands failed")
        total += found["iops"]
    return total


def spins(cores: list[int]) -> float:
    """Turns of a loop on these cores at once, together."""
    words = ["taskset", "-c"]
    running = [
        subprocess.Popen([*words, str(core), sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True)
        for core in cores
    ]
    return sum(float(process.communicate(timeout=60)[0]) for process in running)


Taken = dict[str, dict[str, list[float]]]


def run_all(options: argparse.Namespace, directory: Path, cores: list[int]) -> Taken:
    """Workload, with the name of the target, to case to rates."""
    program = build_generator(directory)
    engines = [Engine(directory, volumes=2), MemoryEngine(directory, volumes=2)]
    started: list[Engine] = []
    cases = {"one": ([0], cores[:1]), "two": ([0, 1], cores), "two, one volume": ([0, 0], cores)}
    taken: Taken = {LOOP: {case: [] for case in ("one", "two")}}
    try:
        for engine in engines:
            engine.start(SPAN_MIB * MIB)
            started.append(engine)
            for volume in (0, 1):
                fill_disk(program, OneVolume(engine, volume), SPAN_MIB)
        for _ in range(options.repetitions):
            for case, bound in (("one", cores[:1]), ("two", cores)):
                taken[LOOP][case].append(spins(bound))
            for name, mode in WORKLOADS.items():
                for engine, (case, (volumes, bound)) in itertools.product(engines, cases.items()):
                    found = rate(program, engine, mode, volumes, bound, options.seconds)
                    taken.setdefault(f"{name}, {engine.name}", {}).setdefault(case, []).append(found)
                    print(f"{name:32} {engine.name:8} {case:16} {found:10.0f} IOPS", flush=True)
    finally:
        for engine in started:
            engine.stop()
    return taken


def page(result: dict[str, Any]) -> str:
    how = result["how"]
    rows = []
    for name, row in result["medians"].items():
        one, two = row["one"], row["two"]
        rows.append([name, f"{one:.0f}", f"{two:.0f}", f"{two / one:.2f}"])
        if shared := row.get("two, one volume"):
            rows[-1] += [f"{shared:.0f}", f"{shared / one:.2f}"]
        else:
            rows[-1] += ["", ""]
    return (
        "# One core and two\n\n"
        f"`make bench-engine`: {how['repetitions']} repetitions of {how['seconds']} s each, medians; engine and "
        f"generators bound to the same cores; `memory` is the engine with "
        f"its volumes in memory, the loop is a process for each core: the limits; "
        f"disks of {SPAN_MIB} MiB on {how['file_system']}, {how['surroundings']}.\n"
        f"Machine: {in_words(how['machine'])}. All numbers are in `engine-cores.json`.\n\n"
        + table(
            ["workload", "one core, one initiator", "two and two", "ratio", "two and two, on one volume", "ratio"], rows
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_cores", description="One core and two.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case")
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_cores")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("there is only one core")
    taken, how = measured(options, lambda directory: run_all(options, directory, cores))
    middle = {name: {case: statistics.median(all_of) for case, all_of in row.items()} for name, row in taken.items()}
    result = {"how": how, "medians": middle, "runs": taken}
    keep("engine-cores", result, page(result))


if __name__ == "__main__":
    main()
