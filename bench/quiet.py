"""Surroundings in which two runs are alike: a network namespace of its own, and a place in front of other processes."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from bench.targets import put_first

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
