"""What a fake group holds, and what its commands do to it. Texts are those of reference clients and transcripts; where
no text is known, any is as good as another, and the client must not depend on it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.seams.array_cli_client.fake_snapshots import Collection, Snapshot, SnapshotCommands
from tests.seams.array_cli_client.fake_words import Refused, Unknown, permission, shape, status, table

PAGE_MB = 15


@dataclass
class Record:
    initiator: str
    chap_user: str
    apply_to: str = "volume"


@dataclass
class Volume:
    name: str
    size_mb: int
    pool: str
    target: str
    description: str = ""
    online: bool = True
    thin: bool = False
    read_only: bool = False
    multihost: bool = False
    snap_reserve: int = 100
    snap_depletion: str = "delete-oldest"
    connections: int = 0
    draining: int = 0  # how many more looks at it still show connections after it went offline
    records: dict[int, Record] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    content: str = ""  # in place of blocks
    lease: str = ""  # the initiator that may write

    @property
    def reserve_mb(self) -> int:
        real = -(-self.size_mb // PAGE_MB) * PAGE_MB
        return -(-real // 10) if self.thin else real


@dataclass
class State:
    group: str = "EQGroup01"
    address: str = "127.0.0.1"
    firmware: str = "V4.3.5 (R115269)"
    pools: dict[str, int] = field(default_factory=lambda: {"default": 1024 * 1024, "fast_sas": 300 * 1024})
    volumes: dict[str, Volume] = field(default_factory=dict)
    chap_users: dict[str, str] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    leases: bool = False  # a group of ours; a PS group has none
    made: int = 0
    slow_drain: int = 0

    def copy(self) -> "State":
        return copy.deepcopy(self)

    def shown(self) -> dict[str, object]:
        """What counts when two states are compared: target names and times are made afresh each time."""

        def plain(target: Any) -> dict[str, object]:
            return {**vars(target), "target": "", "draining": 0, "created": "", "collection": ""}

        volumes = {
            name: {**plain(v), "snapshots": {label: plain(s) for label, s in sorted(v.snapshots.items())}}
            for name, v in self.volumes.items()
        }
        return {
            "volumes": volumes,
            "chap_users": dict(self.chap_users),
            "collections": {name: vars(one) for name, one in self.collections.items()},
        }

    def free_mb(self, pool: str) -> int:
        return self.pools[pool] - sum(v.reserve_mb for v in self.volumes.values() if v.pool == pool)

    def login(self, target: str, initiator: str, chap_user: str, secret: str) -> bool:
        """Would the target let this initiator in?"""
        doors: list[tuple[Volume, Volume | Snapshot, str]] = [(v, v, "volume") for v in self.volumes.values()]
        doors += [(v, s, "snapshot") for v in self.volumes.values() for s in v.snapshots.values()]
        for volume, door, kind in doors:
            if door.target != target or not door.online or self.chap_users.get(chap_user) != secret:
                continue
            wanted = (initiator, chap_user)
            admitted = any((r.initiator, r.chap_user) == wanted and r.apply_to == kind for r in volume.records.values())
            door.connections += admitted
            return admitted
        return False

    def connections(self) -> int:
        doors = [*self.volumes.values(), *(s for v in self.volumes.values() for s in v.snapshots.values())]
        return sum(door.connections for door in doors if door.online or door.draining)


class Commands:
    """``words`` in, lines out; ``Refused`` or ``Unknown`` otherwise."""

    def __init__(self, state: Callable[[], State], account: str, in_mb: Callable[[], bool]) -> None:
        self._state = state
        self._account = account
        self._in_mb = in_mb
        self._snapshots = SnapshotCommands(state, self.size)

    @property
    def state(self) -> State:
        return self._state()

    def run(self, words: list[str]) -> list[str]:
        match words:
            case ["whoami"]:
                return [self._account]
            case ["volume", "show"]:
                return self._volume_table()
            case ["volume", "create", name, size, *options]:
                return self._create(name, size, options)
            case ["volume", "delete", name]:
                return self._delete(name)
            case ["volume", "select", name, *rest]:
                return self._selected(self._volume(name), rest)
            case ["collection", *rest]:
                return self._snapshots.of_collections(rest)
            case ["chapuser", verb, name, *rest]:
                return self._chapuser(verb, name, rest)
            case ["pool", "show"]:
                return self._pool_table()
            case ["pool", "select", name, "show"]:
                return self._pool_detail(name)
            case ["member", "show"]:
                return self._member_table()
            case ["grpparams", "show"]:
                return shape("group_detail", name=self.state.group, address=self.state.address)
        raise Unknown(" ".join(words))

    def size(self, mb: int) -> str:
        if self._in_mb() or mb < 1024:
            return f"{mb}MB"
        unit, amount = ("GB", mb / 1024) if mb < 1024 * 1024 else ("TB", mb / 1024 / 1024)
        return f"{amount:.2f}".rstrip("0").rstrip(".") + unit

    def _volume(self, name: str) -> Volume:
        if name not in self.state.volumes:
            raise Refused(f"Volume {name} does not exist.")
        return self.state.volumes[name]

    def _create(self, name: str, size: str, options: list[str]) -> list[str]:
        volume = self._new(name, _mb(size), "default")
        rest = list(options)
        while rest:
            word = rest.pop(0)
            if word in ("pool", "description", "snap-reserve", "snap-depletion"):
                _set(volume, word, rest.pop(0))
            elif word in ("online", "offline"):
                volume.online = word == "online"
            elif word == "thin-provision":
                volume.thin = True
            else:
                raise Unknown(word)
        if volume.pool not in self.state.pools:
            raise Refused(f"Pool {volume.pool} does not exist.")
        return self._add(volume)

    def _new(self, name: str, size_mb: int, pool: str) -> Volume:
        if name in self.state.volumes:
            raise Refused(f"A volume named {name} already exists.")
        if len(name) > 63:
            raise Refused("Name too long.")
        self.state.made += 1
        target = f"iqn.2001-05.com.equallogic:0-8a0906-{self.state.made:08x}c-067000000b4532c1-{name}"
        return Volume(name, size_mb, pool, target)

    def _add(self, volume: Volume) -> list[str]:
        if volume.reserve_mb > self.state.free_mb(volume.pool):
            raise Refused(f"Insufficient free space in pool {volume.pool}.")
        self.state.volumes[volume.name] = volume
        return ["Volume creation succeeded.", f"iSCSI target name is {volume.target}."]

    def _delete(self, name: str) -> list[str]:
        if self._volume(name).online:
            raise Refused("The volume is online. Set it offline first.")
        if any(snapshot.online for snapshot in self._volume(name).snapshots.values()):
            raise Refused(f"Volume {name} has snapshots that are online. Set them offline before you delete it.")
        del self.state.volumes[name]
        return ["Volume deletion succeeded."]

    def _selected(self, volume: Volume, words: list[str]) -> list[str]:
        match words:
            case ["show"]:
                return self._volume_detail(volume)
            case ["snapshot", "select", name, *rest] if rest != ["show"]:
                return self._selected_snapshot(volume, name, rest)
            case ["snapshot", *rest]:
                return self._snapshots.of_volume(volume, rest)
            case ["online" | "offline" | "read-only" | "read-write" | "multihost-access", *_]:
                return self._opened(volume, words)
            case ["thin-provision"]:
                volume.thin = True
            case ["no", "thin-provision"]:
                volume.thin = False
            case ["description" | "snap-reserve" | "snap-depletion" as key, value]:
                _set(volume, key, value)
            case ["size", size, "no-snap"]:
                self._grow(volume, _mb(size))
            case ["clone", name, *options]:
                return self._clone(volume, name, options)
            case ["access", *rest]:
                return self._access(volume, rest)
            case ["lease", "grant", initiator, *rest] if self.state.leases:
                self._lease(volume, initiator, rest)
            case _:
                raise Unknown(" ".join(words))
        return []

    def _selected_snapshot(self, volume: Volume, name: str, words: list[str]) -> list[str]:
        if name not in volume.snapshots:
            raise Refused(f"Snapshot {name} does not exist.")
        snapshot = volume.snapshots[name]
        match words:
            case ["restore"]:
                return self._snapshots.restore(volume, snapshot)
            case ["description", text]:
                snapshot.description = text
                return []
            case ["clone", new, *options]:
                made = self._clone(volume, new, options)
                copied = self.state.volumes[new]
                copied.size_mb, copied.content, copied.read_only = snapshot.size_mb, snapshot.content, False
                return made
        return self._opened(snapshot, words)

    def _opened(self, target: Volume | Snapshot, words: list[str]) -> list[str]:
        match words:
            case ["online" | "offline" as wanted]:
                if wanted == "offline" and target.online:
                    target.draining = self.state.slow_drain if target.connections else 0
                target.online = wanted == "online"
            case ["read-only" | "read-write" as wanted]:
                target.read_only = wanted == "read-only"
            case ["multihost-access", "enable" | "disable" as wanted]:
                target.multihost = wanted == "enable"
            case _:
                raise Unknown(" ".join(words))
        return []

    def _grow(self, volume: Volume, size_mb: int) -> None:
        if size_mb < volume.size_mb:
            raise Refused("The new size is smaller than the volume. Use shrink.")
        if size_mb - volume.size_mb > self.state.free_mb(volume.pool):
            raise Refused(f"Insufficient free space in pool {volume.pool}.")
        volume.size_mb = size_mb

    def _clone(self, source: Volume, name: str, options: list[str]) -> list[str]:
        copied = self._new(name, source.size_mb, source.pool)
        copied.thin, copied.read_only, copied.online = source.thin, source.read_only, True
        copied.content = source.content
        rest = list(options)
        while rest:
            _set(copied, rest.pop(0), rest.pop(0))
        return self._add(copied)

    def _lease(self, volume: Volume, initiator: str, words: list[str]) -> None:
        if words[:1] == ["instead-of"] and volume.lease not in (words[1], initiator):
            raise Refused(
                f"The lease of volume {volume.name} is held by {volume.lease or 'nobody'}, not by {words[1]}."
            )
        if not any(record.initiator == initiator for record in volume.records.values()):
            raise Refused(f"No access control record of volume {volume.name} names {initiator}. Create it first.")
        volume.lease = initiator

    def _access(self, volume: Volume, words: list[str]) -> list[str]:
        match words:
            case ["show"]:
                rows = [
                    [str(n), r.initiator, "*.*.*.*", "chap" if r.chap_user else "none", r.chap_user, r.apply_to]
                    for n, r in sorted(volume.records.items())
                ]
                columns = [("ID", 3), ("Initiator", 29), ("Ipaddress", 15), ("AuthMethod", 10), ("UserName", 10)]
                return table([*columns, ("Apply-To", 8)], rows)
            case ["create", "initiator", initiator, "authmethod", "chap", "username", user, "apply-to", kind]:
                free = next((n for n in range(1, 17) if n not in volume.records), None)
                if free is None:
                    raise Refused("A volume can have 16 access control records at most.")
                volume.records[free] = Record(initiator, user, kind)
                return [f"Access control record creation succeeded. ID is {free}."]
            case ["delete", number]:
                if int(number) not in volume.records:
                    raise Refused(f"Access control record {number} does not exist.")
                del volume.records[int(number)]
                volume.lease = volume.lease if volume.online or volume.records else ""
                return []
        raise Unknown(" ".join(words))

    def _chapuser(self, verb: str, name: str, rest: list[str]) -> list[str]:
        users = self.state.chap_users
        if verb == "create" and rest[:1] == ["password"]:
            if name in users:
                raise Refused(f"CHAP user {name} already exists.")
            users[name] = rest[1]
            return ["CHAP user creation succeeded.", f"Password is {rest[1]}"]
        if name not in users:
            raise Refused(f"CHAP user {name} does not exist.")
        if verb == "show":
            return shape("chapuser_detail", name=name, password=users[name])
        if verb == "delete":
            del users[name]
            return ["CHAP user deletion succeeded."]
        raise Unknown(verb)

    def _volume_table(self) -> list[str]:
        rows = [
            [
                *(v.name, self.size(v.size_mb), str(len(v.snapshots)), status(v), permission(v), str(v.connections)),
                "Y" if v.thin else "N",
            ]
            for v in self.state.volumes.values()
        ]
        columns = [("Name", 15), ("Size", 10), ("Snapshots", 9), ("Status", 7), ("Permission", 10)]
        return table([*columns, ("Connections", 11), ("T", 1)], rows)

    def _volume_detail(self, volume: Volume) -> list[str]:
        if not volume.online and volume.draining == 0:
            volume.connections = 0
        volume.draining = max(0, volume.draining - 1)
        return shape(
            "volume_detail",
            name=volume.name,
            size=self.size(volume.size_mb),
            reserve=self.size(volume.reserve_mb),
            in_use=self.size(0),
            zero=self.size(0),
            target=volume.target,
            snap_depletion=volume.snap_depletion,
            snapshots=len(volume.snapshots),
            snap_reserve=volume.snap_reserve,
            description=volume.description,
            permission=permission(volume),
            status=status(volume),
            connections=volume.connections,
            pool=volume.pool,
            thin="enabled" if volume.thin else "disabled",
            multihost="enabled" if volume.multihost else "disabled",
        )

    def _pool_table(self) -> list[str]:
        rows = []
        for name, capacity in self.state.pools.items():
            volumes = sum(v.pool == name for v in self.state.volumes.values())
            default = "true" if name == "default" else "false"
            rows.append([name, default, "1", str(volumes), self.size(capacity), self.size(self.state.free_mb(name))])
        columns = [("Name", 20), ("Default", 7), ("Members", 7), ("Volumes", 7), ("Capacity", 10)]
        return table([*columns, ("FreeSpace", 10)], rows)

    def _pool_detail(self, name: str) -> list[str]:
        if name not in self.state.pools:
            raise Refused(f"Pool {name} does not exist.")
        inside = [v for v in self.state.volumes.values() if v.pool == name]
        return shape(
            "pool_detail",
            name=name,
            capacity=self.size(self.state.pools[name]),
            free=self.size(self.state.free_mb(name)),
            reported=self.size(sum(v.size_mb for v in inside)),
            volumes=len(inside),
        )

    def _member_table(self) -> list[str]:
        columns = [("Name", 10), ("Status", 7), ("Version", 16), ("Disks", 5), ("Capacity", 10), ("FreeSpace", 10)]
        capacity = self.size(sum(self.state.pools.values()))
        return table(columns, [["member01", "online", self.state.firmware, "16", capacity, capacity]])


def _mb(size: str) -> int:
    if not size.endswith("MB") or not size[:-2].isdigit():
        raise Refused(f"Invalid size {size}.")
    return int(size[:-2])


def _set(volume: Volume, key: str, value: str) -> None:
    if key == "pool":
        volume.pool = value
    elif key == "description":
        if len(value.encode()) > 128:
            raise Refused("Description too long.")
        volume.description = value
    elif key == "snap-reserve":
        volume.snap_reserve = int(value.rstrip("%"))
    elif key == "snap-depletion":
        if value not in ("delete-oldest", "volume-offline"):
            raise Unknown(value)
        volume.snap_depletion = value
    else:
        raise Unknown(key)
