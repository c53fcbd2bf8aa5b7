"""A session from banner to logout: reads lines, runs them, prints what they say."""

import asyncio
import contextlib

from gespann import __version__
from gespann.array.commands.dispatch import execute
from gespann.array.commands.general import event_line
from gespann.array.commands.help import complete
from gespann.array.commands.registry import ROOT
from gespann.array.commands.session import Session
from gespann.array.commands.words import BadInput, split_words
from gespann.array.model.records import Event as GroupEvent
from gespann.array.shell.line_editor import LINE_LIMIT_CHARS, Event, Kind
from gespann.array.shell.terminal import Ended, Terminal, wrap

IDLE_LOGOUT_S = 30 * 60.0
LINES_OF_ONE_EXEC = 1000


class IdleTooLong(Exception):
    pass


async def run_shell(session: Session, terminal: Terminal) -> None:
    """Returns when the session is over; never because of what was typed."""
    session.ask = terminal.ask
    terminal.completer = lambda before: _completions(session, before)
    unlisten = session.control.events.listen(lambda event: _tell(session, terminal, event))
    try:
        for line in ("", "           Welcome to Group Manager", "", f"           Gespann {__version__}", ""):
            terminal.write_line(line)
        again = ""
        while not session.closing:
            await terminal.turn()
            event = await _next_line(session, terminal, again)
            again = await _handle(session, terminal, event)
    except Ended:
        pass
    except IdleTooLong:
        terminal.write_line("")
        terminal.write_line("Session ended: idle for too long.")
    finally:
        unlisten()


async def run_exec(session: Session, terminal: Terminal, command: str) -> int:
    """Commands given with the connection, a line each. 0, or 1 if any failed."""
    session.ask = terminal.ask
    status = 0
    for line in command.splitlines()[:LINES_OF_ONE_EXEC]:
        await terminal.turn()
        if len(line) > LINE_LIMIT_CHARS:
            terminal.write_line(_too_long())
            return 1
        outcome = await execute(session, line)
        for text in outcome.lines:
            terminal.write_line(text)
        status = max(status, int(outcome.failed))
        if session.closing:
            break
    return status


async def _handle(session: Session, terminal: Terminal, event: Event) -> str:
    """Does what was typed; returns what the next prompt offers for editing."""
    if event.kind is Kind.END:
        session.closing = True
    elif event.kind is Kind.TOO_LONG:
        terminal.write_line(_too_long())
    elif event.kind is Kind.LINE:
        terminal.editor.remember(event.text)
        outcome = await execute(session, event.text)
        screen, settings = session.screen, session.settings
        lines = wrap(outcome.lines, screen.columns) if screen.hardwrap else outcome.lines
        await terminal.write_pages(lines, screen.rows if settings.paging else 0)
        if outcome.bad_input and settings.reprintBadInput:
            return event.text if event.text.isprintable() else ""
    return ""


async def _next_line(session: Session, terminal: Terminal, again: str) -> Event:
    reading = asyncio.ensure_future(terminal.read_line(session.prompt, again))
    if not session.settings.idlelogout:
        return await reading
    sleeping = asyncio.ensure_future(session.control.clock.sleep(IDLE_LOGOUT_S))
    try:
        await asyncio.wait({reading, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        raise IdleTooLong
    finally:
        for task in (reading, sleeping):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def _too_long() -> str:
    return f"% Error - A command can have {LINE_LIMIT_CHARS} characters at most."


def _tell(session: Session, terminal: Terminal, event: GroupEvent) -> None:
    if session.settings.events:
        terminal.tell(event_line(event))


def _completions(session: Session, before: str) -> list[str]:
    done, _, beginning = before.rpartition(" ")
    try:
        words = split_words(done)
    except BadInput:
        return []
    node = session.context[-1].node if session.context else ROOT
    return complete(session.control, node, words, beginning) or complete(session.control, ROOT, words, beginning)
