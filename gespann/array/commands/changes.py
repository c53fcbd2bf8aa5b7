"""``volume select V changes``: which parts of a volume have been written between two of its states.

Not a command of a PS group. Its output is for programs: bytes as plain numbers, at most so many extents at a time, and
where to go on.
"""

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.model.records import Snapshot, Volume
from gespann.array.model.refusals import Mistake
from gespann.array.operations.differences import differences

COLUMNS = (("Offset", 19), ("Length", 19))
USUAL_EXTENTS = 1000


@command(
    "volume select <volume> changes",
    "Lists the bytes that may differ between two snapshots, or a snapshot and the volume.",
    Option("from", "snapshot", key="older", help="the older state; the volume as it is now unless named"),
    Option("to", "snapshot", key="newer", help="the newer state; the volume as it is now unless named"),
    Option("offset", "bytes", help="where to begin; NextOffset of the answer before"),
    Option("extents", "extents", key="most", help="how many to list at most; 1000 unless said"),
    changes=False,
)
async def changes(
    session: Session,
    volume: Volume,
    older: Snapshot | None = None,
    newer: Snapshot | None = None,
    offset: int = 0,
    most: int = USUAL_EXTENTS,
) -> Lines:
    """What the older lacks counts as zeroes, and what lies behind the newer's end is not told of."""
    if older is None and newer is None:
        raise Mistake("Nothing to compare the volume with: name a snapshot after from or to.")
    said = await differences(session.control.data_plane, older or volume, newer or volume, offset, most)
    values = [
        ("Volume", volume.name),
        ("From", older.name if older else ""),
        ("To", newer.name if newer else ""),
        ("Extents", str(len(said.extents))),
        ("NextOffset", "none" if said.next_offset is None else str(said.next_offset)),
    ]
    rows = [(str(extent.offset), str(extent.length)) for extent in said.extents]
    return [
        title("Changed Bytes"),
        *pairs(values, session.settings.formatoutput),
        rule(),
        *table(COLUMNS, rows, last_is_whole=True),
    ]


COMMANDS: list[Command] = [changes]
