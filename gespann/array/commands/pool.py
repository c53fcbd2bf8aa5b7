"""``pool``: storage pools. ``capacity`` is an extension: it sets a share of the file system aside for the pool."""

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.model.records import StoragePool
from gespann.array.model.refusals import Conflict
from gespann.array.model.sizes import format_size
from gespann.array.model.storage_pools import DEFAULT

COLUMNS = (("Name", 20), ("Default", 7), ("Members", 7), ("Volumes", 7), ("Capacity", 10), ("FreeSpace", 10))
VOLUME_COLUMNS = (("Name", 15), ("Size", 10), ("Status", 7))


@command(
    "pool create <name:new-pool>",
    "Makes a storage pool.",
    Option("capacity", "capacity", help="space set aside for it; default: it shares with the pool default"),
    Option("description", "text"),
)
async def create(session: Session, name: str, capacity: int | None = None, description: str = "") -> Lines:
    control = session.control
    if capacity is not None:
        admission = control.lifecycle.admission
        admission.need_shared(await admission.look(), capacity)
    control.pools.create(name, capacity, description)
    await control.data_plane.push_pools()
    control.events.add("INFO", "7.1.1", f"Storage pool {name} created.")
    return ["Storage pool creation succeeded."]


@command("pool delete <pool>", "Deletes a storage pool that has no volumes.")
async def delete(session: Session, pool: StoragePool) -> Lines:
    if not await session.confirm(f"Do you really want to delete storage pool {pool.name}?"):
        return []
    session.control.pools.delete(pool.name)
    session.control.events.add("INFO", "7.1.2", f"Storage pool {pool.name} deleted.")
    session.context = [level for level in session.context if level.value != pool]
    await session.control.data_plane.push_pools()
    return ["Storage pool deletion succeeded."]


@command("pool show", "Lists the storage pools.", changes=False)
async def show(session: Session) -> Lines:
    admission = session.control.lifecycle.admission
    spaces = admission.spaces(await admission.look())
    rows = [
        (
            pool.name,
            "true" if pool.name == DEFAULT else "false",
            "1",
            str(spaces[pool.id].volumes),
            session.size(spaces[pool.id].capacity_bytes, "down"),
            session.size(spaces[pool.id].free_bytes, "down"),
        )
        for pool in session.control.pools.all()
    ]
    return table(COLUMNS, rows)


@command("pool show <pool>", "Shows a storage pool.", changes=False)
async def show_one(session: Session, pool: StoragePool) -> Lines:
    return await _detail(session, pool)


@command("pool select <pool> show", "Shows the storage pool.", changes=False)
async def select_show(session: Session, pool: StoragePool) -> Lines:
    return await _detail(session, pool)


@command("pool select <pool> description <description:text>", "Says what the storage pool is for.")
async def description(session: Session, pool: StoragePool, description: str) -> Lines:
    session.control.pools.change(pool.id, description=description)
    return []


@command("pool select <pool> capacity <capacity>", "Sets the space that is set aside for the storage pool.")
async def capacity(session: Session, pool: StoragePool, capacity: int) -> Lines:
    if pool.name == DEFAULT:
        raise Conflict(f"Storage pool {DEFAULT} has what the others leave.")
    admission = session.control.lifecycle.admission
    disk = await admission.look()
    space = admission.spaces(disk)[pool.id]
    if capacity < space.needed_bytes:
        needed = format_size(space.needed_bytes, rounding="up")
        raise Conflict(f"The volumes of storage pool {pool.name} need {needed}.")
    held = space.needed_bytes if pool.capacity_bytes is None else pool.capacity_bytes
    admission.need_shared(disk, max(0, capacity - held))
    session.control.pools.change(pool.id, capacity_bytes=capacity)
    await session.control.data_plane.push_pools()
    return []


@command("pool select <pool> space-warn <percent>", "Sets the used share of its space that gives a warning.")
async def space_warn(session: Session, pool: StoragePool, percent: int) -> Lines:
    session.control.pools.change(pool.id, warn_percent=percent)
    return []


async def _detail(session: Session, pool: StoragePool) -> Lines:
    """The first four lines are what clients look for."""
    control = session.control
    admission = control.lifecycle.admission
    space = admission.spaces(await admission.look())[pool.id]
    volumes = [volume for volume in control.volumes.all() if volume.pool_id == pool.id]
    values = [
        ("Name", pool.name),
        ("Default", "true" if pool.name == DEFAULT else "false"),
        ("TotalVolumes", str(space.volumes)),
        ("VolumeReportedSpace", session.size(space.reported_bytes)),
        ("TotalCapacity", session.size(space.capacity_bytes, "down")),
        ("FreeSpace", session.size(space.free_bytes, "down")),
        ("VolumeReserve", session.size(space.reserved_bytes, "up")),
        ("SpaceInUse", session.size(space.used_bytes, "up")),
        ("Space-Warn", f"{pool.warn_percent}%"),
        ("Description", pool.description),
    ]
    lines = [title("Pool Information"), *pairs(values, session.settings.formatoutput), title("Volumes")]
    rows = [
        (one.name, session.size(one.asked_bytes), "online" if control.is_served(one) else "offline") for one in volumes
    ]
    return [*lines, *table(VOLUME_COLUMNS, rows), rule()]


COMMANDS: list[Command] = [create, delete, show, show_one, select_show, description, capacity, space_warn]
