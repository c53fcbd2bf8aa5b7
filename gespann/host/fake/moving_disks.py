"""The machines that run under a fake hypervisor, and their disks that move to other volumes."""

import asyncio
from collections import defaultdict
from pathlib import Path

from gespann.host.fake.guest import FakeDomain, GuestBehaviour
from gespann.host.fake.machine import FakeMachine
from gespann.host.fake.memory import save_domains
from gespann.host.fake.mirrors import FakeMirrors
from gespann.host.fake.storage import FakeStorage
from gespann.seams.host_agent import IscsiSource
from gespann.seams.host_mirror import MirrorTarget
from gespann.seams.json_lines import SeamError


class MovingDisks(FakeMachine):
    def __init__(self, hostname: str, storage: FakeStorage, run_dir: Path | None) -> None:
        super().__init__(hostname)
        self.storage = storage
        self.run_dir = run_dir
        self.mirrors = FakeMirrors(storage)
        self.default_behaviour = GuestBehaviour()
        self._behaviours: dict[str, GuestBehaviour] = {}
        self._running: dict[str, FakeDomain] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def disk_mirror(self, uuid: str, start_id: str, device: int, source: IscsiSource, volume_bytes: int) -> None:
        self._maybe_fail("disk_mirror")
        running, mirror_s = self._find(uuid), self._behaviour(uuid).mirror_s
        await self.mirrors.take(running, start_id, device, source, volume_bytes, mirror_s)

    async def disk_mirror_progress(self, uuid: str, device: int) -> float:
        self._maybe_fail("disk_mirror_progress")
        return self.mirrors.progress(uuid, device)

    async def disk_mirror_stop(self, uuid: str, device: int, to: MirrorTarget) -> None:
        self._maybe_fail("disk_mirror_stop")
        await self.mirrors.stop(self._running.get(uuid), uuid, device, to)

    async def disk_pivot(self, uuid: str, start_id: str, device: int, to: MirrorTarget) -> None:
        async with self._locks[uuid]:
            self._maybe_fail("disk_pivot")
            await self.mirrors.pivot(self._find(uuid), start_id, device, to)
            self._save()

    def _find(self, uuid: str) -> FakeDomain:
        running = self._running.get(uuid)
        if running is None:
            raise SeamError("NOT_FOUND", f"no domain {uuid} runs here")
        return running

    def _behaviour(self, uuid: str) -> GuestBehaviour:
        return self._behaviours.get(uuid, self.default_behaviour)

    def _save(self) -> None:
        if self.run_dir is not None:
            save_domains(self.run_dir, list(self._running.values()))
