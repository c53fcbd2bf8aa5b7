"""``volume select V ...``: what can be changed about a volume. Setters say nothing when they succeed."""

from typing import Any

from gespann.array.commands.declare import Command, Flag, Lines, command
from gespann.array.commands.session import Session
from gespann.array.commands.volume import DEPLETION, WARN_MODE
from gespann.array.model.records import StoragePool, Volume
from gespann.array.model.refusals import Conflict
from gespann.array.operations.volume_lifecycle import First


def _first(session: Session, no_snap: bool) -> First:
    """A snapshot is made before the size changes, unless it is not wanted."""
    return None if no_snap else session.control.snapshot_lifecycle.first


@command("volume select <volume> online", "Opens the volume to those whom its access records admit.")
async def online(session: Session, volume: Volume) -> Lines:
    await session.control.lifecycle.set_online(volume, True)
    return []


@command("volume select <volume> offline", "Closes the volume and ends its connections.")
async def offline(session: Session, volume: Volume) -> Lines:
    await session.control.lifecycle.set_online(volume, False)
    return []


@command("volume select <volume> read-only", "Refuses writes.")
async def read_only(session: Session, volume: Volume) -> Lines:
    await session.control.policy.set_volume(volume, read_only=True)
    return []


@command("volume select <volume> read-write", "Admits writes.")
async def read_write(session: Session, volume: Volume) -> Lines:
    if volume.template:
        raise Conflict(f"Volume {volume.name} is a template: it cannot be read-write.")
    await session.control.policy.set_volume(volume, read_only=False)
    return []


@command(
    "volume select <volume> size <size>",
    "Makes the volume larger, also while it is in use.",
    Flag("no-snap", help="without a snapshot before"),
)
async def size(session: Session, volume: Volume, size: int, no_snap: bool = False) -> Lines:
    await session.control.lifecycle.grow(volume, size, _first(session, no_snap))
    return await _go_on(session)


@command(
    "volume select <volume> shrink <size>",
    "Makes the volume smaller; what lies behind the new end is lost. It must be offline.",
    Flag("no-snap", help="without a snapshot before"),
)
async def shrink(session: Session, volume: Volume, size: int, no_snap: bool = False) -> Lines:
    if size < volume.asked_bytes and not await session.confirm(
        f"Do you really want to shrink the volume from {session.size(volume.asked_bytes)} to {session.size(size)}?"
    ):
        return []
    await session.control.lifecycle.shrink(volume, size, _first(session, no_snap))
    return []


@command("volume select <volume> description <description:text>", "Says what the volume is for.")
async def description(session: Session, volume: Volume, description: str) -> Lines:
    return await _record(session, volume, description=description)


@command("volume select <volume> iscsi-alias <alias>", "Sets the alias of the target.")
async def alias(session: Session, volume: Volume, alias: str) -> Lines:
    await session.control.policy.set_volume(volume, alias=alias)
    return []


@command("volume select <volume> multihost-access <state:enable|disable>", "Whether several initiators may connect.")
async def multihost_access(session: Session, volume: Volume, state: str) -> Lines:
    await session.control.policy.set_volume(volume, multihost=state == "enable")
    return []


@command("volume select <volume> pool <pool>", "Moves the volume to another storage pool.")
async def pool(session: Session, volume: Volume, pool: StoragePool) -> Lines:
    await session.control.lifecycle.move(volume, pool.id)
    return []


@command("volume select <volume> snap-reserve <reserve>", "Sets the reserve for snapshots.")
async def snap_reserve(session: Session, volume: Volume, reserve: int) -> Lines:
    return await _record(session, volume, snap_reserve=reserve)


@command("volume select <volume> snap-warn <reserve>", "Sets the warning limit of the snapshot reserve.")
async def snap_warn(session: Session, volume: Volume, reserve: int) -> Lines:
    return await _record(session, volume, snap_warn=reserve)


@command(f"volume select <volume> snap-depletion <policy:{DEPLETION}>", "What happens when the reserve is used up.")
async def snap_depletion(session: Session, volume: Volume, policy: str) -> Lines:
    return await _record(session, volume, snap_depletion=policy)


@command("volume select <volume> thin-provision", "Takes space as it is written, from now on.")
async def thin_provision(session: Session, volume: Volume) -> Lines:
    await session.control.lifecycle.set_thin(volume, True)
    return []


@command("volume select <volume> no thin-provision", "Reserves the whole size of the volume.")
async def no_thin_provision(session: Session, volume: Volume) -> Lines:
    await session.control.lifecycle.set_thin(volume, False)
    return []


@command("volume select <volume> thin-min-reserve <percent>", "Sets the space that is reserved at least.")
async def thin_min_reserve(session: Session, volume: Volume, percent: int) -> Lines:
    await session.control.lifecycle.set_min_reserve(volume, percent)
    return []


@command("volume select <volume> thin-growth-warn <percent>", "Sets the in-use share that gives a warning.")
async def thin_growth_warn(session: Session, volume: Volume, percent: int) -> Lines:
    return await _record(session, volume, thin_growth_warn=percent)


@command("volume select <volume> thin-growth-max <percent>", "Sets the in-use share that may not be exceeded.")
async def thin_growth_max(session: Session, volume: Volume, percent: int) -> Lines:
    await session.control.policy.set_limits(volume, thin_growth_max=percent)
    return await _go_on(session)


@command(f"volume select <volume> thin-warn-mode <mode:{WARN_MODE}>", "What a thin volume does at its limits.")
async def thin_warn_mode(session: Session, volume: Volume, mode: str) -> Lines:
    await session.control.policy.set_limits(volume, thin_warn_mode=mode)
    return await _go_on(session)


async def _go_on(session: Session) -> Lines:
    """One that its old maximum had stopped is online when this is answered."""
    await session.control.look_at_thin_volumes()
    return []


async def _record(session: Session, volume: Volume, **changes: Any) -> Lines:
    """A setting that the engine does not know of."""
    session.control.volumes.change(volume.id, **changes)
    return []


COMMANDS: list[Command] = [
    online,
    offline,
    read_only,
    read_write,
    size,
    shrink,
    description,
    alias,
    multihost_access,
    pool,
    snap_reserve,
    snap_warn,
    snap_depletion,
    thin_provision,
    no_thin_provision,
    thin_min_reserve,
    thin_growth_warn,
    thin_growth_max,
    thin_warn_mode,
]
