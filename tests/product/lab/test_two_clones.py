"""Two clones of the project on one machine: what one does never touches the lab of the other."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.lab import Lab, LabError
from tests.own_nets import OWN, net_of

ROOT = Path(__file__).resolve().parents[3]
NAME, NET = f"tc{OWN}", net_of(4)

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab of the first clone."""
    lab = Lab(tmp_path_factory.mktemp("c") / "a", NAME, NET)  # a short path: sockets below it
    try:
        lab.up(hosts=1)
        yield lab
    finally:
        lab.down()
    assert lab.switch.owner() is None


def other(lab: Lab) -> Lab:
    """The second clone has never heard of the first, and would use the same names."""
    return Lab(lab.directory.with_name("b"), NAME, NET)


def untouched(lab: Lab, pids: list[int]) -> bool:
    return lab.is_up and lab.node("host1").libvirtd_answers() and set(pids) <= set(lab.switch.pids())


def command(name: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    main = [sys.executable, "-m", f"gespann.main.{name}", *words, "--directory", str(directory)]
    main += ["--name", NAME, "--net", NET]
    return subprocess.run(main, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_up_is_refused_and_down_takes_nothing(running: Lab) -> None:
    pids, second = running.switch.pids(), other(running)
    with pytest.raises(LabError, match=f"that of {running.directory}; take it down first"):
        second.up()
    second.down()
    assert not second.directory.exists()
    assert untouched(running, pids)


def test_what_a_clone_noted_of_an_earlier_lab_gives_it_nothing(running: Lab) -> None:
    """Its lab ended with a reboot of this machine, and the other clone's came up since."""
    pids, second = running.switch.pids(), other(running)
    second.directory.mkdir()
    note = (running.directory / "lab.json").read_text()
    (second.directory / "lab.json").write_text(note.replace(str(running.directory), str(second.directory)))
    with pytest.raises(LabError, match="another lab of the name"):
        second.up()
    assert not second.is_up
    second.down()
    assert not second.directory.exists()
    assert untouched(running, pids)


def test_a_copy_of_a_directory_is_not_its_lab(running: Lab) -> None:
    pids, second = running.switch.pids(), other(running)
    second.directory.mkdir()
    (second.directory / "host1").mkdir()
    for name in ("lab.json", "host1/boot.json"):
        shutil.copy(running.directory / name, second.directory / name)
    assert not second.is_up
    second.down()
    assert not second.directory.exists()
    assert untouched(running, pids)


def test_the_commands_say_what_to_do(running: Lab) -> None:
    pids, directory = running.switch.pids(), other(running).directory
    refused = command("lab", directory, "up")
    assert refused.returncode == 1
    assert f"that of {running.directory}; take it down first" in refused.stderr
    assert "gespann.main.lab up --name NAME" in refused.stderr
    refused = command("demo", directory)
    assert refused.returncode == 1
    assert f"that of {running.directory}; take it down first" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    assert command("lab", directory, "down").returncode == 0
    assert untouched(running, pids)


def test_a_lab_whose_directory_was_removed_can_still_be_taken_down(running: Lab) -> None:
    second = other(running)
    shutil.rmtree(running.directory)
    with pytest.raises(LabError, match=f"down --directory {running.directory} --name {NAME} --net {NET}"):
        second.up()
    with pytest.raises(LabError, match="its directory is gone"):
        second.down()
    assert command("lab", running.directory, "down").returncode == 0
    assert running.switch.owner() is None
    assert not running.directory.exists()
    second.up()
    assert second.is_up
    second.down()
