"""``volume``: makes, shows, and takes away volumes."""

from typing import Any

from gespann.array.commands.declare import Command, Flag, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.volume_views import connection_table, volume_detail, volume_table
from gespann.array.model.records import Snapshot, StoragePool, Volume
from gespann.array.model.refusals import Conflict
from gespann.array.model.storage_pools import DEFAULT

DEPLETION = "delete-oldest|volume-offline|stop-snapshots"
WARN_MODE = "offline|soft-only|hard-only"
KEPT_BY_CLONES = (
    "thin",
    "thin_min_reserve",
    "thin_growth_warn",
    "thin_growth_max",
    "thin_warn_mode",
    "snap_reserve",
    "snap_warn",
    "snap_depletion",
    "block_size",
)


def _thin_and_snapshot_options() -> tuple[Option | Flag, ...]:
    return (
        Option("thin-min-reserve", "percent", help="space reserved from the start, of the size; default 10%"),
        Option("thin-growth-warn", "percent", help="in-use share that gives a warning; default 60%"),
        Option("thin-growth-max", "percent", help="in-use share that may not be exceeded; default 100%"),
        Option("snap-reserve", "reserve", help="reserve for snapshots, of the volume's reserve; default 100%"),
        Option("snap-warn", "reserve", help="free snapshot reserve that gives a warning"),
        Option("snap-depletion", DEPLETION, help="what happens when the snapshot reserve is used up"),
    )


def _common_options() -> tuple[Option | Flag, ...]:
    return (
        Option("description", "text"),
        Option("iscsi-alias", "alias", key="alias", help="alias of the target; default: the volume's name"),
        Flag("read-write", key="read_only", value=False, help="the default"),
        Flag("read-only", key="read_only", value=True, help="writes are refused"),
        Flag("online", key="online", value=True, help="the default"),
        Flag("offline", key="online", value=False, help="not to be reached until it is set online"),
        Flag("unrestricted-access", key="unrestricted", help="makes an access record that admits everybody"),
        Flag("multihost-access", key="multihost", help="several initiators may connect at a time"),
    )


def _group_defaults(session: Session) -> dict[str, Any]:
    parameters = session.control.parameters
    return {
        "snap_reserve": parameters.percent("def-snap-reserve"),
        "snap_warn": parameters.percent("def-snap-warn"),
        "snap_depletion": parameters.get("def-snap-depletion"),
        "thin_min_reserve": parameters.percent("def-thin-min-reserve"),
        "thin_growth_warn": parameters.percent("def-thin-growth-warn"),
        "thin_growth_max": parameters.percent("def-thin-growth-max"),
    }


def _alias(session: Session, name: str) -> str:
    return name if session.control.parameters.enabled("def-iscsi-alias") else ""


@command(
    "volume create <name:new-volume> <size>",
    "Makes a volume and prints its target name.",
    Option("pool", "pool", help="storage pool; default: default"),
    Flag("thin-provision", key="thin", help="space is taken as it is written"),
    Option("sector-size", "512|4096", key="block_size", help="bytes of a logical block; default 512"),
    *_common_options(),
    *_thin_and_snapshot_options(),
)
async def create(
    session: Session, name: str, size: int, pool: StoragePool | None = None, unrestricted: bool = False, **settings: Any
) -> Lines:
    control = session.control
    pool = pool or control.pools.get(DEFAULT)
    settings = {"alias": _alias(session, name), **_group_defaults(session), **settings}
    settings["block_size"] = int(settings.get("block_size", 512))
    volume = await control.lifecycle.create(control.lifecycle.draft(name, size, pool.id, **settings), unrestricted)
    return ["Volume creation succeeded.", f"iSCSI target name is {volume.target_name}."]


def clone_options() -> tuple[Option | Flag, ...]:
    return (*_common_options(), Option("snap-reserve", "reserve", help="default: as the volume's"))


@command(
    "volume select <volume> clone <name:new-volume>",
    "Makes an independent copy of the volume and prints its target name.",
    *clone_options(),
)
async def clone(session: Session, volume: Volume, name: str, unrestricted: bool = False, **settings: Any) -> Lines:
    return await cloned(session, volume, name, unrestricted, settings, None)


async def cloned(
    session: Session,
    volume: Volume,
    name: str,
    unrestricted: bool,
    settings: dict[str, Any],
    snapshot: Snapshot | None,
    thin_clone: bool = False,
) -> Lines:
    """Of the volume's contents, or of a snapshot's. A clone of a template is a template, unless it is a thin clone."""
    lifecycle = session.control.lifecycle
    same = {field: getattr(volume, field) for field in KEPT_BY_CLONES}
    same["thin_clone_of"] = volume.id if thin_clone else volume.thin_clone_of
    settings = {"alias": _alias(session, name), **same, **settings}
    if volume.template and not thin_clone:
        settings |= {"template": True, "read_only": True, "online": False}
    asked_bytes = (snapshot or volume).asked_bytes
    draft = lifecycle.draft(name, asked_bytes, volume.pool_id, **settings)
    made = await lifecycle.clone(volume, draft, unrestricted, snapshot)
    return ["Volume creation succeeded.", f"iSCSI target name is {made.target_name}."]


@command("volume delete <volume>", "Deletes a volume and its data. It must be offline.")
async def delete(session: Session, volume: Volume) -> Lines:
    session.control.lifecycle.check_deletable(volume)
    size = session.size(volume.asked_bytes)
    if not await session.confirm(f"Do you really want to delete the volume and destroy {size} of data?"):
        return []
    await session.control.lifecycle.delete(volume)
    session.leave(volume.naa)
    return ["Volume deletion succeeded."]


@command("volume rename <volume> <name:new-volume>", "Gives a volume another name; its target name stays.")
async def rename(session: Session, volume: Volume, name: str) -> Lines:
    holder = session.control.volumes.named(name)
    if holder is not None and holder.id != volume.id:
        raise Conflict(f"Volume {name} already exists.")
    session.control.volumes.change(volume.id, name=name)
    session.control.events.add("INFO", "8.2.5", f"Volume {volume.name} renamed to {name}.")
    return []


@command("volume show", "Lists the volumes.", changes=False)
async def show(session: Session) -> Lines:
    return await volume_table(session)


@command("volume show -volume", "Lists the volumes.", changes=False, hidden=True)
async def show_volume(session: Session) -> Lines:
    return await volume_table(session)


@command("volume show <volume>", "Shows one volume.", changes=False)
async def show_one(session: Session, volume: Volume) -> Lines:
    return await volume_detail(session, volume)


@command("volume select <volume> show", "Shows the volume.", changes=False)
async def select_show(session: Session, volume: Volume) -> Lines:
    return await volume_detail(session, volume)


@command("volume select <volume> show connections", "Lists the volume's iSCSI connections.", changes=False)
async def show_connections(session: Session, volume: Volume) -> Lines:
    return connection_table(session, await session.control.sessions(volume))


COMMANDS: list[Command] = [
    create,
    clone,
    delete,
    rename,
    show,
    show_volume,
    show_one,
    select_show,
    show_connections,
]
