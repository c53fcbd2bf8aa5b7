"""Formatting, lint and types, as the tools see them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.style.tree import ROOT

TOOLS = Path(sys.executable).parent


def clean(*words: str | Path) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_ruff_finds_nothing() -> None:
    clean(TOOLS / "ruff", "check", "--quiet", ".")


def test_python_is_formatted() -> None:
    clean(TOOLS / "ruff", "format", "--check", "--quiet", ".")


@pytest.mark.timeout(1200)
def test_types_are_strict() -> None:
    clean(TOOLS / "mypy")


@pytest.mark.skipif(shutil.which("rustfmt") is None, reason="no rustfmt here (the engine builds without it)")
def test_rust_is_formatted() -> None:
    clean(ROOT / "setup/cargo", "fmt", "--manifest-path", "engine/Cargo.toml", "--all", "--check")


def test_shell_scripts_parse() -> None:
    guest = ("guest/build-tiny", "guest/build-initiator", "guest/parts.sh")
    for script in ("setup/prepare", "setup/cargo", "tests/run", ".ci/run", *guest):
        clean("bash", "-n", ROOT / script)
