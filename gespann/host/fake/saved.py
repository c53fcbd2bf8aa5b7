"""Memory of fake machines, written into the media that the fake storage holds, and read back.

As with the real one, what is being written is worthless until all of it is there, and memory takes its own size and a
little more: every page may be full.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from gespann.host.fake.guest import FakeDomain
from gespann.host.fake.nbd import FakeMedium
from gespann.host.fake.storage import FakeStorage, Source
from gespann.seams.host_agent import DomainSpec
from gespann.seams.json_lines import SeamError

MAGIC = b"FAKE MEMORY "
LENGTH_BYTES = 8
DEVICES_BYTES = 24 * 1024**2  # the state of devices, video memory among it
PAGE_BYTES, PAGE_HEADER_BYTES = 4096, 8  # QEMU's stream: a header for each page


def written_bytes(memory_bytes: int) -> int:
    """What a guest whose memory is nowhere zero takes."""
    return memory_bytes + memory_bytes // PAGE_BYTES * PAGE_HEADER_BYTES + DEVICES_BYTES


def write_memory(medium: FakeMedium, running: FakeDomain) -> None:
    data = msgspec.json.encode(running)
    medium.write(0, MAGIC + len(data).to_bytes(LENGTH_BYTES) + data)


def spoil(medium: FakeMedium) -> None:
    medium.zero(0, len(MAGIC))


def read_memory(medium: FakeMedium, spec: DomainSpec) -> FakeDomain:
    start = len(MAGIC) + LENGTH_BYTES
    head = medium.read(0, start)
    if head[: len(MAGIC)] != MAGIC:
        raise SeamError("STORAGE", "there is no memory of a machine in this volume")
    length = int.from_bytes(head[len(MAGIC) :])
    kept = msgspec.json.decode(medium.read(start, length), type=FakeDomain)
    wanted = (spec.uuid, {disk.device for disk in spec.disks}, {nic.device: nic.mac for nic in spec.nics})
    if (kept.domain.uuid, set(kept.serials), kept.macs) != wanted:
        raise SeamError("BAD_STATE", f"the memory is of {kept.domain.uuid} with other devices")
    return kept


class SavedMemory:
    """The volumes that are written or read now, and who wants that ended."""

    def __init__(self, storage: FakeStorage) -> None:
        self._storage = storage
        self._stops: dict[str, asyncio.Event] = {}
        self._times: dict[str, tuple[float, float]] = {}  # when it began, how long it takes
        self._overs: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def opened(self, image_id: str, source: Source, *, read_only: bool) -> AsyncIterator[FakeMedium]:
        if image_id in self._stops:
            raise SeamError("BAD_STATE", f"{image_id} is being worked on")
        self._stops[image_id], self._overs[image_id] = asyncio.Event(), asyncio.Event()
        holder = f"memory/{image_id}"
        try:
            await self._storage.open(holder, source, read_only)
            try:
                yield self._storage.medium(source)
            finally:
                await self._storage.close(holder)
        finally:
            del self._stops[image_id]
            self._times.pop(image_id, None)
            self._overs.pop(image_id).set()

    async def take(self, image_id: str, seconds: float) -> None:
        """The time that it takes; STORAGE if it is stopped meanwhile."""
        self._times[image_id] = time.monotonic(), seconds
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stops[image_id].wait(), seconds)
            raise SeamError("STORAGE", f"{image_id} was stopped")

    def progress(self, image_id: str) -> float:
        began_s, seconds = self._times.get(image_id, (0.0, 0.0))
        return min((time.monotonic() - began_s) / seconds, 1.0) if seconds else 0.0

    async def stop(self, image_id: str) -> None:
        if image_id in self._stops:
            over = self._overs[image_id]
            self._stops[image_id].set()
            await over.wait()
