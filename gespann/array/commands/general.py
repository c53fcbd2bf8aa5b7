"""Words about the session itself and about what happened."""

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import table
from gespann.array.model.events import LEVELS
from gespann.array.model.records import Event

SESSION_COLUMNS = (("ID", 4), ("Account", 20), ("Protocol", 8), ("Ipaddress", 15), ("Since", 19))
EVENTS_SHOWN = 50
EVENTS_AT_ONCE = 1000


def event_line(event: Event) -> str:
    """``sequence:member:process:time:level::id:text``, as the array prints events into a session."""
    return f"{event.number}:1:groupd:{event.at:%d-%b-%Y %H:%M:%S.%f}:{event.level}::{event.code}:{event.text}"


@command("whoami", "Prints the name of your account.", changes=False)
async def whoami(session: Session) -> Lines:
    return [session.account_name]


@command("usersession show", "Lists the sessions of the command line.", changes=False)
async def usersession_show(session: Session) -> Lines:
    rows = [
        (str(one.number), one.account_name, "ssh", one.address, f"{one.started:%Y-%m-%d %H:%M:%S}")
        for one in session.others()
    ]
    return table(SESSION_COLUMNS, rows)


@command(
    "recentevents",
    f"Prints the last {EVENTS_SHOWN} events.",
    Option("level", "warning|error", help="none that are less than this"),
    Option("after", "event", help=f"those that came after this one, {EVENTS_AT_ONCE} at most; for programs"),
    changes=False,
)
async def recentevents(session: Session, level: str = "", after: int | None = None) -> Lines:
    """``level`` and ``after`` are no words of a PS group."""
    events = session.control.events
    levels = LEVELS[LEVELS.index(level.upper()) :] if level else LEVELS
    found = events.recent(EVENTS_SHOWN, levels) if after is None else events.after(after, EVENTS_AT_ONCE, levels)
    return [event_line(event) for event in found]


@command("recentevents show", f"Prints the last {EVENTS_SHOWN} events.", changes=False, hidden=True)
async def recentevents_show(session: Session) -> Lines:
    return [event_line(event) for event in session.control.events.recent(EVENTS_SHOWN)]


@command("exit", "Leaves the selected object, or the session.", changes=False)
async def leave(session: Session) -> Lines:
    if session.context:
        session.context = session.context[:-1]
        return []
    return await _end(session)


@command("logout", "Ends the session.", changes=False)
async def logout(session: Session) -> Lines:
    return await _end(session)


async def _end(session: Session) -> Lines:
    session.closing = await session.confirm("Do you really want to logout?")
    return []


COMMANDS: list[Command] = [whoami, usersession_show, recentevents, recentevents_show, leave, logout]
