"""Steps that write and read archives of VMs. The archive itself is a stream of the request, in ``memory``: each step
does its part once, and recovery undoes."""

from gespann.pool.images import xva
from gespann.pool.images.nbd import nbd_client
from gespann.pool.images.streams import Sink
from gespann.pool.images.tar import END, member
from gespann.pool.steps.image_steps import CONTENTS_WEIGHT, close_images, opened_image
from gespann.pool.steps.registry import Run, Step, step
from gespann.seams.xenapi.errors import XenApiError


def first_time(run: Run, what: str) -> bool:
    """False when this part of the stream has passed already."""
    passed: set[str] = run.memory.setdefault("passed", set())
    return what not in passed


def passed(run: Run, what: str) -> None:
    run.memory["passed"].add(what)


@step
class ArchiveBegin(Step):
    """args: xml. Writes ``ova.xml`` to ``memory["sink"]``."""

    name = "archive-begin"

    async def do(self, run: Run) -> None:
        if first_time(run, "begin"):
            sink: Sink = run.memory["sink"]
            await sink(member(xva.OVA_XML, run.args["xml"].encode()))
            passed(run, "begin")


@step
class ArchiveDisk(Step):
    """args: host, opening_id, name (in the archive). Writes the blocks of the disk to ``memory["sink"]``."""

    name = "archive-disk"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        name = run.args["name"]
        if not first_time(run, name):
            return
        sink: Sink = run.memory["sink"]
        async with (
            opened_image(run, run.args["opening_id"], read_only=True) as socket,
            nbd_client(socket) as image,
        ):
            await run.unless_cut_short(xva.write_disk(image, name, sink, run.progress))
        passed(run, name)

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])


@step
class ArchiveEnd(Step):
    """Writes the end to ``memory["sink"]``."""

    name = "archive-end"

    async def do(self, run: Run) -> None:
        if first_time(run, "end"):
            sink: Sink = run.memory["sink"]
            await sink(END)
            passed(run, "end")


@step
class ArchiveFill(Step):
    """args: host, opening_id, name, size_bytes (as the archive says). The blocks of the disk come from
    ``memory["archive"]``. What is not in the archive stays as a new volume has it: zeroes."""

    name = "archive-fill"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        name = run.args["name"]
        if not first_time(run, name):
            return
        async with (
            opened_image(run, run.args["opening_id"], read_only=False) as socket,
            nbd_client(socket) as image,
        ):
            size_bytes = run.args["size_bytes"]
            if image.size_bytes < size_bytes:
                raise XenApiError("VDI_TOO_SMALL", [str(image.size_bytes), str(size_bytes)])
            await run.unless_cut_short(_fill(run, name, size_bytes, image.write))
            await image.flush()
        passed(run, name)

    async def undo(self, run: Run) -> None:
        await close_images(run, run.args["opening_id"])


@step
class ArchiveSkip(Step):
    """args: name, size_bytes. A disk of ``memory["archive"]`` that nobody wants; it is checked all the same."""

    name = "archive-skip"
    weight = CONTENTS_WEIGHT

    async def do(self, run: Run) -> None:
        async def forget(offset: int, data: bytes) -> None:
            return None

        if first_time(run, run.args["name"]):
            await run.unless_cut_short(_fill(run, run.args["name"], run.args["size_bytes"], forget))
            passed(run, run.args["name"])


@step
class ArchiveFinish(Step):
    """Nothing but the end may follow in ``memory["archive"]``."""

    name = "archive-finish"

    async def do(self, run: Run) -> None:
        if first_time(run, "finish"):
            archive: xva.ArchiveReader = run.memory["archive"]
            await run.unless_cut_short(archive.end())
            passed(run, "finish")


async def _fill(run: Run, name: str, size_bytes: int, write: xva.Write) -> None:
    archive: xva.ArchiveReader = run.memory["archive"]
    async for offset, data in archive.blocks(name, size_bytes):
        await write(offset, data)
        run.progress((offset + len(data)) / size_bytes)
