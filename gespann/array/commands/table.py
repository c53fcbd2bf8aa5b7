"""Tables and detail views with the fixed shapes that clients of the group CLI parse.

A column never widens. A cell that is too long goes on in the next lines, in its column, behind two blanks; only a table
whose lines are counted lets its last cells stick out.
"""

from collections.abc import Iterable, Sequence

TITLE_WIDTH = 79
PAIR_WIDTH = 40


def table(columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]], last_is_whole: bool = False) -> list[str]:
    lines = [_line(columns, [title for title, _ in columns])]  # TP stands over a column of width one
    lines.append(" ".join("-" * width for _, width in columns))
    for row in rows:
        lines += [_line(columns, row)] if last_is_whole else _row(columns, row)
    return lines


def _row(columns: Sequence[tuple[str, int]], row: Sequence[str]) -> list[str]:
    parts = [_split(cell, width) for cell, (_, width) in zip(row, columns, strict=True)]
    height = max(len(part) for part in parts)
    return [_line(columns, [part[at] if at < len(part) else "" for part in parts]) for at in range(height)]


def _split(cell: str, width: int) -> list[str]:
    if width < 3 or len(cell) <= width:
        return [cell[:width]]
    rest = width - 2
    return [cell[:width]] + [f"  {cell[at : at + rest]}" for at in range(width, len(cell), rest)]


def _line(columns: Sequence[tuple[str, int]], cells: Sequence[str]) -> str:
    return " ".join(cell.ljust(width) for cell, (_, width) in zip(cells, columns, strict=True)).rstrip()


def title(text: str) -> str:
    """``____ Volume Information ____``: clients look for the text between underscores and single blanks."""
    left = (TITLE_WIDTH - len(text) - 2) // 2
    return f"{'_' * left} {text} {'_' * (TITLE_WIDTH - len(text) - 2 - left)}"


def rule() -> str:
    return "_" * TITLE_WIDTH


def pairs(values: Iterable[tuple[str, str]], two_a_line: bool) -> list[str]:
    """``Name: value`` lines; with ``two_a_line`` two of them side by side where both are short enough."""
    singles = [f"{name}: {value}".rstrip() if value else f"{name}:" for name, value in values]
    if not two_a_line:
        return singles
    lines: list[str] = []
    left: str | None = None
    for single in singles:
        if len(single) >= PAIR_WIDTH:
            lines += [single] if left is None else [left, single]
            left = None
        elif left is None:
            left = single
        else:
            lines.append(f"{left:<{PAIR_WIDTH}}{single}")
            left = None
    return lines if left is None else [*lines, left]
