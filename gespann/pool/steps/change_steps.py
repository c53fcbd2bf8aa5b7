"""Steps about what has changed between two disks, told by the storage: nothing is opened and nothing read."""

from gespann.pool.images.changed_bits import ChangedBits
from gespann.pool.steps.registry import Run, Step, step
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words


@step
class VolumeChanges(Step):
    """args: sr, vdi, older_uuid, newer_uuid, size_bytes (of the newer). Leaves the bits in ``memory["changed"]``, or
    nothing if the storage cannot tell."""

    name = "volume-changes"

    async def do(self, run: Run) -> None:
        bits = await run.unless_cut_short(told_by_storage(run, run.args["older_uuid"], run.args["newer_uuid"]))
        if bits is not None:
            run.memory["changed"] = bytes(bits)


async def told_by_storage(run: Run, older_uuid: str, newer_uuid: str) -> ChangedBits | None:
    """None: it cannot."""
    sr, size_bytes = run.args["sr"], run.args["size_bytes"]
    bits = ChangedBits(size_bytes)
    offset: int | None = 0
    while offset is not None:
        with storage_words(sr, run.args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, sr)
            found = await driver_of(run.pool, sr).volume_changes(seen, older_uuid, newer_uuid, offset)
        if found is None:
            return None
        for start, length in found.extents:
            bits.add(start, length)
        offset = found.next_offset
        run.progress((offset or size_bytes) / max(1, size_bytes))
    return bits
