"""How volumes look: the table and the detail view, in the order and shape that clients count lines in."""

from collections import Counter

from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.model.records import AccessRecord, Snapshot, Volume
from gespann.array.model.space import min_reserve, reserve, snapshot_reserve
from gespann.seams.engine_socket import Session as IscsiSession
from gespann.seams.json_lines import SeamError

VOLUME_COLUMNS = (
    ("Name", 15),
    ("Size", 10),
    ("Snapshots", 9),
    ("Status", 7),
    ("Permission", 10),
    ("Connections", 11),
    ("TP", 1),
)
ACCESS_COLUMNS = (
    ("ID", 3),
    ("Initiator", 29),
    ("Ipaddress", 15),
    ("AuthMethod", 10),
    ("UserName", 10),
    ("Apply-To", 8),
)
# Clients count lines to know how many connections there are: a line each, so the one long cell comes last and is whole.
CONNECTION_COLUMNS = (("Ipaddress", 15), ("ConnTime", 10), ("Read", 8), ("Written", 8), ("Initiator", 29))


def status(session: Session, volume: Volume | Snapshot) -> str:
    return "online" if session.control.is_served(volume) else "offline"


def permission(volume: Volume | Snapshot) -> str:
    return "read-only" if volume.read_only else "read-write"


async def connection_counts(session: Session) -> dict[str, int]:
    """By NAA, for those that have any."""
    return Counter(one.volume for one in await session.control.sessions())


async def volume_table(session: Session) -> list[str]:
    connections, snapshots = await connection_counts(session), session.control.snapshots.counts()
    rows = [
        (
            volume.name,
            session.size(volume.asked_bytes),
            str(snapshots.get(volume.id, 0)),
            status(session, volume),
            permission(volume),
            str(connections.get(volume.naa, 0)),
            "Y" if volume.thin else "N",
        )
        for volume in session.control.volumes.all()
    ]
    return table(VOLUME_COLUMNS, rows)


def access_table(records: list[AccessRecord]) -> list[str]:
    rows = [
        (str(one.number), one.initiator, one.address, one.auth_method, one.chap_user, one.apply_to) for one in records
    ]
    return table(ACCESS_COLUMNS, rows)


def connection_table(session: Session, sessions: list[IscsiSession]) -> list[str]:
    rows = [
        (
            one.address,
            _duration(one.connected_ms // 1000),
            session.size(one.read_bytes),
            session.size(one.written_bytes),
            one.initiator,
        )
        for one in sessions
    ]
    return table(CONNECTION_COLUMNS, rows, last_is_whole=True)


def _duration(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


async def volume_detail(session: Session, volume: Volume) -> list[str]:
    control = session.control
    sessions = await control.sessions(volume) if volume.naa in control.data_plane.present else []
    info = (await control.inventory()).get(volume.naa)
    allocated = info.allocated_bytes if info else 0
    two = session.settings.formatoutput
    lines = [title("Volume Information")]
    lines += pairs(_information(session, volume, allocated, len(sessions), await _held(session, volume)), two)
    lines.append(title("Access Records"))
    lines += access_table(control.access.of(volume.id))
    lines.append(title("Connections"))
    lines += connection_table(session, sessions)
    lines.append(rule())
    return lines


async def _held(session: Session, volume: Volume) -> int | None:
    try:
        return await session.control.snapshot_watch.held_bytes(volume)
    except SeamError:
        return None


def _information(
    session: Session, volume: Volume, allocated: int, connections: int, held: int | None
) -> list[tuple[str, str]]:
    reserved = reserve(volume, allocated)
    values = [
        ("Name", volume.name),
        ("Size", session.size(volume.asked_bytes)),
        ("VolReserve", session.size(reserved)),
        ("VolReserveInUse", session.size(allocated, "up")),
        ("ReplReserveInUse", session.size(0)),
        ("iSCSI Alias", volume.alias),
        ("iSCSI Name", volume.target_name),
        ("ActualMembers", "1"),
        ("Snap-Warn", f"{volume.snap_warn}%"),
        ("Snap-Depletion", volume.snap_depletion),
        ("Description", volume.description),
        ("Snap-Reserve", f"{volume.snap_reserve}%"),
        ("Snap-Reserve-Avail", _available(session, snapshot_reserve(volume, allocated), held)),
        ("Permission", permission(volume)),
        ("DesiredStatus", "online" if volume.online else "offline"),
        ("Status", status(session, volume)),
        ("Connections", str(connections)),
        ("Snapshots", str(len(session.control.snapshots.of(volume.id)))),
        ("Bind", ""),
        ("Type", "not-replicated"),
        ("ReplicationReserveSpace", session.size(0)),
        ("Pool", session.control.pools.by_id(volume.pool_id).name),
        ("MultiHostAccess", "enabled" if volume.multihost else "disabled"),
        ("Sector-Size", str(volume.block_size)),
        ("Thin-Provision", "enabled" if volume.thin else "disabled"),
    ]
    return values + (_thin_information(session, volume) if volume.thin else []) + _template_information(session, volume)


def _template_information(session: Session, volume: Volume) -> list[tuple[str, str]]:
    """Only where there is something to tell: most volumes have nothing to do with templates."""
    if volume.template:
        return [("Template", "Y"), ("Thin-Clones", str(len(session.control.volumes.thin_clones(volume.id))))]
    if volume.thin_clone_of is None:
        return []
    template = session.control.volumes.row(volume.thin_clone_of)
    return [("Thin-Clone", "Y"), ("Template-Volume", template.name if template else "")]


def _available(session: Session, reserve_bytes: int, held_bytes: int | None) -> str:
    """``held_bytes`` none: the data plane could not say."""
    if held_bytes is None:
        return "unknown"
    free_bytes = max(0, reserve_bytes - held_bytes)
    return f"{free_bytes * 100 // max(1, reserve_bytes)}% ({session.size(free_bytes, 'down')})"


def _thin_information(session: Session, volume: Volume) -> list[tuple[str, str]]:
    def share(percent: int) -> str:
        return f"{percent}% ({session.size(volume.size_bytes * percent // 100)})"

    return [
        ("Thin-Min-Reserve", f"{volume.thin_min_reserve}% ({session.size(min_reserve(volume))})"),
        ("Thin-Growth-Warn", share(volume.thin_growth_warn)),
        ("Thin-Growth-Max", share(volume.thin_growth_max)),
        ("Thin-Warn-Mode", volume.thin_warn_mode),
    ]
