"""``member``: the boxes of a group. There is one, until engines can be joined."""

from dataclasses import replace
from typing import Any

from gespann import __version__
from gespann.array.commands.declare import Command, Lines, command
from gespann.array.commands.kinds import MEMBER
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title

CLI_LEVEL = "V7.0.0"  # the firmware whose words this command line speaks: clients ask for 4.0 or later
COLUMNS = (
    ("Name", 10),
    ("Status", 7),
    ("Version", 10),
    ("Disks", 5),
    ("Capacity", 10),
    ("FreeSpace", 10),
    ("Connections", 11),
)


@command("member show", "Lists the members.", changes=False)
async def show(session: Session) -> Lines:
    total, free, connections = await _numbers(session)
    row = (MEMBER, "online", CLI_LEVEL, "1", session.size(total, "down"), session.size(free, "down"), str(connections))
    return table(COLUMNS, [row])


@command("member show <member>", "Shows a member.", changes=False)
async def show_one(session: Session, member: str) -> Lines:
    return await _detail(session)


@command("member select <member> show", "Shows the member.", changes=False)
async def select_show(session: Session, member: str) -> Lines:
    return await _detail(session)


@command("member select <member> capacity <capacity>", "Sets how much of the file system the volumes may have.")
async def capacity(session: Session, member: str, capacity: int) -> Lines:
    return await _change(session, capacity_bytes=capacity)


@command("member select <member> no capacity", "Lets the volumes have all that the file system has.")
async def no_capacity(session: Session, member: str) -> Lines:
    return await _change(session, capacity_bytes=None)


@command("member select <member> space-warn <percent>", "Sets the used share of the capacity that gives a warning.")
async def space_warn(session: Session, member: str, percent: int) -> Lines:
    return await _change(session, warn_percent=percent)


async def _change(session: Session, **changes: Any) -> Lines:
    control = session.control
    await control.set_member_space(replace(control.member_spaces.get(), **changes))
    control.events.add("INFO", "6.1.1", f"Space settings of member {MEMBER} changed.")
    return []


async def _numbers(session: Session) -> tuple[int, int, int]:
    space = session.control.member_spaces.get().left_of(await session.control.data_plane.space())
    return space.total_bytes, space.free_bytes, len(await session.control.sessions())


async def _detail(session: Session) -> Lines:
    total, free, connections = await _numbers(session)
    values = [
        ("Name", MEMBER),
        ("Status", "online"),
        ("Version", f"{CLI_LEVEL} (Gespann {__version__})"),
        ("Pool", "default"),
        ("TotalSpace", session.size(total, "down")),
        ("FreeSpace", session.size(free, "down")),
        ("Connections", str(connections)),
        ("Space-Warn", f"{session.control.member_spaces.get().warn_percent}%"),
    ]
    return [title("Member Information"), *pairs(values, session.settings.formatoutput), rule()]


COMMANDS: list[Command] = [show, show_one, select_show, capacity, no_capacity, space_warn]
