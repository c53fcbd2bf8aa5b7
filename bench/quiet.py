"""Surroundings in which two runs are alike: a network namespace of its own, a folder on the file system that is asked
about, and a place in front of other processes."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bench.record import ROOT, file_system_of, machine
from bench.targets import put_first

Found = TypeVar("Found")

INSIDE = "GESPANN_BENCH_INSIDE"
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def enter_own_network(module: str) -> None:
    """Starts this bench again in a network namespace with only loopback: the congestion control is Debian's default
    there, or reno, whatever the machine's is. Where that may not be had it goes on as it is."""
    if INSIDE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for name in ("cubic", "reno"):
            try:
                CONGESTION.write_text(name)
                break
            except OSError:
                continue
    elif shutil.which("unshare") and not subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, "-m", module, *sys.argv[1:]])
    if os.getpgrp() != os.getpid():
        os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and takes down what it has started
    put_first("self")


def surroundings() -> str:
    where = "in a network namespace of its own" if INSIDE in os.environ else "in the machine's network"
    control = CONGESTION.read_text().strip()
    return f"{where}, congestion control {control}, before other processes where the system allows it"


def add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, default=ROOT / "var", help="the file system to measure on")


def measured(options: argparse.Namespace, take: Callable[[Path], Found]) -> tuple[Found, dict[str, Any]]:
    """What ``take`` finds in a folder of its own in ``options.directory``, and how it was found: all the options, the
    machine and its surroundings, the file system, and how long it took."""
    before = machine()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as folder:
        began = time.monotonic()
        found = take(Path(folder))
        how = {name: value for name, value in vars(options).items() if name != "directory"} | {
            "took_s": time.monotonic() - began,
            "file_system": file_system_of(Path(folder)),
            "surroundings": surroundings(),
            "machine": before,
        }
    return found, how
