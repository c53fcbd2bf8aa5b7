"""Layouts, checked by what must hold for any value."""

from hypothesis import given
from hypothesis import strategies as st

from gespann.xe.printer import Printer, escape_minimal, format_record

KEYS = st.text(st.characters(codec="ascii", exclude_characters=":\n"), min_size=1, max_size=12)
VALUES = st.text(max_size=12).filter(lambda text: "\n" not in text and "\r" not in text)


class Sheet:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.err: list[str] = []

    async def print(self, text: str) -> None:
        self.out.append(text)

    async def print_error(self, text: str) -> None:
        self.err.append(text)


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5))
def test_colons_stand_below_each_other(record: list[tuple[str, str]]) -> None:
    lines = format_record(record).split("\n")
    width = 4 + max(len(key) for key, _ in record)
    assert len(lines) == len(record)
    for number, (line, (key, value)) in enumerate(zip(lines, record, strict=True)):
        assert line[width:] == f": {value}"
        assert line[:width] == (key.ljust(width) if number == 0 else key.rjust(width))


@given(st.text(max_size=20))
def test_minimal_can_be_taken_apart_again(value: str) -> None:
    escaped = escape_minimal(value)
    parts, current, characters = [], "", iter(escaped)
    for character in characters:
        if character == "\\":
            current += next(characters)
        elif character == ",":
            parts.append(current)
            current = ""
        else:
            current += character
    assert [*parts, current] == [value]


async def test_minimal_prints_the_first_field_of_each_record_on_one_line() -> None:
    sheet = Sheet()
    printer = Printer(sheet, minimal=True)
    await printer.table([[("uuid", "a"), ("name", "b")], [("uuid", "c,d"), ("name", "e")]])
    await printer.remark("for people")
    await printer.remark_on_stderr("for people")
    assert sheet.out == []  # nothing before the end, so that an error prints nothing
    await printer.flush()
    assert sheet.out == ["a,c\\,d"]
    assert sheet.err == []


async def test_two_blank_lines_after_a_record() -> None:
    sheet = Sheet()
    await Printer(sheet).table([[("uuid", "a")]])
    assert sheet.out == ["uuid    : a\n\n"]  # and the client ends it with a line break of its own


async def test_nothing_at_all_for_no_record() -> None:
    sheet = Sheet()
    await Printer(sheet).table([])
    assert sheet.out == []
