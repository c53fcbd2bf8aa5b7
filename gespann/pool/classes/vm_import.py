"""XenAPI class VM: an archive that the coordinator fetches itself, over http or https."""

import asyncio
from collections.abc import AsyncIterator

from gespann.pool.api.messages import Call, implements
from gespann.pool.api.tasks import Task
from gespann.pool.classes.context import given
from gespann.pool.classes.http_archives import sr_for_import, take_in
from gespann.pool.plan.import_plans import Wanted
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import web_source


@implements("VM.import")
async def import_from_url(call: Call, url: str, sr: str, full_restore: bool, force: bool) -> list[str]:
    """The VMs that came. INVALID_VALUE: nothing that can be read; IMPORT_ERROR: whoever is there does not give it.
    Neither shows the URL, which may have a password in it."""
    try:
        web_source.check(url)
    except web_source.BadUrl as error:
        raise XenApiError("INVALID_VALUE", ["url", str(error)]) from None
    pool = call.pool
    wanted = Wanted(sr=sr_for_import(pool.db, sr if given(sr) else ""), restore=full_restore, force=force)
    try:
        async with web_source.opened(url) as body:
            return await take_in(pool, wanted, _until_cancelled(body, call.task), call.task, knows_its_length=False)
    except web_source.Unreadable as error:
        raise XenApiError("IMPORT_ERROR", [str(error)]) from None


async def _until_cancelled(body: AsyncIterator[bytes], task: Task | None) -> AsyncIterator[bytes]:
    """Obeys also before the operation has begun that obeys by itself, and while nothing comes."""
    alarm = asyncio.ensure_future(task.wait_cancel_asked() if task is not None else asyncio.Event().wait())
    if task is not None:
        task.allow_cancel()
    try:
        while True:
            following = asyncio.ensure_future(_next(body))
            try:
                await asyncio.wait([following, alarm], return_when=asyncio.FIRST_COMPLETED)
                if task is not None:
                    task.check()
                piece = await following
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            if not piece:
                return
            yield piece
    finally:
        alarm.cancel()


async def _next(body: AsyncIterator[bytes]) -> bytes:
    """Empty at the end. IMPORT_ERROR."""
    try:
        async for piece in body:
            if piece:
                return piece
    except web_source.Unreadable as error:
        raise XenApiError("IMPORT_ERROR", [str(error)]) from None
    return b""
