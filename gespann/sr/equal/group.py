"""A group as typed questions and commands: lines out, records in. No decisions here.

Every method may raise ``errors.CliRefusal`` (the group said no) or SrError (it could not be asked, or said something
that no group says)."""

from dataclasses import dataclass

from gespann.seams.sr_driver import Changes, SrError
from gespann.sr.equal import errors, output, words
from gespann.sr.equal.connection import GroupConnection
from gespann.sr.equal.words import Door, Line


@dataclass(frozen=True)
class ListedVolume:
    name: str
    size_bytes: int
    snapshots: int = 0


@dataclass(frozen=True)
class ArrayVolume:
    name: str
    size_bytes: int
    reserve_bytes: int  # what it takes from the storage pool
    target: str
    description: str
    online: bool
    connections: int
    read_only: bool
    storage_pool: str  # empty: the firmware does not say
    thin: bool
    multihost_access: bool | None  # none: the firmware does not say
    snap_reserve_percent: str
    snap_depletion: str
    snapshots: int = 0


@dataclass(frozen=True)
class ArraySnapshot:
    name: str
    size_bytes: int
    target: str
    description: str
    online: bool
    connections: int
    read_only: bool
    multihost_access: bool | None
    created: str  # "2010-02-16 09:30:00", by the array's clock; empty: the firmware does not say
    by_schedule: bool  # or as one of a collection


@dataclass(frozen=True)
class AccessRecord:
    id: str
    initiator: str
    chap_user: str
    apply_to: str = "both"  # volume | snapshot | both


@dataclass(frozen=True)
class StoragePool:
    name: str
    default: bool
    members: int
    volumes: int
    capacity_bytes: int
    free_bytes: int


class Group:
    def __init__(self, connection: GroupConnection) -> None:
        self.connection = connection

    async def volumes(self) -> list[ListedVolume]:
        rows = await self._table(words.volume_list(), "name")
        return [
            ListedVolume(
                name=row["name"],
                size_bytes=output.volume_size_bytes(row.get("size", "0MB")),
                snapshots=int(row.get("snapshots") or 0),
            )
            for row in rows
        ]

    async def volume(self, name: str) -> ArrayVolume | None:
        line = words.volume_show(name)
        said = await self._detail(line)
        try:
            return None if said is None else _volume(name, said)
        except (output.NotThere, KeyError, ValueError) as failure:
            raise _unintelligible(line, str(failure)) from None

    async def snapshot(self, volume: str, name: str) -> ArraySnapshot | None:
        line = words.door_show(Door(volume, name))
        said = await self._detail(line)
        try:
            return None if said is None else _snapshot(name, said)
        except (output.NotThere, KeyError, ValueError) as failure:
            raise _unintelligible(line, str(failure)) from None

    async def look(self, door: Door) -> ArrayVolume | ArraySnapshot | None:
        return await (self.snapshot(door.volume, door.snapshot) if door.snapshot else self.volume(door.volume))

    async def _detail(self, line: Line) -> dict[str, str] | None:
        try:
            return output.detail((await self.connection.run(line)).lines)
        except errors.CliRefusal as refusal:
            if refusal.missing:
                return None
            raise

    async def snapshots(self, volume: str) -> list[str]:
        """Their names, in the array's order; none when there is no such volume."""
        try:
            return [row["name"] for row in await self._table(words.snapshot_list(volume), "name")]
        except errors.CliRefusal as refusal:
            if refusal.missing:
                return []
            raise

    async def changes(self, volume: str, older: str, newer: str, offset: int) -> Changes | None:
        """None: this group does not know the command."""
        line = words.changes(volume, older, newer, offset)
        try:
            lines = (await self.connection.run(line)).lines
        except errors.CliRefusal as refusal:
            if refusal.missing or "data plane" in refusal.text:
                raise
            return None
        try:
            return output.changes(lines, offset)
        except (output.NotThere, KeyError, ValueError) as failure:
            raise _unintelligible(line, str(failure)) from None

    async def warnings(self, after: int | None) -> list[tuple[int, str]] | None:
        """(number, text). None: this group does not know the command."""
        try:
            return output.events((await self.connection.run(words.warnings(after))).lines)
        except errors.CliRefusal:
            return None

    async def collections(self) -> list[str]:
        return [row["name"] for row in await self._table(words.collection_list(), "name")]

    async def collection_snapshots(self, name: str) -> list[str]:
        return [row["name"] for row in await self._table(words.collection_snapshots(name), "name")]

    async def collection_members(self, name: str, snapshot_collection: str) -> dict[str, str]:
        """Volume -> its snapshot of that instant."""
        rows = await self._table(words.collection_members(name, snapshot_collection), "volume")
        return {row["volume"]: row["snapshot"] for row in rows}

    async def run(self, line: Line) -> None:
        await self.connection.run(line)

    async def run_unless_missing(self, line: Line) -> None:
        """For deletions, which may find their work done."""
        try:
            await self.connection.run(line)
        except errors.CliRefusal as refusal:
            if not refusal.missing:
                raise

    async def access_records(self, name: str) -> list[AccessRecord]:
        rows = await self._table(words.access_list(name), "id")
        return [
            AccessRecord(row["id"], row.get("initiator", ""), row.get("username", ""), row.get("apply-to") or "both")
            for row in rows
        ]

    async def connected_initiators(self, name: str) -> list[str] | None:
        """Who has a connection to the volume, one entry each. None: this group does not tell names."""
        try:
            reply = await self.connection.run(words.connection_list(name))
        except errors.CliRefusal:
            return None
        found = [row.get("initiator", "") for row in output.table(reply.lines)]
        return found if all(found) else None

    async def has_chap_user(self, user: str) -> bool:
        try:
            await self.connection.run(words.chap_user_show(user))
        except errors.CliRefusal as refusal:
            if refusal.missing:
                return False
            raise
        return True

    async def storage_pools(self) -> list[StoragePool]:
        rows = await self._table(words.storage_pool_list(), "name")
        try:
            return [_storage_pool(row) for row in rows]
        except (output.NotThere, KeyError, ValueError) as failure:
            raise _unintelligible(words.storage_pool_list(), str(failure)) from None

    async def space(self, storage_pool: str) -> tuple[int, int]:
        """(capacity, free) in bytes; CliRefusal when there is no such storage pool."""
        line = words.storage_pool_show(storage_pool)
        said = output.detail((await self.connection.run(line)).lines)
        try:
            return output.size_bytes(said["TotalCapacity"]), output.size_bytes(said["FreeSpace"])
        except (output.NotThere, KeyError) as failure:
            raise _unintelligible(line, str(failure)) from None

    async def firmware(self) -> tuple[int, int] | None:
        """The oldest of its members."""
        rows = await self._table(words.member_list(), "name")
        versions = [found for row in rows if (found := output.version(row.get("version", "")))]
        return min(versions, default=None)

    async def data_address(self) -> str:
        """Where the volumes' targets are discovered and logged into; empty when the group does not say."""
        said = output.detail((await self.connection.run(words.group_show())).lines)
        address = said.get("Group-Ipaddress", "")
        return "" if address == "0.0.0.0" else address  # noqa: S104 - not bound, only compared: none set yet

    async def _table(self, line: Line, first_column: str) -> list[dict[str, str]]:
        reply = await self.connection.run(line)
        rows = output.table(reply.lines)
        if rows and first_column not in rows[0]:
            raise _unintelligible(line, f"a table without a column {first_column}")
        return rows


def _volume(name: str, said: dict[str, str]) -> ArrayVolume:
    multihost = said.get("MultiHostAccess")
    return ArrayVolume(
        name=name,
        size_bytes=output.volume_size_bytes(said["Size"]),
        reserve_bytes=output.size_bytes(said.get("VolReserve", said["Size"])),
        target=said["iSCSI Name"],
        description=said.get("Description", ""),
        online=said["Status"].startswith("online"),
        connections=int(said["Connections"]),
        read_only=said.get("Permission", "read-write") == "read-only",
        storage_pool=said.get("Pool", ""),
        thin=said.get("Thin-Provision", "disabled") == "enabled",
        multihost_access=None if multihost is None else multihost == "enabled",
        snap_reserve_percent=said.get("Snap-Reserve", "").rstrip("%"),
        snap_depletion=said.get("Snap-Depletion", ""),
        snapshots=int(said.get("Snapshots") or 0),
    )


def _snapshot(name: str, said: dict[str, str]) -> ArraySnapshot:
    multihost = said.get("MultiHostAccess")
    return ArraySnapshot(
        name=name,
        size_bytes=output.volume_size_bytes(said["Size"]),
        target=said["iSCSI Name"],
        description=said.get("Description", ""),
        online=said["Status"].startswith("online"),
        connections=int(said["Connections"]),
        read_only=said.get("Permission", "read-write") == "read-only",
        multihost_access=None if multihost is None else multihost == "enabled",
        created=said.get("CreationTime", ""),
        by_schedule=bool(said.get("Schedule") or said.get("SnapCollection")),
    )


def _storage_pool(row: dict[str, str]) -> StoragePool:
    return StoragePool(
        name=row["name"],
        default=row.get("default", "").lower() in ("true", "yes"),
        members=int(row.get("members") or 0),
        volumes=int(row.get("volumes") or 0),
        capacity_bytes=output.size_bytes(row["capacity"]),
        free_bytes=output.size_bytes(row["freespace"]),
    )


def _unintelligible(line: Line, why: str) -> SrError:
    return SrError(errors.UNINTELLIGIBLE, "The array's answer cannot be read", f"{line.public}: {why}")
