"""The demo: the main job on a real guest, from end to end; and stopped in the middle, by its user or worse."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.lab import Lab
from tests.own_nets import OWN, net_of

ROOT = Path(__file__).resolve().parents[3]
NAME, NET = f"td{OWN}", net_of(4)

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(1000)]


@pytest.fixture
def directory() -> Iterator[Path]:
    path = ROOT / f"var/td{OWN}"
    yield path
    Lab(path, NAME, NET).down()
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def start(directory: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "gespann.main.demo", "--directory", str(directory), "--name", NAME, "--net", NET]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def nothing_is_left(directory: Path) -> bool:
    lab = Lab(directory, NAME, NET)
    return not directory.exists() and lab.switch.owner() is None and lab.switch.ours() == []


def test_it_does_the_main_job_and_takes_everything_away(directory: Path) -> None:
    demo = start(directory)
    said, _ = demo.communicate(timeout=900)
    assert demo.returncode == 0, said
    assert "Done. Every step was checked" in said
    assert nothing_is_left(directory)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_cleans_up_even_if_told_twice(directory: Path, ending: signal.Signals) -> None:
    demo = start(directory)
    until(lambda: (directory / "array/boot.json").exists())
    demo.send_signal(ending)
    time.sleep(0.1)  # in the midst of cleaning up
    demo.send_signal(ending)
    said, _ = demo.communicate(timeout=240)
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert nothing_is_left(directory)


def test_a_second_one_waits_its_turn_and_a_killed_one_is_no_obstacle(directory: Path) -> None:
    first = start(directory)
    until(lambda: (directory / "host1/boot.json").exists())
    second = start(directory)
    said, _ = second.communicate(timeout=120)
    assert (second.returncode, "another demo runs" in said) == (1, True), said
    assert Lab(directory, NAME, NET).is_up
    first.kill()
    first.communicate()
    assert Lab(directory, NAME, NET).is_up
    third = start(directory)
    until(lambda: (directory / "lab.json").exists() and not Lab(directory, NAME, NET).is_up)  # it starts afresh
    until(lambda: (directory / "array/boot.json").exists())
    third.send_signal(signal.SIGINT)
    said, _ = third.communicate(timeout=240)
    assert third.returncode == 130, said
    assert nothing_is_left(directory)
