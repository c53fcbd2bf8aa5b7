"""Kills the engine again and again until Ctrl-C, a loss, or the number asked for: what `make crash` runs.

    python -m tests.fault.engine.crash [--under writers|guest|fio] [--seed N] [--kills N] [--keep]

Under writers it is one campaign. Under a guest and under fio it goes in legs: at the end of each all of the disks is
read and judged, and they begin anew. ``--keep`` writes what was done to bench/results.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bench.record import RESULTS, keep, machine, revision, table
from tests.fault.engine.campaign import Campaign
from tests.fault.engine.disks import Lost
from tests.fault.engine.small_disk import EngineOnSmallDisk
from tests.fault.engine.under_fio import die_under_fio
from tests.fault.engine.under_guest import boot_guest, die_under_guest, forget_records
from tests.product.engine.engine_process import EngineProcess

ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / "build/engine/release/gespann-engine"
GUEST_IMAGE = ROOT / "var/cache/guest.img"
ENDLESS = 1 << 62
MOMENTS_A_LEG = 25
GUEST_ROOM_MIB = 192
NAME = "engine-crashes"


def campaign(folder: Path, seed: int, kills: int, tally: Counter[str]) -> None:
    engine = EngineProcess(ENGINE, folder)
    one = Campaign(engine, seed)
    one.tally = tally
    began = time.monotonic()

    def tell(_: Any) -> None:
        if tally["kills"] % 25 == 0:
            took_s = time.monotonic() - began
            print(f"{took_s:7.1f} s  {tally['kills']} kills, {tally['writes']} writes", flush=True)

    try:
        one.run(kills, tell)
    finally:
        engine.stop()


def guest_legs(folder: Path, seed: int) -> Generator[Counter[str], None, None]:
    engine = EngineOnSmallDisk(ENGINE, folder, GUEST_ROOM_MIB)
    try:
        guest = boot_guest(engine, GUEST_IMAGE, folder)
        try:
            while True:
                yield die_under_guest(engine, guest, folder, seed, MOMENTS_A_LEG)
                forget_records(guest)
                seed += 1
        finally:
            guest.stop()
    finally:
        engine.stop()


def fio_legs(folder: Path, seed: int) -> Generator[Counter[str], None, None]:
    while True:
        own = folder / str(seed)
        own.mkdir()
        yield die_under_fio(ENGINE, own, seed, MOMENTS_A_LEG)
        shutil.rmtree(own)
        seed += 1


def legs(under: str, folder: Path, seed: int, kills: int, tally: Counter[str]) -> None:
    going = (guest_legs if under == "guest" else fio_legs)(folder, seed)
    while tally["kills"] < kills:
        try:
            tally.update(next(going))
        except Exception as error:
            raise Lost(f"{error}\nseed {seed + tally['legs']}, after {tally['kills']} kills; see {folder}") from error
        tally["legs"] += 1
        print(f"{tally['kills']} kills in {tally['legs']} legs", flush=True)
    going.close()


def page(runs: dict[str, Any]) -> str:
    rows = []
    for under, run in sorted(runs.items()):
        tally = run["tally"]
        moments = ", ".join(
            f"{name.removeprefix('killed: ')} {number}"
            for name, number in sorted(tally.items())
            if name.startswith(("killed: ", "any time, ", "clone, ", "snapshot, ", "deletion, ", "checkpoint, "))
        )
        rows.append([under, run["taken"], run["revision"], str(run["seed"]), str(tally["kills"]), moments, "nothing"])
    return (
        "# Kills of the engine\n\n"
        "`make crash KEEP=1`, with `UNDER=guest`, `UNDER=fio` or without: SIGKILL, each time followed by a new engine\n"
        "on the same data. Under writers all that was acknowledged is compared, flushed or not; under a guest the\n"
        "sequence numbers that it was told to be durable, its file system, and copies made meanwhile; under fio what\n"
        "`fio --verify` reads. A run that loses something is not kept: it ends with its seed. All numbers are in\n"
        "`engine-crashes.json`.\n\n" + table(["under", "when", "revision", "seed", "kills", "moments", "lost"], rows)
    )


def record(under: str, seed: int, tally: Counter[str], took_s: float, of: dict[str, Any]) -> None:
    """Beside the newest runs under others."""
    path = RESULTS / f"{NAME}.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    runs[under] = {**of, "seed": seed, "took_s": round(took_s), "tally": dict(sorted(tally.items()))}
    keep(NAME, {"runs": runs}, page(runs))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.engine.crash", description="Kills the engine.")
    parser.add_argument("--under", choices=("writers", "guest", "fio"), default="writers")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--kills", type=int, default=ENDLESS, help="how many; without it, until Ctrl-C or a loss")
    parser.add_argument("--keep", action="store_true", help="write what was done to bench/results")
    asked = parser.parse_args()
    folder = ROOT / "var/crash" / asked.under
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"seed {asked.seed}, data in {folder.relative_to(ROOT)}", flush=True)
    tally: Counter[str] = Counter()
    began = time.monotonic()
    try:
        if asked.under == "writers":
            campaign(folder, asked.seed, asked.kills, tally)
        else:
            legs(asked.under, folder, asked.seed, asked.kills, tally)
    except KeyboardInterrupt:
        print("\nstopped; nothing was lost")
    except Lost as lost:
        print(f"\n{lost}", file=sys.stderr)
        return 1
    for what, number in sorted(tally.items()):
        print(f"{number:10} {what}")
    if asked.keep:
        record(asked.under, asked.seed, tally, time.monotonic() - began, what_ran())
    return 0


def what_ran() -> dict[str, Any]:
    return {"revision": revision(), "taken": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine()}


if __name__ == "__main__":
    sys.exit(main())
