"""``collection``: sets of volumes, and snapshots of all of them of one instant."""

from typing import Any

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.snapshot import SETTINGS
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.commands.volume_views import status
from gespann.array.model.records import Collection, SnapCollection, Volume

COLUMNS = (("Name", 30), ("Volumes", 7), ("Snapshots", 9), ("Schedules", 9))
VOLUME_COLUMNS = (("Name", 15), ("Size", 10), ("Status", 7))
SNAP_COLUMNS = (("Name", 30), ("Snapshots", 9), ("CreationTime", 19))
MEMBER_COLUMNS = (("Volume", 15), ("Snapshot", 30), ("Status", 7))
AT = "collection select <collection>"


@command(
    "collection create <name:new-collection>", "Makes a collection without volumes.", Option("description", "text")
)
async def create(session: Session, name: str, description: str = "") -> Lines:
    session.control.collections.create(name, description)
    session.control.events.add("INFO", "8.8.3", f"Collection {name} created.")
    return ["Collection creation succeeded."]


@command("collection delete <collection>", "Deletes a collection; its volumes and their snapshots stay.")
async def delete(session: Session, collection: Collection) -> Lines:
    if not await session.confirm(f"Do you really want to delete collection {collection.name}?"):
        return []
    session.control.collections.delete(collection.id)
    session.context = [level for level in session.context if level.parameter.key != "collection"]
    session.control.events.add("INFO", "8.8.4", f"Collection {collection.name} deleted.")
    return ["Collection deletion succeeded."]


@command("collection rename <collection> <name:new-collection>", "Gives a collection another name.")
async def rename(session: Session, collection: Collection, name: str) -> Lines:
    session.control.collections.rename(collection, name)
    return []


@command("collection show", "Lists the collections.", changes=False)
async def show(session: Session) -> Lines:
    control = session.control
    rows = [
        (
            one.name,
            str(len(control.collections.volumes(one.id))),
            str(len(control.collections.snaps(one.id))),
            str(len(control.schedules.of(one))),
        )
        for one in control.collections.all()
    ]
    return table(COLUMNS, rows)


@command("collection show <collection>", "Shows a collection.", changes=False)
async def show_one(session: Session, collection: Collection) -> Lines:
    return _detail(session, collection)


@command(f"{AT} show", "Shows the collection.", changes=False)
async def select_show(session: Session, collection: Collection) -> Lines:
    return _detail(session, collection)


def _detail(session: Session, collection: Collection) -> Lines:
    control = session.control
    values = [("Name", collection.name), ("Description", collection.description)]
    rows = [
        (one.name, session.size(one.asked_bytes), status(session, one))
        for one in control.collections.volumes(collection.id)
    ]
    lines = [title("Collection Information"), *pairs(values, session.settings.formatoutput), title("Volumes")]
    lines += [*table(VOLUME_COLUMNS, rows), title("Snapshot Collections")]
    return [*lines, *_snap_table(session, collection), rule()]


@command(f"{AT} description <description:text>", "Says what the collection is for.")
async def description(session: Session, collection: Collection, description: str) -> Lines:
    session.control.collections.change(collection.id, description=description)
    return []


@command(f"{AT} add <volume>", "Adds a volume; a collection can have 8.")
async def add(session: Session, collection: Collection, volume: Volume) -> Lines:
    session.control.collections.add(collection, volume)
    return []


@command(f"{AT} remove <volume>", "Takes a volume out; its snapshots stay.")
async def remove(session: Session, collection: Collection, volume: Volume) -> Lines:
    session.control.collections.take_out(collection, volume)
    return []


@command(f"{AT} snapshot create-now", "Makes a snapshot of each volume, all of one instant.", *SETTINGS)
async def snapshot(session: Session, collection: Collection, **settings: Any) -> Lines:
    name = await session.control.runner.snapshot_of(collection, **settings)
    return ["Snapshot collection creation succeeded.", f"Snapshot collection name is {name}"]


@command(f"{AT} snapshot show", "Lists the snapshots made of the collection.", changes=False)
async def snapshot_show(session: Session, collection: Collection) -> Lines:
    return _snap_table(session, collection)


def _snap_table(session: Session, collection: Collection) -> Lines:
    control = session.control
    rows = [
        (snap.name, str(len(control.snapshots.of_snap_collection(snap.id))), snap.created_at[:19].replace("T", " "))
        for snap in control.collections.snaps(collection.id)
    ]
    return table(SNAP_COLUMNS, rows)


@command(f"{AT} snapshot show <snap-collection>", "Lists the snapshots of one instant.", changes=False)
async def snapshot_show_one(session: Session, collection: Collection, snap_collection: SnapCollection) -> Lines:
    control = session.control
    volumes = {volume.id: volume.name for volume in control.volumes.all()}
    rows = [
        (volumes.get(one.volume_id, ""), one.name, status(session, one))
        for one in control.snapshots.of_snap_collection(snap_collection.id)
    ]
    return table(MEMBER_COLUMNS, rows)


@command(f"{AT} snapshot delete <snap-collection>", "Deletes the snapshots of one instant. They must be offline.")
async def snapshot_delete(session: Session, collection: Collection, snap_collection: SnapCollection) -> Lines:
    if not await session.confirm(f"Do you really want to delete the snapshots of {snap_collection.name}?"):
        return []
    await session.control.runner.delete_snap(snap_collection)
    return ["Snapshot collection deletion succeeded."]


COMMANDS: list[Command] = [
    create,
    delete,
    rename,
    show,
    show_one,
    select_show,
    description,
    add,
    remove,
    snapshot,
    snapshot_show,
    snapshot_show_one,
    snapshot_delete,
]
