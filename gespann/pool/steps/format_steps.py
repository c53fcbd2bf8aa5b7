"""Steps that give a disk out as an image file of another format, take one in, and compare two disks."""

import contextlib
from collections.abc import AsyncIterator

from gespann.pool.images import formats
from gespann.pool.images.differences import changed_blocks
from gespann.pool.images.nbd import NbdClient, nbd_client
from gespann.pool.images.streams import Sink
from gespann.pool.steps.image_steps import CONTENTS_WEIGHT, close_images, opened_image
from gespann.pool.steps.registry import Run, Step, step


@contextlib.asynccontextmanager
async def _client(run: Run, opening_id: str, *, read_only: bool) -> AsyncIterator[NbdClient]:
    async with opened_image(run, opening_id, read_only=read_only) as socket, nbd_client(socket) as client:
        yield client


@step
class ImageEncode(Step):
    """args: host, opening_id, base (opening id or ""), format, uuids (of disk and base). ``memory["begin"]`` is told
    how long the file will be, and ``memory["sink"]`` gets it."""

    name = "image-encode"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        args = run.args
        sink: Sink = run.memory["sink"]
        begin: formats.Begin = run.memory["begin"]
        made_s = int(run.pool.clock.now().timestamp())
        async with contextlib.AsyncExitStack() as stack:
            image = await stack.enter_async_context(_client(run, args["opening_id"], read_only=True))
            if args["format"] == formats.QCOW2:
                writing = formats.write_qcow2(image, sink, begin, run.progress)
            elif args["base"]:
                base = await stack.enter_async_context(_client(run, args["base"], read_only=True))
                uuids = (args["uuids"][0], args["uuids"][1])
                writing = formats.write_vhd_difference(image, base, uuids, made_s, sink, begin, run.progress)
            else:
                writing = formats.write_vhd(image, args["uuids"][0], made_s, sink, begin, run.progress)
            await run.unless_cut_short(writing)

    async def undo(self, run: Run) -> None:
        await close_images(run, *filter(None, (run.args["opening_id"], run.args["base"])))


@step
class ImageDecode(Step):
    """args: host, opening_id, format. The file is ``memory["body"]``, and can be read once."""

    name = "image-decode"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        if run.memory.get("filled"):
            return
        body: AsyncIterator[bytes] = run.memory.pop("body")
        async with _client(run, run.args["opening_id"], read_only=False) as image:
            await run.unless_cut_short(formats.read_into(image, run.args["format"], body, run.progress))
        run.memory["filled"] = True

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])


@step
class ImageCompare(Step):
    """args: host, older, newer (opening ids). Leaves the bits of what has changed in ``memory["changed"]``."""

    name = "image-compare"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        async with (
            _client(run, run.args["older"], read_only=True) as older,
            _client(run, run.args["newer"], read_only=True) as newer,
        ):
            run.memory["changed"] = await run.unless_cut_short(changed_blocks(newer, older, run.progress))

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["older"], run.args["newer"])
