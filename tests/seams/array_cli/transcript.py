"""Runs a transcript: a text file that shows a session as a person would see it.

Lines up to ``---`` say what it is about; one of them may be ``screen: COLUMNS``. Then comes the session. What is typed
stands between « and »; everything else is output, exactly. With a terminal (PTY) typed lines are echoed, without one
they are not: the same file holds for both.

GESPANN_WRITE_TRANSCRIPTS=1 writes what the group says now into the file instead of comparing: read the diff.
"""

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path

import asyncssh

TYPED = re.compile("«(.*?)»\n?")
WAITING = re.compile(r"(> |\[n\] |\(Q to quit\))$")
WRITE = os.environ.get("GESPANN_WRITE_TRANSCRIPTS") == "1"


@dataclass
class Transcript:
    path: Path
    head: str
    body: str

    @classmethod
    def read(cls, path: Path) -> "Transcript":
        head, _, body = path.read_text().partition("---\n")
        return cls(path, head, body)

    @property
    def columns(self) -> int:
        found = re.search(r"^screen: (\d+)$", self.head, re.MULTILINE)
        return int(found[1]) if found else 80

    @property
    def pieces(self) -> list[str]:
        """Output, typed, output, typed, ... output."""
        return TYPED.split(self.body)

    def expected(self, echo: bool) -> str:
        return TYPED.sub(lambda found: f"{found[1]}\n" if echo else "", self.body)


class Screen:
    """A session of the group CLI, and all that it printed."""

    def __init__(self, process: asyncssh.SSHClientProcess) -> None:
        self.process = process
        self.text = ""

    def type(self, text: str) -> None:
        self.process.stdin.write(text.encode())

    async def until(self, condition) -> None:
        async with asyncio.timeout(120):
            while not condition(self.text):
                data = await self.process.stdout.read(65536)
                if not data:
                    return
                self.text += data.decode().replace("\r\n", "\n")

    async def rest(self) -> None:
        await self.until(lambda text: False)


async def open_screen(connection: asyncssh.SSHClientConnection, pty: bool, columns: int = 80) -> Screen:
    terminal = {"term_type": "vt100", "term_size": (columns, 0)} if pty else {}
    return Screen(await connection.create_process(encoding=None, **terminal))


async def play(transcript: Transcript, connection: asyncssh.SSHClientConnection, pty: bool) -> None:
    screen = await open_screen(connection, pty, transcript.columns)
    if WRITE and pty:
        await _write(transcript, screen)
        return
    wanted = transcript.expected(pty)
    sent = ""
    for number, piece in enumerate(transcript.pieces):
        if number % 2 == 0:
            sent += piece
            await screen.until(lambda text, sent=sent: len(text) >= len(sent) or not wanted.startswith(text))
            assert screen.text == sent, transcript.path.name
        else:
            screen.type(f"{piece}\r")
            sent += f"{piece}\n" if pty else ""
    screen.process.stdin.write_eof()
    await screen.rest()
    assert screen.text == wanted, transcript.path.name


async def _write(transcript: Transcript, screen: Screen) -> None:
    body = ""
    seen = 0
    for typed in transcript.pieces[1::2]:
        await screen.until(lambda text, seen=seen: len(text) > seen and WAITING.search(text) is not None)
        body += f"{screen.text[seen:]}«{typed}»\n"
        seen = len(screen.text) + len(typed) + 1
        screen.type(f"{typed}\r")
    screen.process.stdin.write_eof()
    await screen.rest()
    transcript.path.write_text(f"{transcript.head}---\n{body}{screen.text[seen:]}")
