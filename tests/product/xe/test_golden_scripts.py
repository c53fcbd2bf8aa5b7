"""What ``xe`` prints, word for word: each script beside this file is a conversation with a fresh small pool.

``$ xe ...`` is typed at the shell, ``< text`` answers a prompt of that command; then follow its stdout as it is, its
stderr with ``! `` before each line, and ``= n`` if it ends with another status than 0. A line of ``# `` is a remark.

After a change that is meant, ``GESPANN_WRITE_GOLDEN=1`` writes the scripts anew: read the difference before it is kept.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.xe.thin_client import Client, Outcome
from tests.unit.xe.worlds import small_pool

HERE = Path(__file__).parent
SCRIPTS = sorted(path.relative_to(HERE).as_posix() for path in HERE.glob("*/*.txt"))


@dataclass
class Step:
    line: str
    remarks: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    printed: str = ""


def parse(text: str) -> list[Step]:
    steps: list[Step] = []
    remarks: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            remarks.append(line)
        elif line.startswith("$ xe "):
            steps.append(Step(line.removeprefix("$ xe "), remarks))
            remarks = []
        elif line.startswith("< "):
            steps[-1].typed.append(line.removeprefix("< "))
        else:
            steps[-1].printed += line + "\n"
    return steps


def shown(outcome: Outcome) -> str:
    assert not outcome.stderr or outcome.stderr.endswith("\n")
    errors = "".join(f"! {line}\n" for line in outcome.stderr.replace("\r", "\\r").split("\n")[:-1])
    return outcome.stdout + errors + (f"= {outcome.status}\n" if outcome.status else "")


@pytest.mark.parametrize("script", SCRIPTS)
async def test_prints_exactly(script: str) -> None:
    path = HERE / script
    client = Client(small_pool())
    steps = parse(path.read_text(encoding="utf-8"))
    assert steps
    written = ""
    for step in steps:
        client.typed = list(step.typed)
        printed = shown(await client.run(step.line))
        assert not client.typed, "not everything that was typed was asked for"
        written += "".join(
            f"{line}\n" for line in [*step.remarks, f"$ xe {step.line}", *(f"< {t}" for t in step.typed)]
        )
        written += printed
        if "GESPANN_WRITE_GOLDEN" not in os.environ:
            assert printed == step.printed, f"xe {step.line}"
    if "GESPANN_WRITE_GOLDEN" in os.environ:
        path.write_text(written, encoding="utf-8")
