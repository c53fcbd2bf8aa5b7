import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.array.shell.line_editor import LINE_LIMIT_CHARS, Kind, LineEditor


def lines(editor: LineEditor, text: str) -> list[str]:
    found = []
    for character in text:
        _, event = editor.feed(character)
        if event is not None and event.kind is Kind.LINE:
            found.append(event.text)
            editor.remember(event.text)
            editor.begin("> ")
    return found


def shown(keys: str) -> tuple[str, str]:
    """What a terminal would show of the line after these keys, and what the editor holds."""
    editor = LineEditor(echo=True)
    screen, at = list(editor.begin("")), 0
    for key in keys:
        output, _ = editor.feed(key)
        for character in output:
            if character == "\b":
                at -= 1
            elif character != "\a":
                screen[at : at + 1] = [character]
                at += 1
    return "".join(screen).rstrip(" "), editor.buffer


LEFT, RIGHT, UP, DOWN, HOME, END, DELETE = "\x1b[D", "\x1b[C", "\x1b[A", "\x1b[B", "\x1b[H", "\x1b[F", "\x1b[3~"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("abc", "abc"),
        ("ac" + LEFT + "b", "abc"),
        ("abx\x7fc", "abc"),
        ("bc" + HOME + "a" + END + "d", "abcd"),
        ("xabc" + HOME + DELETE, "abc"),
        ("abcxyz" + LEFT * 3 + "\x0b", "abc"),
        ("xyzabc" + LEFT * 3 + "\x15", "abc"),
        ("one two\x17three", "one three"),
        ("word\x17x", "x"),
        (LEFT + RIGHT + UP + DOWN + DELETE + "\x7f" + "a", "a"),
        ("a\x1b[99;99Xb\x1bOZc", "abc"),
        ("a\x00b", "ab"),
    ],
)
def test_keys(keys, line):
    editor = LineEditor(echo=True)
    editor.begin("> ")
    assert lines(editor, keys + "\r") == [line]


@given(
    st.lists(st.sampled_from([*"ab c", LEFT, RIGHT, HOME, END, DELETE, "\x7f", "\x0b", "\x15", "\x17", "\x01", "\x05"]))
)
def test_the_screen_shows_what_the_line_holds(keys):
    screen, buffer = shown("".join(keys))
    assert screen == buffer.rstrip(" ")


def test_history():
    editor = LineEditor(echo=True)
    editor.begin("> ")
    assert lines(editor, f"one\rtwo\r{UP}\r{UP}{UP}{UP}\r{UP}{DOWN}three\r")[2:] == ["two", "one", "three"]


@pytest.mark.parametrize("enter", ["\r", "\n", "\r\n", "\n\r", "\r\0"])
@pytest.mark.parametrize("echo", [True, False])
def test_enters(enter, echo):
    editor = LineEditor(echo)
    editor.begin("> ")
    assert lines(editor, f"a{enter}b{enter}{enter}c{enter}") == ["a", "b", "", "c"]


@pytest.mark.parametrize("echo", [True, False])
def test_without_echo_nothing_is_shown_and_long_lines_end(echo):
    editor = LineEditor(echo)
    editor.begin("> ")
    output = "".join(editor.feed(character)[0] for character in "x" * (LINE_LIMIT_CHARS + 10))
    assert len(editor.buffer) == LINE_LIMIT_CHARS
    assert echo or output == ""
    _, event = editor.feed("\r")
    assert event is not None
    assert event.kind is (Kind.LINE if echo else Kind.TOO_LONG)
    editor.begin("> ")
    assert lines(editor, "again\r") == ["again"]


@given(st.text(), st.booleans())
def test_any_text_leaves_an_editor_that_works(text, echo):
    editor = LineEditor(echo)
    editor.begin("> ")
    lines(editor, text)
    editor.feed("\r")
    editor.begin("> ")
    assert lines(editor, "x\x15whoami\r" if echo else "whoami\r")[-1:] == ["whoami"]
