"""One session's screen and keys over a channel: prompts, lines, questions, pages, and news that arrive meanwhile."""

import asyncio
import codecs
from collections import deque
from collections.abc import Callable

from gespann.array.shell.line_editor import Event, Kind, LineEditor

BACKLOG_LIMIT_CHARS = 64 * 1024
NEWS_MOST = 200  # the oldest go first
MORE = "Press any key to continue (Q to quit)"


class Ended(Exception):
    """Nobody types any more: the channel's input has ended."""


class Terminal:
    def __init__(self, write: Callable[[bytes], None], echo: bool) -> None:
        self.editor = LineEditor(echo)
        self.completer: Callable[[str], list[str]] | None = None
        self.hold_input: Callable[[bool], None] = lambda hold: None  # told to stop or go on sending
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._keys: deque[str] = deque()
        self._typed = asyncio.Event()
        self._ended = False
        self._held = False
        self._at_prompt = False
        self._news: deque[str] = deque(maxlen=NEWS_MOST)
        self._room = asyncio.Event()  # clear while the client does not take what was printed
        self._room.set()
        self._gone = False
        self._unsent = bytearray()

    # From the channel ---------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._keys.extend(self._decoder.decode(data))
        if len(self._keys) > BACKLOG_LIMIT_CHARS and not self._held:
            self._held = True
            self.hold_input(True)
        self._typed.set()

    def end(self) -> None:
        self._ended = True
        self._typed.set()

    def gone(self) -> None:
        """The channel is closed: nobody reads any more either."""
        self._gone = True
        self._room.set()
        self.end()

    def has_room(self, room: bool) -> None:
        if room or self._gone:
            self._room.set()
        else:
            self._room.clear()

    # To the channel -----------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Goes out with whatever else is written before the loop turns: one packet for a burst of keys."""
        if not text:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent += text.encode("utf-8", "replace")

    def flush(self) -> None:
        if self._unsent:
            data, self._unsent = bytes(self._unsent), bytearray()
            self._write(data)

    def write_line(self, text: str) -> None:
        self.write(f"{text}\r\n")

    def tell(self, text: str) -> None:
        """News: printed at once when the session waits at its prompt, else before the next one."""
        if self._at_prompt and self._room.is_set():
            self.write(f"\r\n{text}\r\n{self.editor.redraw()}")
        else:
            self._news.append(text)

    async def turn(self) -> None:
        """Between two commands: others get their turn, and a client that sends but does not read waits until it has
        read."""
        await asyncio.sleep(0)
        await self._room.wait()

    # From the person ----------------------------------------------------------------------------------------

    async def read_line(self, prompt: str, text: str = "") -> Event:
        """The next LINE, TOO_LONG, INTERRUPT or END. Ended when the input is at its end and used up; a last line
        without Enter is not a command."""
        for news in self._news:
            self.write_line(news)
        self._news.clear()
        self.write(self.editor.begin(prompt, text))
        self._at_prompt = True
        try:
            while True:
                shown, event = self.editor.feed(await self._key())
                self.write(shown)
                if event is None:
                    continue
                if event.kind is not Kind.COMPLETE:
                    return event
                self._complete(event.text)
        finally:
            self._at_prompt = False

    async def ask(self, question: str) -> bool:
        """Yes only if the answer begins with y."""
        try:
            event = await self.read_line(question)
        except Ended:
            self.write("\r\n")
            return False
        return event.kind is Kind.LINE and event.text.strip().lower() in ("y", "yes")

    async def write_pages(self, lines: list[str], rows: int) -> None:
        """All lines, stopping after each ``rows`` - 1; never stopping if ``rows`` is 0."""
        page = max(1, rows - 1)
        for number, line in enumerate(lines):
            if rows and number and number % page == 0 and not await self._more():
                return
            self.write_line(line)

    async def _more(self) -> bool:
        self.write(MORE)
        try:
            key = await self._key()
        except Ended:
            return True  # nobody to press a key: the rest comes as it is
        finally:
            self.write("\r" + " " * len(MORE) + "\r")
        return key not in "qQ\x03"

    async def _key(self) -> str:
        while not self._keys:
            if self._ended:
                raise Ended
            self._typed.clear()
            await self._typed.wait()
        key = self._keys.popleft()
        if self._held and len(self._keys) < BACKLOG_LIMIT_CHARS // 2:
            self._held = False
            self.hold_input(False)
        return key

    def _complete(self, before: str) -> None:
        found = self.completer(before) if self.completer else []
        beginning = before.rpartition(" ")[2]
        if len(found) == 1:
            self.write(self.editor.completed(found[0][len(beginning) :] + " "))
            return
        common = _common(found)
        if len(common) > len(beginning):
            self.write(self.editor.completed(common[len(beginning) :]))
        elif found:
            self.write("\r\n" + "  ".join(found) + "\r\n" + self.editor.redraw())
        else:
            self.write(self.editor.completed(""))


def _common(words: list[str]) -> str:
    if not words:
        return ""
    shortest, longest = min(words), max(words)
    for at, character in enumerate(shortest):
        if longest[at] != character:
            return shortest[:at]
    return shortest


def wrap(lines: list[str], columns: int) -> list[str]:
    """``stty hardwrap``: lines broken at the width, the rest without indent."""
    return [line[at : at + columns] for line in lines for at in range(0, max(1, len(line)), columns)]
