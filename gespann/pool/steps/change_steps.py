"""Steps about what has changed between two disks, told by the storage: nothing is opened and nothing read."""

import asyncio

from gespann.pool.images.changed_bits import ChangedBits, bits_length
from gespann.pool.model import kept_changes
from gespann.pool.model.database import Transaction
from gespann.pool.steps.registry import Run, Step, step
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.seams.xenapi.errors import XenApiError


async def told_by_storage(run: Run) -> bytes | None:
    """args: sr, vdi, older_uuid, newer_uuid, size_bytes (of the newer). None: it cannot."""
    args = run.args
    bits = ChangedBits(args["size_bytes"])
    offset: int | None = 0
    while offset is not None:
        with storage_words(args["sr"], args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, args["sr"])
            driver = driver_of(run.pool, args["sr"])
            found = await driver.volume_changes(seen, args["older_uuid"], args["newer_uuid"], offset)
        if found is None:
            return None
        for start, length in found.extents:
            bits.add(start, length)
        offset = found.next_offset
        run.progress((offset or args["size_bytes"]) / max(1, args["size_bytes"]))
    return bytes(bits)


@step
class VolumeChanges(Step):
    """args: as ``told_by_storage``. Leaves the bits in ``memory["changed"]``, or nothing if the storage cannot tell."""

    name = "volume-changes"

    async def do(self, run: Run) -> None:
        bits = await run.unless_cut_short(told_by_storage(run))
        if bits is not None:
            run.memory["changed"] = bits


@step
class ChangesJoin(Step):
    """args: kept [(uuid, uuid)], asked (whether ``memory["changed"]`` is a part of it), size_bytes. Leaves all of it
    together in ``memory["changed"]``."""

    name = "changes-join"

    async def do(self, run: Run) -> None:
        args = run.args
        if args["asked"] and "changed" not in run.memory:
            return
        length = bits_length(args["size_bytes"])
        joined = kept_changes.stretched(run.memory["changed"], length) if args["asked"] else bytes(length)
        for one, other in args["kept"]:
            joined = kept_changes.united(joined, kept_changes.kept_bits(run.pool.db, one, other, length))
        run.memory["changed"] = bytes(ChangedBits(args["size_bytes"], joined))


@step
class ChangesKeep(Step):
    """args: as ``told_by_storage``, and required: SR_OPERATION_NOT_SUPPORTED if the storage cannot tell. Keeps the bits
    in the pool's database. They are in memory until then: a crash before that undoes the operation."""

    name = "changes-keep"

    async def do(self, run: Run) -> None:
        bits = await run.unless_cut_short(told_by_storage(run))
        if bits is None and run.args["required"]:
            raise XenApiError("SR_OPERATION_NOT_SUPPORTED", [run.args["sr"]])
        run.memory["kept"] = None if bits is None else await asyncio.to_thread(kept_changes.compressed, bits)

    def commit(self, run: Run, tx: Transaction) -> None:
        kept = run.memory.get("kept")
        if kept is not None:
            kept_changes.keep(tx, run.args["older_uuid"], run.args["newer_uuid"], kept)

    def revert(self, run: Run, tx: Transaction) -> None:
        kept_changes.drop(tx, run.args["older_uuid"], run.args["newer_uuid"])


@step
class VolumeShed(Step):
    """args: sr, vdi, vdi_uuid. The volume goes; the record stays."""

    name = "volume-shed"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            await driver_of(run.pool, sr).volume_destroy(sr_as_driver_sees_it(run.pool.db, sr), run.args["vdi_uuid"])

    def commit(self, run: Run, tx: Transaction) -> None:
        kept_changes.data_is_gone(tx, run.args["vdi_uuid"])
        if tx.exists("VDI", run.args["vdi"]):
            tx.set("VDI", run.args["vdi"], physical_utilisation=0)
