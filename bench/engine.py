"""The engine against Debian's tgtd: `make bench-engine`.

Both serve one sparse file of the same size on the same file system, over loopback, to the same generator
(`bench/load.c`). Each repetition runs every workload on one target and then on the other, the order turned each time;
what is reported are medians. The disk is written from end to end first, so that neither target gains by holes.
CPU per I/O is what the target's process spent, user and system, divided by the I/Os it answered.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record import ROOT, file_system_of, keep, machine, table
from bench.targets import ADDRESS, Engine, MeasuredTarget, Tgtd, cpu_seconds

MIB = 1 << 20


@dataclass(frozen=True)
class Workload:
    name: str
    mode: str
    block_bytes: int
    depth: int
    single: bool = False  # one command a system call, as against batched


WORKLOADS = (
    Workload("4 KiB random read, depth 1", "randread", 4096, 1),
    Workload("4 KiB random write, depth 1", "randwrite", 4096, 1),
    Workload("4 KiB random read, depth 32, one by one", "randread", 4096, 32, single=True),
    Workload("4 KiB random write, depth 32, one by one", "randwrite", 4096, 32, single=True),
    Workload("4 KiB random read, depth 32, batched", "randread", 4096, 32),
    Workload("4 KiB random write, depth 32, batched", "randwrite", 4096, 32),
    Workload("64 KiB sequential read, depth 8", "read", 65536, 8),
    Workload("64 KiB sequential write, depth 8", "write", 65536, 8),
    Workload("1 MiB sequential read, depth 4", "read", MIB, 4),
    Workload("1 MiB sequential write, depth 4", "write", MIB, 4),
)


def build_generator(directory: Path) -> Path:
    program = directory / "load"
    subprocess.run(["gcc", "-O2", "-o", program, ROOT / "bench/load.c"], check=True)
    return program


def measure(program: Path, target: MeasuredTarget, work: Workload, seconds: float, span_mib: int) -> dict[str, Any]:
    words = [program, ADDRESS, target.port, target.iqn, target.lun, work.mode, work.block_bytes, work.depth]
    words += [seconds, span_mib, *(["single"] if work.single else [])]
    before = cpu_seconds(target.pid)
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(f"{target.name}, {work.name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["errors"]:
        raise SystemExit(f"{target.name}, {work.name}: {found['errors']} commands failed")
    found["cpu_us_per_io"] = round((cpu_seconds(target.pid) - before) / found["ios"] * 1e6, 2)
    return found


def fill_disk(program: Path, target: MeasuredTarget, span_mib: int) -> None:
    seconds = span_mib / 200
    while measure(program, target, Workload("fill", "write", MIB, 4), seconds, span_mib)["ios"] < span_mib:
        seconds *= 2


def run_all(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    program = build_generator(directory)
    targets: list[MeasuredTarget] = [Engine(directory), Tgtd(directory)]
    taken: dict[str, dict[str, list[dict[str, Any]]]] = {work.name: {} for work in WORKLOADS}
    try:
        for target in targets:
            target.start(options.span_mib * MIB)
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
        for target in targets:
            target.stop()
    return taken


def medians(taken: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Workload -> medians of both, and the ratios that are quoted."""
    result = {}
    for name, both in taken.items():
        row: dict[str, Any] = {}
        for target, runs in both.items():
            row[target] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        row["iops_ratio"] = round(row["engine"]["iops"] / row["tgtd"]["iops"], 2)
        row["cpu_ratio"] = round(row["engine"]["cpu_us_per_io"] / max(row["tgtd"]["cpu_us_per_io"], 0.01), 2)
        result[name] = row
    return result


def page(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['engine']['iops']:.0f}",
            f"{row['tgtd']['iops']:.0f}",
            f"{row['iops_ratio']:.2f}",
            f"{row['engine']['p50_us']:.0f} / {row['engine']['p99_us']:.0f}",
            f"{row['tgtd']['p50_us']:.0f} / {row['tgtd']['p99_us']:.0f}",
            f"{row['engine']['cpu_us_per_io']:.1f}",
            f"{row['tgtd']['cpu_us_per_io']:.1f}",
        ]
        for name, row in result["medians"].items()
    ]
    head = ["workload", "engine IOPS", "tgtd IOPS", "ratio", "engine p50 / p99 us", "tgtd p50 / p99 us"]
    head += ["engine CPU us per I/O", "tgtd CPU us per I/O"]
    how = result["how"]
    return (
        "# The engine against tgtd\n\n"
        f"`make bench-engine`: {how['repetitions']} repetitions of {how['seconds']} s each, interleaved, medians; "
        f"a disk of {how['span_mib']} MiB on {how['file_system']}, over loopback; {how['tgtd']}.\n"
        f"Machine: {how['machine']['cpu']}, {how['machine']['cores']} cores, load {how['machine']['load_before']} "
        "before the run. All numbers of each repetition are in `engine.json`.\n\n" + table(head, rows)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="The engine against Debian's tgtd.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each workload")
    parser.add_argument("--span-mib", type=int, default=1024, help="size of the disk")
    parser.add_argument("--directory", type=Path, default=ROOT / "var", help="the file system to measure on")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.directory.mkdir(parents=True, exist_ok=True)
    before = machine()
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory))
    try:
        taken = run_all(options, directory)
        how = {
            "repetitions": options.repetitions,
            "seconds": options.seconds,
            "span_mib": options.span_mib,
            "file_system": file_system_of(directory),
            "tgtd": Tgtd.release(),
            "machine": before,
        }
    finally:
        shutil.rmtree(directory)
    result = {"how": how, "medians": medians(taken), "runs": taken}
    keep("engine", result, page(result))
    for name, row in result["medians"].items():
        print(f"{name:45} {row['iops_ratio']:6.2f} x the IOPS of tgtd, {row['cpu_ratio']:5.2f} x its CPU per I/O")


if __name__ == "__main__":
    main()
