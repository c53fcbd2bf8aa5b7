"""What is asked of the control socket while writers write, and what must be true when the engine dies half-way.

Each is a generator of requests; ``after_crash`` looks at the volumes that the next engine has, and settles whether the
request was done or not: nothing between is legal.
"""

import random
from collections.abc import Generator
from typing import Any, Protocol

from gespann.seams.engine_socket import (
    Access,
    Request,
    SharePair,
    Target,
    TargetPut,
    TargetRemove,
    VolumeClone,
    VolumeDelete,
    VolumeInfo,
    VolumeResize,
    VolumeRollback,
    VolumeSnapshot,
)
from tests.fault.engine.disks import BLOCK, Clock, Disk, Instant, Lost, Window

Steps = Generator[Request | None, Any, None]  # None: wait, and ask me again
LEAST_BYTES, MOST_BYTES = 1 << 19, 5 << 20


class Place(Protocol):
    """Where the disks are."""

    disks: dict[str, Disk]
    clock: Clock

    def new_disk(self, size_bytes: int) -> Disk: ...


class Operation(Protocol):
    claimed: list[Disk]

    def steps(self) -> Steps: ...

    def after_crash(self, listed: dict[str, VolumeInfo]) -> bool:
        """True: it was done."""
        ...

    def repeated(self) -> Request | None:
        """The request that the client sends again since it got no answer."""
        ...


def target_of(disk: Disk) -> Target:
    return Target(volume=disk.volume, name=disk.iqn, online=True, access=[Access()])


class Snapshot:
    """Copies of disks that are being written: all of one moment between request and answer, and all or none."""

    def __init__(self, place: Place, sources: list[Disk]) -> None:
        self.place = place
        self.pairs = [(source, place.new_disk(source.size_bytes)) for source in sources]
        self.claimed = [disk for pair in self.pairs for disk in pair]
        self.asked = False

    def request(self) -> Request:
        pairs = [SharePair(source=source.volume, volume=copy.volume) for source, copy in self.pairs]
        return VolumeSnapshot(pairs=pairs)

    def infos(self, answer: Any) -> list[VolumeInfo]:
        return list(answer.volumes)

    def _open(self) -> None:
        self.asked = True
        instant = Instant()
        for source, copy in self.pairs:
            copy.window = source.open_window(instant)

    def _done(self) -> None:
        for source, copy in self.pairs:
            source.windows.clear()
            self.place.disks[copy.volume] = copy

    def steps(self) -> Steps:
        self._open()
        answer = yield self.request()
        for (source, copy), info in zip(self.pairs, self.infos(answer), strict=True):
            if (info.volume, info.size_bytes) != (copy.volume, source.size_bytes):
                raise Lost(f"the copy of {source.name} is {info}")
        self._done()
        for _, copy in self.pairs:
            yield TargetPut(target=target_of(copy))

    def after_crash(self, listed: dict[str, VolumeInfo]) -> bool:
        there = [copy.volume in listed for _, copy in self.pairs]
        if any(there) and not all(there):
            raise Lost(f"of the copies {[copy.name for _, copy in self.pairs]} only some are there: {there}")
        if all(there):
            self._done()
        for source, _ in self.pairs:
            source.windows.clear()
        return all(there)

    def repeated(self) -> Request | None:
        if not self.asked or any(source.volume not in self.place.disks for source, _ in self.pairs):
            return None
        if any(copy.volume not in self.place.disks for _, copy in self.pairs):
            self._open()  # not done: it is of now
            self._done()
        return self.request()


class Clone(Snapshot):
    """The same of one disk, by the other request."""

    def request(self) -> Request:
        source, copy = self.pairs[0]
        return VolumeClone(source=source.volume, volume=copy.volume)

    def infos(self, answer: Any) -> list[VolumeInfo]:
        return [answer]


class Rollback:
    """A disk that nobody uses gets the contents and the size of another one, which may be written meanwhile."""

    def __init__(self, place: Place, disk: Disk, source: Disk) -> None:
        self.place = place
        self.disk = disk
        self.source = source
        self.claimed = [disk, source]
        self.window: Window | None = None

    def steps(self) -> Steps:
        yield TargetRemove(volume=self.disk.volume)
        self.window = self.source.open_window(Instant())
        info = yield VolumeRollback(volume=self.disk.volume, source=self.source.volume)
        if info.size_bytes != self.source.size_bytes:
            raise Lost(f"{self.disk.name} was rolled back to {info.size_bytes} bytes, not {self.source.size_bytes}")
        self.source.windows.clear()
        self.disk.replace(self.window)
        yield TargetPut(target=target_of(self.disk))

    def after_crash(self, listed: dict[str, VolumeInfo]) -> bool:
        self.source.windows.clear()
        if self.window is None or self.disk.window is self.window:
            return self.window is not None
        if listed[self.disk.volume].size_bytes != self.disk.size_bytes:
            self.disk.replace(self.window)
        else:
            self.disk.maybe = self.window  # its contents will tell
        return self.disk.window is self.window

    def repeated(self) -> Request | None:
        return None


class Delete:
    def __init__(self, place: Place, disk: Disk) -> None:
        self.place = place
        self.disk = disk
        self.claimed = [disk]
        self.asked = False

    def steps(self) -> Steps:
        yield TargetRemove(volume=self.disk.volume)
        self.asked = True
        yield VolumeDelete(volume=self.disk.volume)
        del self.place.disks[self.disk.volume]

    def after_crash(self, listed: dict[str, VolumeInfo]) -> bool:
        gone = self.disk.volume not in listed
        if gone and self.asked:
            self.place.disks.pop(self.disk.volume, None)
        return gone

    def repeated(self) -> Request | None:
        return VolumeDelete(volume=self.disk.volume) if self.disk.volume not in self.place.disks else None


class Resize:
    """Larger: what is new reads as zeroes, also where there was something before it was smaller."""

    def __init__(self, disk: Disk, chance: random.Random) -> None:
        self.disk = disk
        self.claimed = [disk]
        self.size_bytes = chance.randrange(LEAST_BYTES, MOST_BYTES, BLOCK)

    def steps(self) -> Steps:
        limit = min(self.size_bytes, self.disk.size_bytes) // BLOCK
        self.disk.limit_blocks = limit
        while any(block >= limit for block in [*self.disk.pending, *self.disk.reading]):
            yield None
        info = yield VolumeResize(volume=self.disk.volume, size_bytes=self.size_bytes)
        if info.size_bytes != self.size_bytes:
            raise Lost(f"{self.disk.name} was resized to {info.size_bytes} bytes, not {self.size_bytes}")
        self.disk.resize(self.size_bytes)

    def after_crash(self, listed: dict[str, VolumeInfo]) -> bool:
        done = listed[self.disk.volume].size_bytes == self.size_bytes
        self.disk.resize(self.size_bytes if done else self.disk.size_bytes)
        return done

    def repeated(self) -> Request | None:
        return None
