"""Snapshots and collections of a fake group: what they are, and what their commands do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.seams.array_cli_client.fake_words import Refused, Unknown, permission, shape, status, table

if TYPE_CHECKING:
    from tests.seams.array_cli_client.fake_state import State, Volume

PER_VOLUME_MOST = 512
PER_COLLECTION_MOST = 8


@dataclass
class Snapshot:
    name: str
    size_mb: int
    target: str
    created: str
    description: str = ""
    online: bool = False
    read_only: bool = False
    multihost: bool = False
    connections: int = 0
    draining: int = 0
    collection: str = ""  # the snapshot collection that it is of
    content: str = ""


@dataclass
class Collection:
    volumes: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)  # its snapshot collections


class SnapshotCommands:
    def __init__(self, state: Callable[[], State], size: Callable[[int], str]) -> None:
        self._state = state
        self._size = size

    def of_volume(self, volume: Volume, words: list[str]) -> list[str]:
        """``volume select V snapshot ...``"""
        match words:
            case ["show"]:
                rows = [[s.name, permission(s), status(s), str(s.connections)] for s in volume.snapshots.values()]
                columns = [("Name", 30), ("Permission", 10), ("Status", 7), ("Connections", 11)]
                return table(columns, rows)
            case ["create-now"]:
                return self._told(self.make(volume))
            case ["create-now", "description", text]:
                return self._told(self.make(volume, description=text))
            case ["rename", old, new]:
                return self._rename(volume, self._find(volume, old), new)
            case ["delete", name]:
                if self._find(volume, name).online:
                    raise Refused(f"Snapshot {name} is online. Set it offline before you delete it.")
                del volume.snapshots[name]
                return ["Snapshot deletion succeeded."]
            case ["select", name, "show"]:
                return self._detail(volume, self._find(volume, name))
        raise Unknown(" ".join(words))

    def _find(self, volume: Volume, name: str) -> Snapshot:
        if name not in volume.snapshots:
            raise Refused(f"Snapshot {name} does not exist.")
        return volume.snapshots[name]

    def make(self, volume: Volume, description: str = "", collection: str = "") -> Snapshot:
        if len(volume.snapshots) >= PER_VOLUME_MOST:
            raise Refused(f"Volume {volume.name} has {PER_VOLUME_MOST} snapshots, which is the most that it can have.")
        state = self._state()
        state.made += 1
        created = f"2023-11-21 01:{state.made // 60 % 60:02d}:{state.made % 60:02d}"
        name = f"{volume.name}-{created.replace(' ', '-')}.1"
        target = f"iqn.2001-05.com.equallogic:0-8a0906-{state.made:08x}c-067000000b4532c1-{name}"
        made = Snapshot(name, volume.size_mb, target, created, description, collection=collection)
        made.content = volume.content
        volume.snapshots[name] = made
        return made

    def _told(self, made: Snapshot) -> list[str]:
        return ["Snapshot creation succeeded.", f"Snapshot name is {made.name}"]

    def _rename(self, volume: Volume, snapshot: Snapshot, new: str) -> list[str]:
        if new in volume.snapshots:
            raise Refused(f"Snapshot {new} already exists.")
        volume.snapshots = {new if name == snapshot.name else name: one for name, one in volume.snapshots.items()}
        snapshot.name = new
        return []

    def restore(self, volume: Volume, snapshot: Snapshot) -> list[str]:
        if volume.online:
            raise Refused(f"Volume {volume.name} is online. Set it offline before you restore it.")
        self.make(volume)
        volume.size_mb, volume.content = snapshot.size_mb, snapshot.content
        return []

    def _detail(self, volume: Volume, snapshot: Snapshot) -> list[str]:
        if not snapshot.online and snapshot.draining == 0:
            snapshot.connections = 0
        snapshot.draining = max(0, snapshot.draining - 1)
        return shape(
            "snapshot_detail",
            name=snapshot.name,
            volume=volume.name,
            size=self._size(snapshot.size_mb),
            created=snapshot.created,
            permission=permission(snapshot),
            status=status(snapshot),
            connections=snapshot.connections,
            description=snapshot.description,
            target=snapshot.target,
            multihost="enabled" if snapshot.multihost else "disabled",
            collection=snapshot.collection,
        )

    def of_collections(self, words: list[str]) -> list[str]:
        """``collection ...``"""
        collections, volumes = self._state().collections, self._state().volumes
        match words:
            case ["show"]:
                rows = [[n, str(len(c.volumes)), str(len(c.made)), "0"] for n, c in collections.items()]
                return table([("Name", 30), ("Volumes", 7), ("Snapshots", 9), ("Schedules", 9)], rows)
            case ["create", name]:
                if name in collections:
                    raise Refused(f"Collection {name} already exists.")
                collections[name] = Collection()
                return ["Collection creation succeeded."]
            case [_, name, *_] if name not in collections:
                raise Refused(f"Collection {name} does not exist.")
            case ["delete", name]:
                del collections[name]
                return ["Collection deletion succeeded."]
            case ["select", name, "add", volume]:
                if volume not in volumes:
                    raise Refused(f"Volume {volume} does not exist.")
                self._add(collections[name], volume)
                return []
            case ["select", name, "snapshot", *rest]:
                return self._together(name, collections[name], rest)
        raise Unknown(" ".join(words))

    def _add(self, collection: Collection, volume: str) -> None:
        if volume in collection.volumes:
            return
        if len(collection.volumes) >= PER_COLLECTION_MOST:
            raise Refused(f"A collection can have {PER_COLLECTION_MOST} volumes at most.")
        collection.volumes.append(volume)

    def _together(self, name: str, collection: Collection, words: list[str]) -> list[str]:
        volumes = self._state().volumes
        match words:
            case ["create-now"]:
                label = f"{name}-{len(collection.made) + 1}"
                for volume in collection.volumes:
                    self.make(volumes[volume], collection=label)
                collection.made.append(label)
                return ["Snapshot collection creation succeeded.", f"Snapshot collection name is {label}"]
            case ["show"]:
                rows = [[label, str(len(collection.volumes)), "2023-11-21 01:55:08"] for label in collection.made]
                return table([("Name", 30), ("Snapshots", 9), ("CreationTime", 19)], rows)
            case ["show", label]:
                rows = [
                    [volume.name, snapshot.name, status(snapshot)]
                    for volume in volumes.values()
                    for snapshot in volume.snapshots.values()
                    if snapshot.collection == label
                ]
                return table([("Volume", 15), ("Snapshot", 30), ("Status", 7)], rows)
        raise Unknown(" ".join(words))
