"""Steps on the contents of volumes: a host opens them outside any domain as NBD exports; nbdcopy moves bytes."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from gespann.pool.steps.host_door import ask
from gespann.pool.steps.nbd_copy import copy_image, read_image, write_image
from gespann.pool.steps.registry import Run, Step, step
from gespann.seams.host_agent import ImageClose, ImageOpen

Body = AsyncIterator[bytes]
Sink = Callable[[bytes], Awaitable[None]]


@contextlib.asynccontextmanager
async def _image(run: Run, opening_id: str, *, read_only: bool) -> AsyncIterator[str]:
    """The socket of the image; closed (and flushed) at the end. Only a close that worked makes writes safe."""
    host = run.args["host"]
    request = ImageOpen(image_id=opening_id, source=run.memory["sources"][opening_id], read_only=read_only)
    reply = await ask(run.pool, host, request)
    try:
        yield reply.socket
    except BaseException:
        with contextlib.suppress(Exception):
            await ask(run.pool, host, ImageClose(image_id=opening_id))
        raise
    await ask(run.pool, host, ImageClose(image_id=opening_id))


async def _close(run: Run, *opening_ids: str) -> None:
    for opening_id in opening_ids:
        await ask(run.pool, run.args["host"], ImageClose(image_id=opening_id))


@step
class ImageCopy(Step):
    """args: host, source, target (opening ids)"""

    name = "image-copy"

    async def do(self, run: Run) -> None:
        args = run.args
        async with (
            _image(run, args["source"], read_only=True) as source,
            _image(run, args["target"], read_only=False) as target,
        ):
            await run.unless_cut_short(copy_image(source, target, run.progress))

    async def undo(self, run: Run) -> None:
        await _close(run, run.args["source"], run.args["target"])


@step
class ImageFill(Step):
    """args: host, opening_id, vdi, size_bytes. The body is ``memory["body"]``, and can be read once: a second try after
    a failure fails too, rather than write half of it."""

    name = "image-fill"

    async def do(self, run: Run) -> None:
        if run.memory.get("filled"):
            return
        body: Body = run.memory.pop("body")
        async with _image(run, run.args["opening_id"], read_only=False) as socket:
            await run.unless_cut_short(write_image(socket, body, run.args["size_bytes"], run.progress))
        run.memory["filled"] = True

    async def undo(self, run: Run) -> None:
        await _close(run, run.args["opening_id"])


@step
class ImageRead(Step):
    """args: host, opening_id, vdi, size_bytes. Each piece goes to ``memory["sink"]``."""

    name = "image-read"

    async def do(self, run: Run) -> None:
        sink: Sink = run.memory["sink"]
        async with _image(run, run.args["opening_id"], read_only=True) as socket:
            await run.unless_cut_short(read_image(socket, sink, run.args["size_bytes"], run.progress))

    async def undo(self, run: Run) -> None:
        await _close(run, run.args["opening_id"])
