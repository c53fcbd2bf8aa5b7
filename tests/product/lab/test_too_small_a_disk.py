"""Setting up where there is no room: said before anything is done."""

import subprocess
from pathlib import Path

import pytest

from tests.style.tree import ROOT

SMALL = 'mount -t tmpfs -o size=8m tmpfs "$1" && cp -r setup "$1" && exec "$1/setup/prepare" $2'


@pytest.mark.parametrize("what", ["run", "test"])
def test_a_disk_without_room_is_told_at_once(tmp_path: Path, what: str) -> None:
    words = ["unshare", "-m", "--propagation", "private", "bash", "-c", SMALL, "bash", tmp_path, what]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"the disk of {tmp_path} has " in done.stderr
    assert "please make room" in done.stderr
    assert done.stdout == ""
