"""VDIs that hosts have open for readers by NBD: opened when the first comes, closed when the last has left.

Each is an operation of its own (``VDI.serve``), journalled as others are, so that a coordinator that dies closes it at
its next start.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

from gespann.pool.plan.disk_plans import plan_serve
from gespann.pool.pool import Pool
from gespann.pool.steps.runner import Work
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

#: as many as the host's server takes
READERS_LIMIT = 16


@dataclass
class _Export:
    """``socket``: the path of the host's server, once it is there; else why not."""

    socket: "asyncio.Future[str]"
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0
    job: "asyncio.Task[None] | None" = None


class Exports:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._exports: dict[str, _Export] = {}

    @contextlib.asynccontextmanager
    async def opened(self, vdi: str) -> AsyncIterator[str]:
        """The path of a socket that speaks NBD. What the plan refuses; VDI_IN_USE: by too many."""
        while (export := self._exports.get(vdi)) is not None and export.unwanted.is_set() and export.job is not None:
            await asyncio.wait([export.job])  # is being closed
        export = export or self._begin(vdi)
        if export.readers >= READERS_LIMIT:
            raise XenApiError("VDI_IN_USE", [vdi, f"{READERS_LIMIT} connections read it"])
        export.readers += 1
        try:
            yield await asyncio.shield(export.socket)
        finally:
            export.readers -= 1
            if not export.readers:
                export.unwanted.set()

    async def close(self, timeout_s: float) -> None:
        """Everything; what takes longer is closed by the next coordinator, from the journal."""
        jobs = [export.job for export in self._exports.values() if export.job is not None]
        for export in self._exports.values():
            export.unwanted.set()
        if jobs:
            await asyncio.wait(jobs, timeout=timeout_s)

    def _begin(self, vdi: str) -> _Export:
        export = self._exports[vdi] = _Export(asyncio.get_running_loop().create_future())
        export.socket.add_done_callback(lambda future: future.cancelled() or future.exception())
        export.job = asyncio.create_task(self._run(vdi, export))
        return export

    async def _run(self, vdi: str, export: _Export) -> None:
        async def serve(socket: str) -> None:
            if not export.socket.done():
                export.socket.set_result(socket)
            await export.unwanted.wait()

        pool, work = self._pool, cast(Work, self._pool.services["work"])
        try:
            await work.run(lambda: plan_serve(pool.db, vdi, pool.iscsi_prefix), memory={"serve": serve})
        except Exception as error:
            if export.socket.done():
                log.warning("VDI %s was not closed in order after it was read by NBD: %s", vdi, error)
            else:
                export.socket.set_exception(error)
        finally:
            export.socket.cancel()
            export.unwanted.set()
            del self._exports[vdi]
