"""How long one write to a file should be: part of `make bench-engine`.

A file is written from end to end in pieces of one size, then written over in the same pieces, then in blocks of 4 KiB
at random places, all by plain system calls. The longer the pieces, the less a MiB costs, and the more each short
write afterwards: Linux keeps what one call writes in folios of up to that size, where the file system can.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engine import MIB
from bench.quiet import add_directory, enter_own_network, measured
from bench.record import keep, medians, table

PIECES_KIB = (16, 32, 64, 256, 1024)
SPAN_MIB = 256
SHORT_IOS = 100_000


def cpu_us(act: Callable[[int], object], places: Sequence[int]) -> float:
    """What this thread spends on each of these places, with its own loop."""
    began = time.thread_time()
    for place in places:
        act(place)
    return (time.thread_time() - began) / len(places) * 1e6


def one_size(directory: Path, piece_kib: int) -> dict[str, float]:
    """Of a new file: us per MiB written for the first time and again, us per 4 KiB write and read afterwards."""
    path, piece, block = directory / "disk", bytes(piece_kib * 1024), bytes(4096)
    disk = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    in_order = range(0, SPAN_MIB * MIB, len(piece))
    at_random = random.Random(1).choices(range(0, SPAN_MIB * MIB, 4096), k=SHORT_IOS)
    try:
        found = {
            "first_us_per_mib": cpu_us(lambda place: os.pwrite(disk, piece, place), in_order) * 1024 / piece_kib,
            "again_us_per_mib": cpu_us(lambda place: os.pwrite(disk, piece, place), in_order) * 1024 / piece_kib,
            "write_us": cpu_us(lambda place: os.pwrite(disk, block, place), at_random),
            "read_us": cpu_us(lambda place: os.pread(disk, 4096, place), at_random),
        }
    finally:
        os.close(disk)
        path.unlink()
    return {key: round(value, 2) for key, value in found.items()}


def run_all(options: argparse.Namespace, directory: Path) -> dict[int, list[dict[str, float]]]:
    runs: dict[int, list[dict[str, float]]] = {piece: [] for piece in PIECES_KIB}
    for _ in range(options.repetitions):
        for piece in PIECES_KIB:
            runs[piece].append(one_size(directory, piece))
            print(f"pieces of {piece:4} KiB  {runs[piece][-1]}", flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_pieces", description="How long a write should be.")
    parser.add_argument("--repetitions", type=int, default=5)
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_pieces")
    runs, how = measured(options, lambda directory: run_all(options, directory))
    middle = {piece: medians(all_of) for piece, all_of in runs.items()}
    keep("engine-pieces", {"how": how, "medians": middle, "runs": runs}, page(how, middle))


def page(how: dict[str, Any], middle: dict[int, dict[str, float]]) -> str:
    rows = [
        [
            str(piece),
            f"{row['first_us_per_mib']:.0f}",
            f"{row['again_us_per_mib']:.0f}",
            f"{row['write_us']:.2f}",
            f"{row['read_us']:.2f}",
        ]
        for piece, row in middle.items()
    ]
    return (
        "# How long one write to a file should be\n\n"
        f"`make bench-engine`: {how['repetitions']} repetitions, medians; a file of {SPAN_MIB} MiB on "
        f"{how['file_system']}, written from end to end in pieces, {how['surroundings']}. CPU in us.\n"
        f"Machine: {how['machine']['cpu']}, kernel {how['machine']['kernel']}, load {how['machine']['load_before']} "
        "before the run. All numbers are in `engine-pieces.json`.\n\n"
        + table(
            ["pieces of KiB", "a MiB written first", "a MiB written over", "a 4 KiB write afterwards", "a 4 KiB read"],
            rows,
        )
    )


if __name__ == "__main__":
    main()
