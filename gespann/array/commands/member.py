"""``member``: the boxes of a group. There is one, until engines can be joined."""

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


async def _numbers(session: Session) -> tuple[int, int, int]:
    space = await session.control.data_plane.space()
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
    ]
    return [title("Member Information"), *pairs(values, session.settings.formatoutput), rule()]


COMMANDS: list[Command] = [show, show_one, select_show]
