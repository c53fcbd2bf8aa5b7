"""Keystrokes into lines, without I/O: characters in, what to print and at most one event out.

With echo (a terminal) it edits: arrows, Home, End, Delete, Ctrl-A E B F D K U W P N L, history, Tab. Without echo (a
program) nothing is printed and nothing but Enter is special. CR, LF, CR LF, LF CR and CR NUL are each one Enter.
"""

from dataclasses import dataclass
from enum import Enum

LINE_LIMIT_CHARS = 4096
HISTORY_MOST = 200
BELL = "\a"


class Kind(Enum):
    LINE = "line"
    TOO_LONG = "too long"  # the line is dropped
    INTERRUPT = "interrupt"  # Ctrl-C: the line is dropped
    END = "end"  # Ctrl-D on an empty line
    COMPLETE = "complete"  # Tab; answer with ``completed``


@dataclass(frozen=True)
class Event:
    kind: Kind
    text: str = ""


_ESCAPES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "[3~": "delete",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "OH": "home",
    "OF": "end",
}
_CONTROLS = {
    "\x01": "home",
    "\x02": "left",
    "\x04": "delete",
    "\x05": "end",
    "\x06": "right",
    "\x08": "backspace",
    "\x7f": "backspace",
    "\x0b": "kill",
    "\x0c": "redraw",
    "\x0e": "down",
    "\x10": "up",
    "\x15": "clear",
    "\x17": "word",
}


class LineEditor:
    def __init__(self, echo: bool) -> None:
        self.echo = echo
        self.prompt = ""
        self.buffer = ""
        self.cursor = 0
        self.history: list[str] = []
        self._recall = 0
        self._kept = ""
        self._escape: str | None = None
        self._last_enter = ""
        self._too_long = False

    def begin(self, prompt: str, text: str = "") -> str:
        """Starts a line. ``text`` stands in it already, to be edited; without echo it is only shown."""
        self.prompt = prompt
        self.buffer = text if self.echo else ""
        self.cursor = len(self.buffer)
        self._recall = len(self.history)
        self._too_long = False
        return prompt + text

    def redraw(self) -> str:
        """The line again, after something else was printed."""
        return self.prompt + self.buffer + "\b" * (len(self.buffer) - self.cursor) if self.echo else self.prompt

    def remember(self, line: str) -> None:
        if line.strip() and self.history[-1:] != [line]:
            self.history.append(line)
            del self.history[:-HISTORY_MOST]

    def feed(self, character: str) -> tuple[str, Event | None]:
        if character in "\r\n\0":
            return self._enter(character)
        self._last_enter = ""
        if not self.echo:
            return self._add_silently(character)
        if self._escape is not None:
            return self._in_escape(character)
        if character == "\x1b":
            self._escape = ""
            return "", None
        if character == "\x03":
            return "^C\r\n", Event(Kind.INTERRUPT)
        if character == "\x04" and not self.buffer:
            return "\r\n", Event(Kind.END)
        if character == "\t":
            return "", Event(Kind.COMPLETE, self.buffer[: self.cursor])
        if character in _CONTROLS:
            return self._edit(_CONTROLS[character]), None
        return (self._insert(character), None) if character.isprintable() else (BELL, None)

    def completed(self, addition: str) -> str:
        """Text that Tab adds at the cursor."""
        return self._insert(addition) if addition else BELL

    def _enter(self, character: str) -> tuple[str, Event | None]:
        before, self._last_enter = self._last_enter, ""
        if character == "\0" or (before and before != character):
            return "", None  # the second half of CR NUL, CR LF or LF CR; any other NUL is no key
        self._last_enter = character
        self._escape = None
        kind = Kind.TOO_LONG if self._too_long else Kind.LINE
        line, self.buffer, self.cursor, self._too_long = self.buffer, "", 0, False
        return "\r\n" if self.echo else "", Event(kind, "" if kind is Kind.TOO_LONG else line)

    def _add_silently(self, character: str) -> tuple[str, Event | None]:
        if len(self.buffer) < LINE_LIMIT_CHARS:
            self.buffer += character
        else:
            self._too_long = True
        return "", None

    def _in_escape(self, character: str) -> tuple[str, Event | None]:
        sequence = (self._escape or "") + character
        if sequence in _ESCAPES:
            self._escape = None
            return self._edit(_ESCAPES[sequence]), None
        unfinished = sequence in ("[", "O") or (sequence[0] == "[" and not character.isalpha() and character != "~")
        self._escape = sequence if unfinished and len(sequence) < 16 else None
        return "", None

    def _insert(self, text: str) -> str:
        if len(self.buffer) + len(text) > LINE_LIMIT_CHARS:
            return BELL
        tail = self.buffer[self.cursor :]
        self.buffer = self.buffer[: self.cursor] + text + tail
        self.cursor += len(text)
        return text + tail + "\b" * len(tail)

    def _edit(self, action: str) -> str:
        match action:
            case "left" if self.cursor > 0:
                self.cursor -= 1
                return "\b"
            case "right" if self.cursor < len(self.buffer):
                self.cursor += 1
                return self.buffer[self.cursor - 1]
            case "home":
                moved, self.cursor = "\b" * self.cursor, 0
                return moved
            case "end":
                moved, self.cursor = self.buffer[self.cursor :], len(self.buffer)
                return moved
            case "backspace" if self.cursor > 0:
                return self._remove(self.cursor - 1, self.cursor)
            case "delete" if self.cursor < len(self.buffer):
                return self._remove(self.cursor, self.cursor + 1)
            case "kill":
                return self._remove(self.cursor, len(self.buffer))
            case "clear":
                return self._remove(0, self.cursor)
            case "word":
                start = len(self.buffer[: self.cursor].rstrip().rpartition(" ")[0])
                return self._remove(start + 1 if start else 0, self.cursor)
            case "redraw":
                return "\r\n" + self.redraw()
            case "up" | "down":
                return self._from_history(-1 if action == "up" else 1)
        return BELL

    def _remove(self, start: int, end: int) -> str:
        back = max(0, self.cursor - start)
        tail = self.buffer[end:]
        blanks = end - start
        self.buffer = self.buffer[:start] + tail
        self.cursor = start
        return "\b" * back + tail + " " * blanks + "\b" * (len(tail) + blanks)

    def _from_history(self, step: int) -> str:
        wanted = self._recall + step
        if not 0 <= wanted <= len(self.history):
            return BELL
        if self._recall == len(self.history):
            self._kept = self.buffer
        self._recall = wanted
        text = self.history[wanted] if wanted < len(self.history) else self._kept
        cleared = self._edit("end") + self._remove(0, len(self.buffer))
        return cleared + self._insert(text)
