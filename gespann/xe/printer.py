"""How results are laid out, after ``reference``: tables of ``name (tag): value``, plain lines, and ``--minimal``."""

from collections.abc import Iterable, Sequence
from typing import Protocol

TableRecord = Sequence[tuple[str, str]]


class Lines(Protocol):
    """Where lines go: the thin client's stdout and stderr."""

    async def print(self, text: str) -> None: ...

    async def print_error(self, text: str) -> None: ...


def format_record(record: TableRecord) -> str:
    """The lines of one record without the last line break. Widths are counted in bytes, as the original does."""
    width = 4 + max((len(key.encode()) for key, _ in record), default=0)
    lines = []
    for position, (key, value) in enumerate(record):
        padding = " " * (width - len(key.encode()))
        lines.append(f"{key}{padding}: {value}" if position == 0 else f"{padding}{key}: {value}")
    return "\n".join(lines)


def escape_minimal(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


class Printer:
    """Tables, lists and remarks of one command. Under ``--minimal`` everything waits for ``flush``, so that a command
    that fails has printed nothing."""

    def __init__(self, lines: Lines, minimal: bool = False) -> None:
        self._lines = lines
        self.minimal = minimal
        self._kept: list[str] = []

    async def table(self, records: Sequence[TableRecord]) -> None:
        if not self.minimal:
            for record in records:
                await self._lines.print(format_record(record) + "\n\n")
        elif records and records[0]:
            self._keep(record[0][1] for record in records if record)

    async def values(self, values: Sequence[str]) -> None:
        """One value a line: uuids of what was made, the value of a parameter."""
        if self.minimal:
            self._keep(values)
        else:
            for value in values:
                await self._lines.print(value)

    async def remark(self, text: str) -> None:
        """Text for people, dropped under ``--minimal``."""
        if not self.minimal:
            await self._lines.print(text)

    async def remark_on_stderr(self, text: str) -> None:
        if not self.minimal:
            await self._lines.print_error(text + "\n")

    async def flush(self) -> None:
        if self.minimal:
            await self._lines.print(",".join(self._kept))

    def _keep(self, values: Iterable[str]) -> None:
        self._kept.insert(0, ",".join(map(escape_minimal, values)))
