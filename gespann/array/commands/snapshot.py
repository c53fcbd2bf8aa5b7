"""``volume select V snapshot ...``: snapshots of a volume."""

from typing import Any

from gespann.array.commands.declare import Command, Flag, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.commands.volume import clone_options, cloned
from gespann.array.commands.volume_views import connection_counts, connection_table, permission, status
from gespann.array.model.records import Snapshot, Volume

COLUMNS = (("Name", 30), ("Permission", 10), ("Status", 7), ("Connections", 11))
SETTINGS = (
    Option("description", "text"),
    Flag("read-write", key="read_only", value=False, help="the default"),
    Flag("read-only", key="read_only", value=True, help="writes are refused"),
    Flag("online", key="online", value=True, help="may be connected to at once"),
    Flag("offline", key="online", value=False, help="the default"),
)
EVEN_IF_FULL = Flag("even-if-full", help="also where free space runs short; of a volume that would stop at that")
AT = "volume select <volume> snapshot"


@command(f"{AT} create-now", "Makes a snapshot, named by the volume and the time.", *SETTINGS, EVEN_IF_FULL)
async def create_now(session: Session, volume: Volume, **settings: Any) -> Lines:
    return _made(await session.control.snapshot_lifecycle.create(volume, **settings))


@command(f"{AT} create <name:new-snapshot>", "Makes a snapshot of a given name.", *SETTINGS)
async def create(session: Session, volume: Volume, name: str, **settings: Any) -> Lines:
    return _made(await session.control.snapshot_lifecycle.create(volume, name, **settings))


def _made(snapshot: Snapshot) -> Lines:
    """Programs take the second line's last word for the name: no full stop."""
    return ["Snapshot creation succeeded.", f"Snapshot name is {snapshot.name}"]


@command(f"{AT} delete <snapshot>", "Deletes a snapshot. It must be offline.")
async def delete(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    if not await session.confirm(f"Do you really want to delete snapshot {snapshot.name}?"):
        return []
    await session.control.snapshot_lifecycle.delete(volume, snapshot)
    session.leave(snapshot.naa)
    return ["Snapshot deletion succeeded."]


@command(f"{AT} rename <snapshot> <name:new-snapshot>", "Gives a snapshot another name; its target name stays.")
async def rename(session: Session, volume: Volume, snapshot: Snapshot, name: str) -> Lines:
    session.control.snapshot_lifecycle.rename(snapshot, name)
    return []


@command(f"{AT} show", "Lists the snapshots.", changes=False)
async def show(session: Session, volume: Volume) -> Lines:
    connections = await connection_counts(session)
    rows = [
        (one.name, permission(one), status(session, one), str(connections.get(one.naa, 0)))
        for one in session.control.snapshots.of(volume.id)
    ]
    return table(COLUMNS, rows)


@command(f"{AT} show <snapshot>", "Shows a snapshot.", changes=False)
async def show_one(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    return await _detail(session, volume, snapshot)


@command(f"{AT} select <snapshot> show", "Shows the snapshot.", changes=False)
async def select_show(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    return await _detail(session, volume, snapshot)


@command(f"{AT} select <snapshot> show connections", "Lists the snapshot's iSCSI connections.", changes=False)
async def show_connections(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    return connection_table(session, await session.control.sessions(snapshot))


async def _detail(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    served = snapshot.naa in session.control.data_plane.present
    connections = await session.control.sessions(snapshot) if served else []
    values = [
        ("Name", snapshot.name),
        ("Volume", volume.name),
        ("Size", session.size(snapshot.asked_bytes)),
        ("CreationTime", _time(snapshot.created_at)),
        ("Permission", permission(snapshot)),
        ("DesiredStatus", "online" if snapshot.online else "offline"),
        ("Status", status(session, snapshot)),
        ("Connections", str(len(connections))),
        ("Description", snapshot.description),
        ("iSCSI Alias", snapshot.alias),
        ("iSCSI Name", snapshot.target_name),
        ("MultiHostAccess", "enabled" if snapshot.multihost else "disabled"),
        ("Schedule", session.control.schedules.name_of(snapshot.schedule_id)),
        ("SnapCollection", session.control.collections.snap_name_of(snapshot.snap_collection_id)),
    ]
    lines = [title("Snapshot Information"), *pairs(values, session.settings.formatoutput)]
    lines.append(title("Connections"))
    return [*lines, *connection_table(session, connections), rule()]


def _time(at: str) -> str:
    return at[:19].replace("T", " ")


def _online(state: str, help: str) -> list[Command]:
    """``snapshot online S`` and ``snapshot select S online``."""

    async def run(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
        await session.control.snapshot_lifecycle.set_online(volume, snapshot, state == "online")
        return []

    return [command(f"{AT} select <snapshot> {state}", help)(run), command(f"{AT} {state} <snapshot>", help)(run)]


@command(f"{AT} select <snapshot> read-only", "Refuses writes.")
async def read_only(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    await session.control.snapshot_lifecycle.set_read_only(volume, snapshot, True)
    return []


@command(f"{AT} select <snapshot> read-write", "Admits writes.")
async def read_write(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    await session.control.snapshot_lifecycle.set_read_only(volume, snapshot, False)
    return []


@command(f"{AT} select <snapshot> multihost-access <state:enable|disable>", "Whether several initiators may connect.")
async def multihost_access(session: Session, volume: Volume, snapshot: Snapshot, state: str) -> Lines:
    await session.control.policy.set_snapshot(snapshot, multihost=state == "enable")
    return []


@command(f"{AT} select <snapshot> iscsi-alias <alias>", "Sets the alias of the target.")
async def alias(session: Session, volume: Volume, snapshot: Snapshot, alias: str) -> Lines:
    await session.control.policy.set_snapshot(snapshot, alias=alias)
    return []


@command(f"{AT} select <snapshot> description <description:text>", "Says what the snapshot is for.")
async def description(session: Session, volume: Volume, snapshot: Snapshot, description: str) -> Lines:
    session.control.snapshots.change(snapshot.id, description=description)
    return []


@command(
    f"{AT} select <snapshot> clone <name:new-volume>",
    "Makes a volume with the snapshot's contents and prints its target name.",
    *clone_options(),
)
async def clone(
    session: Session, volume: Volume, snapshot: Snapshot, name: str, unrestricted: bool = False, **settings: Any
) -> Lines:
    return await cloned(session, volume, name, unrestricted, settings, snapshot)


@command("volume select <volume> restore <snapshot>", "Makes the volume what the snapshot is. It must be offline.")
async def restore(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    """A snapshot of the present contents is made first; the volume stays offline."""
    control = session.control
    if not await session.confirm(f"Do you really want to restore the volume from snapshot {snapshot.name}?"):
        return []
    first = control.snapshot_lifecycle.first
    await control.lifecycle.restore(volume, snapshot, first)
    return []


@command(f"{AT} select <snapshot> restore", "Makes the volume what the snapshot is. It must be offline.")
async def select_restore(session: Session, volume: Volume, snapshot: Snapshot) -> Lines:
    return await restore.run(session, volume=volume, snapshot=snapshot)


COMMANDS: list[Command] = [
    create_now,
    create,
    delete,
    rename,
    show,
    show_one,
    select_show,
    show_connections,
    *_online("online", "Opens the snapshot to those whom the volume's access records admit to snapshots."),
    *_online("offline", "Closes the snapshot and ends its connections."),
    read_only,
    read_write,
    multihost_access,
    alias,
    description,
    clone,
    restore,
    select_restore,
]
