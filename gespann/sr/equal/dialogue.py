"""One CLI session as text: characters in, replies out. No I/O.

    greeting ──prompt──► idle ──sent(line)──► busy ──prompt──► idle
                                               │ pager, y/n question: ``keys`` to send back, still busy
                                               └ prompt with the bad line put back behind it: reply.spoilt,
                                                 the session must not be used again

A prompt is ``group> `` or ``group(context)> `` at the start of the last line. The group's name is learnt from the
first one; afterwards only that name ends a reply, so an answer that happens to contain ``x> `` does not.
"""

import re
from dataclasses import dataclass

from gespann.sr.equal.words import Line

QUESTION_CHARS = 20  # no question's end is longer
LIMIT_CHARS = 4 * 1024 * 1024  # a group of 1024 volumes lists itself in well under 1 MB

_ANY_PROMPT = re.compile(r"(?:\A|\n)(?P<group>[A-Za-z0-9][A-Za-z0-9_.-]*)(?P<context>\([^()\n]*\))?> \Z")
_PAGER = re.compile(r"\n?[^\n]*Press any key to continue[^\n]*\Z")
_QUESTION = re.compile(r"\(y/n\) ?(\[[yn]\])? ?\Z")
_ERROR = re.compile(r"\s*%?\s*Error\b", re.IGNORECASE)


class Unintelligible(Exception):
    """What arrived is not a group's CLI."""


@dataclass(frozen=True)
class Reply:
    lines: tuple[str, ...]
    spoilt: bool = False

    @property
    def error(self) -> str:
        """The text of the error lines; empty when the command was taken."""
        for index, text in enumerate(self.lines):
            if _ERROR.match(text):
                return " ".join(part.strip() for part in self.lines[index:] if part.strip())
        return ""


class Dialogue:
    def __init__(self) -> None:
        self.group = ""
        self.keys = ""  # to be sent to the array before more can come
        self._buffer = ""
        self._sent: str | None = None

    def sent(self, line: Line) -> None:
        """What is still in the buffer came unasked (events): nobody's answer."""
        self._buffer = ""
        self._sent = line.text

    def receive(self, text: str) -> Reply | None:
        self._buffer = (self._buffer + text).replace("\r\n", "\n")
        if len(self._buffer) > LIMIT_CHARS:
            raise Unintelligible(f"an answer longer than {LIMIT_CHARS} characters")
        self._answer_pager()
        body = self._up_to_prompt()
        if body is None:
            self._answer_question()
            return None
        reply = self._reply(*body)
        self._buffer, self._sent = "", None
        return reply

    def _answer_pager(self) -> None:
        shown = _PAGER.search(self._buffer, max(0, self._buffer.rfind("\n")))
        if shown:
            self._buffer = self._buffer[: shown.start()] + "\n"
            self.keys += " "

    def _answer_question(self) -> None:
        """Confirmation is switched off, but any session of the account can switch it on again. Whoever sent the line
        has decided already."""
        if self._sent is not None and _QUESTION.search(self._buffer, max(0, len(self._buffer) - QUESTION_CHARS)):
            self._buffer += "\n"
            self.keys += "y\r"

    def _up_to_prompt(self) -> tuple[str, bool] | None:
        if not self.group:
            greeting = _ANY_PROMPT.search(self._buffer)
            if not greeting:
                return None
            self.group = greeting["group"]
            return self._buffer[: greeting.start()], False
        start = self._buffer.rfind("\n") + 1
        last = self._buffer[start:]
        ours = re.match(re.escape(self.group) + r"(\([^()\n]*\))?> ", last)
        if not ours:
            return None
        rest = last[ours.end() :]
        if rest and (self._sent is None or not self._sent.startswith(rest.strip()[:20])):
            return None
        return self._buffer[:start], bool(rest)

    def _reply(self, body: str, spoilt: bool) -> Reply:
        lines = [text.rstrip("\r") for text in body.split("\n")]
        if self._sent is not None and lines and lines[0].strip() == self._sent:
            del lines[0]  # an echo: there is none without a terminal, but it costs nothing to be sure
        while lines and not lines[-1].strip():
            lines.pop()
        return Reply(tuple(lines), spoilt)
