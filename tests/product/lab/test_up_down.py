"""``make up`` and ``make down`` as their users see them: up twice, used, down; and nothing of it is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.system.processes import is_running
from tests.own_nets import OWN, net_of

ROOT = Path(__file__).resolve().parents[3]
NAME, NET = f"tu{OWN}", net_of(4)

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(1200)]


@pytest.fixture
def directory() -> Iterator[Path]:
    path = ROOT / f"var/tu{OWN}"  # short: sockets below it
    yield path
    lab(path, "down")


def words_of(directory: Path, command: str) -> list[str]:
    options = ["--directory", str(directory), "--name", NAME, "--net", NET]
    return [sys.executable, "-m", "gespann.main.lab", command, *options]


def lab(directory: Path, command: str) -> str:
    done = subprocess.run(words_of(directory, command), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def remains(directory: Path) -> dict[str, list[str]]:
    """Everything on this machine that belongs to the lab."""
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    processes = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command and str(os.getpid()) != entry.parent.name:
            processes.append(command)
    return {
        "namespaces": [line for line in namespaces.splitlines() if line.startswith(NAME)],
        "links": [line for line in links.splitlines() if NAME in line],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line],
        "processes": processes,
        "files": [str(path) for path in [directory] if path.exists()],
    }


NOTHING: dict[str, list[str]] = {"namespaces": [], "links": [], "mounts": [], "processes": [], "files": []}


def running(pids: list[int]) -> set[int]:
    """Without those that have ended and wait for somebody to ask how."""
    return {pid for pid in pids if is_running(pid)}


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_up_works_twice_and_down_leaves_nothing(directory: Path) -> None:
    first = lab(directory, "up")
    assert "The lab is up, after" in first
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    nodes = [line.split()[0] for line in found.splitlines() if line.startswith(NAME)]
    pids = [
        int(word)
        for node in nodes
        for word in subprocess.run(["ip", "netns", "pids", node], capture_output=True, text=True).stdout.split()
    ]
    assert len(pids) > 5  # first processes, libvirtd, agent, coordinator, group, engine
    assert "The lab is up already." in lab(directory, "up")
    environment = {**os.environ, "GESPANN_XAPI_SOCKET": str(directory / "host1/run/gespann/pool/xapi")}
    hosts = subprocess.run(
        [ROOT / "bin/xe", "host-list", "params=name-label", "--minimal"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert hosts.stdout == "host1\n"
    (line,) = [line for line in first.splitlines() if f"-s {NET}.11" in line]  # as a user copies it
    network = {**os.environ, "GESPANN_CA": str(directory / "host1/var/lib/gespann/pool/pool.crt")}
    shown = subprocess.run(
        line.replace("vm-list", "host-list --minimal"),
        shell=True,
        cwd=ROOT,
        env=network,
        capture_output=True,
        text=True,
    )
    assert (len(shown.stdout), shown.stderr) == (37, ""), shown
    assert answers(f"{NET}.11", 443)
    assert not answers(f"{NET}.11", 80)  # nothing of the pool is served in the clear
    assert "The lab is down" in lab(directory, "down")
    assert remains(directory) == NOTHING
    assert running(pids) == set()
    assert "There is no lab" in lab(directory, "down")


def test_up_repairs_what_has_died(directory: Path) -> None:
    lab(directory, "up")
    boot = directory / "array/boot.json"
    pid = int(boot.read_text().split('"pid": ')[1].split(",")[0])
    os.kill(pid, signal.SIGKILL)
    while is_running(pid):  # till all that ran in the node has ended
        time.sleep(0.02)
    assert "The lab is up, after" in lab(directory, "up")
    assert "The lab is up already." in lab(directory, "up")


def test_down_takes_away_an_up_that_was_killed(directory: Path) -> None:
    starting = subprocess.Popen(
        words_of(directory, "up"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (directory / "array/boot.json").exists():
        assert starting.poll() is None, "up ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    starting.kill()
    starting.wait()
    lab(directory, "down")
    assert remains(directory) == NOTHING
