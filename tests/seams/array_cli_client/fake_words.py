"""How a fake group speaks: refusals, tables, detail views."""

from pathlib import Path
from typing import Protocol

SHAPES = Path(__file__).parent / "shapes"


class Refused(Exception):
    """Answered as ``% Error - <text>``."""


class Unknown(Exception):
    """Not a command of this firmware."""


class Target(Protocol):
    online: bool
    read_only: bool


def shape(name: str, /, **values: object) -> list[str]:
    text = (SHAPES / f"{name}.txt").read_text()
    return [line.format(**values).rstrip() for line in text.splitlines()]


def table(columns: list[tuple[str, int]], rows: list[list[str]]) -> list[str]:
    """Columns never widen; what is too long goes on below, two blanks in."""
    lines = [" ".join(title.ljust(width) for title, width in columns), " ".join("-" * w for _, w in columns)]
    for row in rows:
        rests = list(row)
        first = True
        while first or any(rests):
            cells = []
            for index, (_, width) in enumerate(columns):
                room = width if first else width - 2
                cells.append(("" if first or not rests[index] else "  ") + rests[index][:room])
                rests[index] = rests[index][room:] if room > 0 else ""
            lines.append(" ".join(cell.ljust(w) for cell, (_, w) in zip(cells, columns, strict=True)).rstrip())
            first = False
    return lines


def status(target: Target) -> str:
    return "online" if target.online else "offline"


def permission(target: Target) -> str:
    return "read-only" if target.read_only else "read-write"
