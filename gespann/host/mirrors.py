"""Seam 5, served: disks that move to other volumes while their machine runs. Checks what is asked, and passes it on."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gespann.host import spec_check
from gespann.host.hypervisor import Hypervisor
from gespann.seams.engine_socket import Empty
from gespann.seams.host_mirror import (
    DiskMirror,
    DiskMirrorProgress,
    DiskMirrorProgressReply,
    DiskMirrorStop,
    DiskPivot,
    opening_meant,
)

log = logging.getLogger(__name__)


class Mirrors:
    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            DiskMirror: self._mirror,
            DiskMirrorProgress: self._progress,
            DiskMirrorStop: self._stop,
            DiskPivot: self._pivot,
        }

    async def _mirror(self, request: DiskMirror) -> Empty:
        _check(request)
        spec_check.check_start_id(request.start_id)
        spec_check.check_source(request.source)
        spec_check.check_size(request.volume_bytes)
        log.info("mirror disk %d of %s to %r", request.device, request.uuid, request.source)
        await self._hypervisor.disk_mirror(
            request.uuid, request.start_id, request.device, request.source, request.volume_bytes
        )
        log.info("disk %d of %s is in step with %s", request.device, request.uuid, opening_meant(request.source).target)
        return Empty()

    async def _progress(self, request: DiskMirrorProgress) -> DiskMirrorProgressReply:
        _check(request)
        fraction = await self._hypervisor.disk_mirror_progress(request.uuid, request.device)
        return DiskMirrorProgressReply(fraction=fraction)

    async def _stop(self, request: DiskMirrorStop) -> Empty:
        _check(request)
        log.info("mirror disk %d of %s no longer to %s", request.device, request.uuid, request.to.target)
        await self._hypervisor.disk_mirror_stop(request.uuid, request.device, request.to)
        return Empty()

    async def _pivot(self, request: DiskPivot) -> Empty:
        _check(request)
        spec_check.check_start_id(request.start_id)
        await self._hypervisor.disk_pivot(request.uuid, request.start_id, request.device, request.to)
        log.info("disk %d of %s is %s from now on", request.device, request.uuid, request.to.target)
        return Empty()


def _check(request: DiskMirror | DiskMirrorProgress | DiskMirrorStop | DiskPivot) -> None:
    spec_check.check_uuid(request.uuid)
    spec_check.check_device(request.device)
