"""Steps on the contents of volumes: a host opens them outside any domain as NBD exports; nbdcopy moves bytes."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from gespann.pool.images.differences import copy_differences
from gespann.pool.images.nbd import NbdClient, nbd_client
from gespann.pool.steps.host_door import HostOffline, ask, socket_here
from gespann.pool.steps.nbd_copy import copy_image, read_image, write_image
from gespann.pool.steps.registry import Run, Step, step
from gespann.seams.host_agent import ImageClose, ImageOpen

log = logging.getLogger(__name__)

Body = AsyncIterator[bytes]
Sink = Callable[[bytes], Awaitable[None]]
Serve = Callable[[str], Coroutine[Any, Any, None]]
#: how much longer than other steps those take that move contents, for the task's progress
CONTENTS_WEIGHT = 50


@contextlib.asynccontextmanager
async def opened_image(run: Run, opening_id: str, *, read_only: bool) -> AsyncIterator[str]:
    """The socket of the image; closed (and flushed) at the end. Only a close that worked makes writes safe."""
    host = run.args["host"]
    request = ImageOpen(image_id=opening_id, source=run.memory["sources"][opening_id], read_only=read_only)
    reply = await ask(run.pool, host, request)
    try:
        async with socket_here(run.pool, host, reply.socket) as socket:
            yield socket
    except BaseException as failed:
        try:
            await ask(run.pool, host, ImageClose(image_id=opening_id))
        except HostOffline as silent:
            if not _is_cancel(failed):
                raise silent from failed  # why it failed; the copy itself knows only that its image went away
        except Exception as error:
            log.warning("image %s is not closed yet: %s", opening_id, error)
        raise
    await ask(run.pool, host, ImageClose(image_id=opening_id))


def _is_cancel(failed: BaseException) -> bool:
    return not isinstance(failed, Exception) or getattr(failed, "code", "") == "TASK_CANCELLED"


async def close_images(run: Run, *opening_ids: str) -> None:
    for opening_id in opening_ids:
        await ask(run.pool, run.args["host"], ImageClose(image_id=opening_id))


@step
class ImageCopy(Step):
    """args: host, source, target (opening ids)"""

    name = "image-copy"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        args = run.args
        async with (
            opened_image(run, args["source"], read_only=True) as source,
            opened_image(run, args["target"], read_only=False) as target,
        ):
            await run.unless_cut_short(copy_image(source, target, run.progress))

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["source"], run.args["target"])


@step
class ImageCopyDifferences(Step):
    """args: host, source, base, target (opening ids): the blocks in which source and base differ go into target, which
    may be larger."""

    name = "image-copy-differences"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        async with contextlib.AsyncExitStack() as stack:

            async def image(side: str) -> NbdClient:
                opened = opened_image(run, run.args[side], read_only=side != "target")
                socket = await stack.enter_async_context(opened)
                return await stack.enter_async_context(nbd_client(socket))

            source, base, target = await image("source"), await image("base"), await image("target")
            await run.unless_cut_short(copy_differences(source, base, target, run.progress))

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["source"], run.args["base"], run.args["target"])


@step
class ImageFill(Step):
    """args: host, opening_id, vdi, size_bytes. The body is ``memory["body"]``, and can be read once: a second try after
    a failure fails too, rather than write half of it."""

    name = "image-fill"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        if run.memory.get("filled"):
            return
        body: Body = run.memory.pop("body")
        async with opened_image(run, run.args["opening_id"], read_only=False) as socket:
            await run.unless_cut_short(write_image(socket, body, run.args["size_bytes"], run.progress))
        run.memory["filled"] = True

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])


@step
class ImageRead(Step):
    """args: host, opening_id, vdi, size_bytes. Each piece goes to ``memory["sink"]``."""

    name = "image-read"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        sink: Sink = run.memory["sink"]
        async with opened_image(run, run.args["opening_id"], read_only=True) as socket:
            await run.unless_cut_short(read_image(socket, sink, run.args["size_bytes"], run.progress))

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])


@step
class ImageServe(Step):
    """args: host, opening_id, vdi, size_bytes. For as long as ``memory["serve"]`` wants the socket that it is given."""

    name = "image-serve"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        serve: Serve = run.memory["serve"]
        async with opened_image(run, run.args["opening_id"], read_only=True) as socket:
            await run.unless_cut_short(serve(socket))

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])
