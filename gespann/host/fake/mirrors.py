"""Disks of fake machines that move to other volumes. What a fake guest writes (``write``) lands in both while they are
in step, as with QEMU; a copy knows of earlier writes because it is made at its end."""

import asyncio
from copy import deepcopy
from dataclasses import dataclass, field

from gespann.host.fake.guest import FakeDomain
from gespann.host.fake.storage import FakeStorage, holder_of
from gespann.seams.host_agent import IscsiSource
from gespann.seams.host_mirror import MirrorTarget, opening_meant
from gespann.seams.json_lines import SeamError


@dataclass
class Copy:
    source: IscsiSource
    holder: str
    part_bytes: int = 0  # of a volume that is longer than the disk
    in_step: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)  # ended, in whichever way
    why: str = ""  # of one that has failed


class FakeMirrors:
    def __init__(self, storage: FakeStorage) -> None:
        self._storage = storage
        self._copies: dict[tuple[str, int], Copy] = {}
        self._parts: dict[str, int] = {}  # holder of a disk that is a part of a longer volume -> its length
        self.full: set[str] = set()  # targets that take nothing more

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._copies

    def keeps_its_size(self, running: FakeDomain, device: int) -> bool:
        return holder_of(running.domain, device) in self._parts

    async def take(
        self,
        running: FakeDomain,
        start_id: str,
        device: int,
        source: IscsiSource,
        volume_bytes: int,
        mirror_s: float,
    ) -> None:
        _need(running, start_id, device)
        key, to = (running.domain.uuid, device), opening_meant(source)
        if running.lead_to.get(device) == to:
            raise SeamError("BAD_STATE", f"disk {device} is that volume already")
        copy = self._copies.get(key)
        if copy is None:
            copy = Copy(source, f"{holder_of(running.domain, device)}/mirror")
            await self._storage.open(copy.holder, source, False)
            copy.part_bytes = self._part_of(running, device, source, volume_bytes)
            self._copies[key] = copy
        elif opening_meant(copy.source) != to:
            raise SeamError("BAD_STATE", f"disk {device} is being copied to {copy.source.target}")
        if not copy.in_step:
            await self._go_over(running, device, copy, mirror_s)

    def _part_of(self, running: FakeDomain, device: int, source: IscsiSource, volume_bytes: int) -> int:
        """0: all of it. As with QEMU, the two are of one length, or there is no copying."""
        now = self._storage.medium(_known(running, device)).size_bytes
        disk_bytes = self._parts.get(holder_of(running.domain, device), now)
        held_bytes = source.size_bytes or volume_bytes
        if held_bytes < disk_bytes:
            raise SeamError("STORAGE", f"{source.target} has {held_bytes} bytes, the disk {disk_bytes}")
        return disk_bytes if held_bytes > disk_bytes else 0

    async def _go_over(self, running: FakeDomain, device: int, copy: Copy, mirror_s: float) -> None:
        uuid = running.domain.uuid
        if mirror_s:
            try:
                async with asyncio.timeout(mirror_s):
                    await copy.over.wait()
            except TimeoutError:
                pass
        if copy.over.is_set():
            raise SeamError("STORAGE", "the copy has been ended")
        if copy.source.target in self.full:
            await self.end(uuid, device)
            raise SeamError("STORAGE", f"{copy.source.target} does not take all of disk {device}")
        await self._copy_all(running, device, copy)
        copy.in_step = True

    async def _copy_all(self, running: FakeDomain, device: int, copy: Copy) -> None:
        medium = self._storage.medium(copy.source)
        medium.chunks = deepcopy(self._storage.medium(_known(running, device)).chunks)

    def progress(self, uuid: str, device: int) -> float:
        copy = self._copies.get((uuid, device))
        return 0.0 if copy is None else 1.0 if copy.in_step else 0.5

    def write(self, running: FakeDomain, device: int, offset: int, data: bytes) -> None:
        """As the guest would."""
        self._storage.medium(_known(running, device)).write(offset, data)
        copy = self._copies.get((running.domain.uuid, device))
        if copy is not None and copy.in_step:
            self._storage.medium(copy.source).write(offset, data)

    async def stop(self, running: FakeDomain | None, uuid: str, device: int, to: MirrorTarget) -> None:
        if running is not None and running.lead_to.get(device) == to:
            raise SeamError("BAD_STATE", f"disk {device} of {uuid} is {to.target} by now")
        copy = self._copies.get((uuid, device))
        if copy is not None and opening_meant(copy.source) == to:
            await self.end(uuid, device)

    async def pivot(self, running: FakeDomain, start_id: str, device: int, to: MirrorTarget) -> None:
        _need(running, start_id, device)
        if running.lead_to.get(device) == to:
            return
        key = running.domain.uuid, device
        copy = self._copies.get(key)
        if copy is None or opening_meant(copy.source) != to or not copy.in_step:
            raise SeamError("BAD_STATE", f"disk {device} is not exchanged: it is not in step with that volume")
        del self._copies[key]
        holder = holder_of(running.domain, device)
        await self._storage.close(holder)
        await self._storage.hand_on(copy.holder, holder)
        running.lead_to[device] = to
        self._parts.pop(holder, None)
        if copy.part_bytes:
            self._parts[holder] = copy.part_bytes

    async def end(self, uuid: str, device: int) -> None:
        copy = self._copies.pop((uuid, device), None)
        if copy is not None:
            copy.over.set()
            await self._storage.close(copy.holder)


def _need(running: FakeDomain, start_id: str, device: int) -> None:
    if running.domain.start_id != start_id or device not in running.serials:
        raise SeamError("NOT_FOUND", f"no disk {device} of {running.domain.uuid} start {start_id} is here")


def _known(running: FakeDomain, device: int) -> IscsiSource:
    """For ``medium`` alone, which asks for no secret."""
    to = running.lead_to[device]
    return IscsiSource(
        host="", port=0, target=to.target, lun=to.lun, offset_bytes=to.offset_bytes, initiator=to.initiator,
        chap_user="", chap_secret="",
    )  # fmt: skip
