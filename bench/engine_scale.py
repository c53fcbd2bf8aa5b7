"""Snapshots and clones at full size, from the first to the last: part of `make bench-snapshots`.

A volume of 40 GiB with 7 GiB written, in order and after a million random overwrites with snapshots between them; then
512 snapshots of it, 10,000 in the pool, a thousand clones of one volume. *Pause* is how long writers had to stand
still, as the engine says (of clones it does not); *whole* is the time until the answer, with everything on stable
storage.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from bench.engine import MIB, build_generator, fill_disk
from bench.engine_sessions import status_of
from bench.engine_snapshots import SIZE_BYTES, VOLUME, Snapshots, du, overwrite, spread
from bench.quiet import add_directory, enter_own_network, measured
from bench.record import in_words, keep, table
from bench.targets import Engine
from gespann.seams.engine_socket import VERSION, Hello, VolumeClone, VolumeCreate
from gespann.system.json_lines import JsonLinesClient

LOOK = 50  # snapshots whose times are looked at together
OF_ONE, IN_POOL, CLONES, SMALL = 512, 10_000, 1000, 20


class Copies(Snapshots):
    async def _clone(self, count: int, source: str) -> list[float]:
        client = JsonLinesClient(self.socket, hello=Hello(version=VERSION))
        times = []
        try:
            for _ in range(count):
                volume = f"7{self.next:031x}"
                self.next += 1
                began = time.perf_counter()
                await client.call(VolumeClone(source=source, volume=volume))
                times.append((time.perf_counter() - began) * 1e6)
                self.taken.append(volume)
        finally:
            await client.close()
        return times

    def clone(self, count: int, source: str = VOLUME) -> dict[str, float]:
        wholes = spread([(0.0, took_us) for took_us in asyncio.run(self._clone(count, source))])
        return {name: value for name, value in wholes.items() if name.startswith("whole")}

    def snapshot(self, count: int) -> dict[str, float]:
        return spread(self.take(count))


def run_all(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    program = build_generator(directory)
    engine = Engine(directory)
    engine.start(SIZE_BYTES)
    copies = Copies(engine)
    rows: dict[str, Any] = {}

    def look(name: str, found: dict[str, float]) -> None:
        rows[name] = {"held": len(copies.taken), **found, "resident_mib": status_of(engine.pid)["VmRSS"] // 1024}
        print(f"{name}: {json.dumps(rows[name])}", flush=True)

    try:
        fill_disk(program, engine, options.span_mib)
        copies.take(1)  # what is in memory goes to the disk
        look("snapshots, written in order", copies.snapshot(LOOK))
        look("clones, written in order", copies.clone(LOOK))
        overwrites = overwrite(program, engine, options.span_mib, options.overwrites, copies)
        copies.take(1)
        look("snapshots, after the overwrites", copies.snapshot(LOOK))
        look("clones, after the overwrites", copies.clone(LOOK))
        copies.take(max(0, OF_ONE - len(copies.taken)))
        look(f"next after {OF_ONE} of one volume", copies.snapshot(LOOK))
        small = [f"8{number:031x}" for number in range(SMALL)]
        copies.call(*(VolumeCreate(volume=volume, size_bytes=64 * MIB) for volume in small))
        for number, volume in enumerate(small):
            copies.take((IN_POOL - len(copies.taken)) // (SMALL - number), volume)
        look(f"next after {IN_POOL:,} in the pool", copies.snapshot(LOOK))
        copies.clone(CLONES - LOOK)
        look(f"clones, the last of {CLONES:,} of one volume", copies.clone(LOOK))
        held = du(engine)
    finally:
        engine.stop()
    return {"rows": rows, "overwrites": overwrites, "on_disk_bytes": held}


def page(how: dict[str, Any], found: dict[str, Any]) -> str:
    columns = ("pause_p50_us", "pause_max_us", "whole_p50_ms", "whole_max_ms")
    rows = [
        [name, *(f"{row[key]:.1f}" if key in row else "" for key in columns), f"{row['resident_mib']}"]
        for name, row in found["rows"].items()
    ]
    return (
        "# Snapshots and clones at full size\n\n"
        f"`make bench-snapshots`: a volume of 40 GiB with {how['span_mib'] / 1024:.0f} GiB written on "
        f"{how['file_system']}, {found['overwrites']:,} random overwrites, {how['surroundings']}.\n"
        f"Machine: {in_words(how['machine'])}. All numbers are in `engine-scale.json`.\n\n"
        + table([f"{LOOK} of each", "pause p50 us", "pause max us", "whole p50 ms", "whole max ms", "engine MiB"], rows)
        + f"\nOn the disk at the end: {found['on_disk_bytes'] / 2**30:.2f} GiB.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_scale", description="Snapshots at full size.")
    parser.add_argument("--span-mib", type=int, default=7168, help="what of the 40 GiB is written")
    parser.add_argument("--overwrites", type=int, default=1_000_000)
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_scale")
    found, how = measured(options, lambda directory: run_all(options, directory))
    keep("engine-scale", {"how": how, "found": found}, page(how, found))


if __name__ == "__main__":
    main()
