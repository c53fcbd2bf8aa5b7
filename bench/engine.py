"""The engine against what Debian ships, and against its limits: part of `make bench-engine`.

All serve one sparse file of the same size on the same file system, over loopback, to the same generator
(`bench/generator/`). Each repetition runs every workload on one after the other, the order turned each time; what is
reported are medians. The disk is written from end to end first, so that nobody gains by holes. CPU per I/O is what
the target's process spent, user and system, divided by the I/Os it answered; of the local file it is the
generator's own, as there is nothing else.
"""

import argparse
import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.quiet import add_directory, enter_own_network, measured
from bench.record import ROOT, in_words, keep, medians, table
from bench.targets import (
    Engine,
    Istgt,
    LocalFile,
    MeasuredTarget,
    MemoryEngine,
    Nbdkit,
    Tgtd,
    cpu_seconds,
    release,
    unpacked,
)

MIB = 1 << 20
PACKAGES = ("tgt", "istgt", "nbdkit")


@dataclass(frozen=True)
class Workload:
    name: str
    mode: str
    block_bytes: int
    depth: int
    single: bool = False  # one command a system call, as against batched
    apart: bool = False  # target and generator have a core each, as two machines would; else the system places them


WORKLOADS = (
    Workload("4 KiB random read, depth 1", "randread", 4096, 1),
    Workload("4 KiB random write, depth 1", "randwrite", 4096, 1),
    Workload("4 KiB random read, depth 32, one by one", "randread", 4096, 32, single=True),
    Workload("4 KiB random write, depth 32, one by one", "randwrite", 4096, 32, single=True),
    Workload("4 KiB random read, depth 32, batched", "randread", 4096, 32),
    Workload("4 KiB random write, depth 32, batched", "randwrite", 4096, 32),
    Workload("64 KiB sequential read, depth 8", "read", 65536, 8),
    Workload("64 KiB sequential write, depth 8", "write", 65536, 8),
    Workload("1 MiB sequential read, depth 8", "read", MIB, 8),
    Workload("1 MiB sequential write, depth 8", "write", MIB, 8),
    Workload("1 MiB sequential read, depth 8, a core each", "read", MIB, 8, apart=True),
    Workload("1 MiB sequential write, depth 8, a core each", "write", MIB, 8, apart=True),
)


def build_generator(directory: Path) -> Path:
    program = directory / "load"
    subprocess.run(["gcc", "-O2", "-o", program, *sorted((ROOT / "bench/generator").glob("*.c"))], check=True)
    return program


def bind(pid: int, cores: list[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def measure(
    program: Path, target: MeasuredTarget, work: Workload, seconds: float, span_mib: int, trace: Path | None = None
) -> dict[str, Any]:
    words = [program, *target.generator_words(), work.mode, work.block_bytes, work.depth, seconds, span_mib]
    words += ["single"] if work.single else [f"trace={trace}"] if trace else []
    cores = sorted(os.sched_getaffinity(0))
    if work.apart:
        words = ["taskset", "-c", cores[0], *words]
    if target.pid:
        bind(target.pid, cores[-1:] if work.apart else cores)
    before = cpu_seconds(target.pid) if target.pid else 0.0
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(f"{target.name}, {work.name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["errors"]:
        raise SystemExit(f"{target.name}, {work.name}: {found['errors']} commands failed")
    if target.pid:
        found["cpu_us_per_io"] = round((cpu_seconds(target.pid) - before) / found["ios"] * 1e6, 2)
    else:
        found["cpu_us_per_io"] = found["own_cpu_us_per_io"]
    return found


def fill_disk(program: Path, target: MeasuredTarget, span_mib: int) -> None:
    """In pieces of 64 KiB: after longer ones ext4 takes long for a short write, whoever it is that writes."""
    seconds = span_mib / 500
    while measure(program, target, Workload("fill", "write", 65536, 8), seconds, span_mib)["ios"] < span_mib * 16:
        seconds *= 2


def run_all(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    program = build_generator(directory)
    targets: list[MeasuredTarget] = [Engine(directory), MemoryEngine(directory), LocalFile(directory)]
    targets += [Nbdkit(directory), Istgt(directory), Tgtd(directory)]
    started: list[MeasuredTarget] = []
    taken: dict[str, dict[str, list[dict[str, Any]]]] = {work.name: {} for work in WORKLOADS}
    try:
        for target in targets:
            target.start(options.span_mib * MIB)
            started.append(target)
            fill_disk(program, target, options.span_mib)
        for repetition in range(options.repetitions):
            for work in WORKLOADS:
                for target in targets if repetition % 2 == 0 else reversed(targets):
                    found = measure(program, target, work, options.seconds, options.span_mib)
                    taken[work.name].setdefault(target.name, []).append(found)
                    print(
                        f"{repetition + 1}/{options.repetitions}  {work.name:45} {target.name:7} "
                        f"{found['iops']:10.0f} IOPS  {found['cpu_us_per_io']:7.1f} us CPU per I/O",
                        flush=True,
                    )
    finally:
        for target in started:
            target.stop()
    return taken


def summary(taken: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Workload -> medians of each, and the ratios that are quoted."""
    result = {}
    for name, all_of_them in taken.items():
        row: dict[str, Any] = {}
        for target, runs in all_of_them.items():
            row[target] = medians(runs)
        engine = row["engine"]
        others = [target for target in row if target != "engine"]
        row["iops_ratio"] = {target: round(engine["iops"] / row[target]["iops"], 2) for target in others}
        row["cpu_ratio"] = {
            target: round(engine["cpu_us_per_io"] / max(row[target]["cpu_us_per_io"], 0.01), 2) for target in others
        }
        result[name] = row
    return result


ORDER = ("engine", "tgtd", "istgt", "nbdkit", "memory", "file")


def page(result: dict[str, Any]) -> str:
    how, rates, costs, times = result["how"], [], [], []
    for name, row in result["medians"].items():
        ratio = row["iops_ratio"]
        rates.append(
            [name, *(f"{row[target]['iops']:.0f}" for target in ORDER), *(f"{ratio[x]:.2f}" for x in ORDER[1:])]
        )
        cost = [f"{row[target]['cpu_us_per_io']:.1f}" for target in ORDER]
        costs.append([name, *cost, f"{row['cpu_ratio']['tgtd']:.2f}", f"{row['cpu_ratio']['memory']:.2f}"])
        times.append([name, *(f"{row[target]['p50_us']:.0f} / {row[target]['p99_us']:.0f}" for target in ORDER)])
    return (
        "# The engine against others\n\n"
        f"`make bench-engine`: {how['repetitions']} repetitions of {how['seconds']} s each, interleaved, medians; "
        f"a disk of {how['span_mib']} MiB on {how['file_system']}, over loopback, {how['surroundings']}; "
        f"{', '.join(how['packages'])}.\n"
        f"Machine: {in_words(how['machine'])}. All numbers of each repetition are in `engine.json`.\n\n"
        "`memory` is the engine with its volumes in memory, `file` is the generator's own io_uring on a local file:\n"
        'the two limits. `nbdkit` speaks NBD. "A core each": target and generator are bound to one core each, as if\n'
        "on two machines; otherwise the system places them, and while others want a core it puts a target that often\n"
        "waits beside the generator. Debian's fio has no engine for iSCSI: nothing is measured through it.\n\n"
        "## I/Os a second, and the engine's as a multiple of the others'\n\n"
        + table(["workload", *ORDER, *(f"/ {target}" for target in ORDER[1:])], rates)
        + "\n## CPU of the target, us per I/O (of `file`: the generator's own)\n\n"
        + table(["workload", *ORDER, "/ tgtd", "/ memory"], costs)
        + "\n## Latency, p50 / p99 us\n\n"
        + table(["workload", *ORDER], times)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="The engine against others.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.6, help="of each workload")
    parser.add_argument("--span-mib", type=int, default=1024, help="size of the disk")
    add_directory(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    for package in PACKAGES:
        unpacked(package)  # while the network that it comes from is there
    enter_own_network("bench.engine")
    taken, how = measured(options, lambda directory: run_all(options, directory))
    how["packages"] = [release(package) for package in PACKAGES]
    result = {"how": how, "medians": summary(taken), "runs": taken}
    keep("engine", result, page(result))
    for name, row in result["medians"].items():
        rate, cost = row["iops_ratio"]["tgtd"], row["cpu_ratio"]["tgtd"]
        print(f"{name:45} {rate:6.2f} x the IOPS of tgtd, {cost:5.2f} x its CPU per I/O")


if __name__ == "__main__":
    main()
