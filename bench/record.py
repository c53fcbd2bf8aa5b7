"""How results are kept: one JSON file with every number taken, one page of text made from it."""

import json
import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def in_words(machine: dict[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before the run"


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure of runs that have the same ones."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def file_system_of(path: Path) -> str:
    return subprocess.run(
        ["findmnt", "-no", "FSTYPE", "-T", path], capture_output=True, text=True, check=True
    ).stdout.strip()


def revision() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def keep(name: str, result: dict[str, Any], page: str) -> None:
    """Writes results/NAME.json and results/NAME.md; the last run replaces the one before (git keeps them)."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = {"taken": datetime.now(UTC).isoformat(timespec="seconds"), "revision": revision(), **result}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(page)
    print(f"\nkept in bench/results/{name}.json and bench/results/{name}.md")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
