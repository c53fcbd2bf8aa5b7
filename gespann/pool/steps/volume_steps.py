"""Steps on volumes. Each names the SR by reference and the volume by its VDI's uuid, which outlives its record.

A ``spec`` argument is a VolumeSpec as JSON; the volume that came of it is noted as ``volume:<vdi uuid>``.
"""

from dataclasses import asdict
from typing import Any

from gespann.pool.model import kept_changes
from gespann.pool.model.database import Transaction
from gespann.pool.steps.openings import OpenVolume, forget_opening, opening_with_secret, record_opening
from gespann.pool.steps.registry import Run, Step, step
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.seams.sr_driver import Volume, VolumeSpec


def volume_fields(volume: dict[str, Any]) -> dict[str, Any]:
    """The fields of a VDI record that follow the storage."""
    return {
        "virtual_size": volume["virtual_size_bytes"],
        "physical_utilisation": volume["utilisation_bytes"],
        "location": volume["location"],
        "sm_config": volume["sm_config"],
    }


def note_volume(run: Run, volume: Volume) -> None:
    run.notes[f"volume:{volume.vdi_uuid}"] = asdict(volume)


async def _destroy(run: Run, vdi_uuid: str) -> None:
    sr = run.args["sr"]
    with storage_words(sr, run.args.get("vdi", "")):
        await driver_of(run.pool, sr).volume_destroy(sr_as_driver_sees_it(run.pool.db, sr), vdi_uuid)


@step
class VolumeCreate(Step):
    """args: sr, spec"""

    name = "volume-create"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr):
            made = await driver_of(run.pool, sr).volume_create(
                sr_as_driver_sees_it(run.pool.db, sr), VolumeSpec(**run.args["spec"])
            )
        note_volume(run, made)

    async def undo(self, run: Run) -> None:
        await _destroy(run, run.args["spec"]["vdi_uuid"])


@step
class VolumeClone(Step):
    """args: sr, source (VDI reference), source_uuid, spec"""

    name = "volume-clone"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["source"]):
            made = await driver_of(run.pool, sr).volume_clone(
                sr_as_driver_sees_it(run.pool.db, sr), run.args["source_uuid"], VolumeSpec(**run.args["spec"])
            )
        note_volume(run, made)

    async def undo(self, run: Run) -> None:
        await _destroy(run, run.args["spec"]["vdi_uuid"])


@step
class VolumeDestroy(Step):
    """args: sr, vdi (its reference), vdi_uuid. Its VBDs go with the record."""

    name = "volume-destroy"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        await _destroy(run, run.args["vdi_uuid"])

    def commit(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VDI", run.args["vdi"]):
            for vbd in list(tx.get("VDI", run.args["vdi"])["VBDs"]):
                tx.destroy("VBD", vbd)
        tx.destroy("VDI", run.args["vdi"])
        kept_changes.forget(run.pool.db, tx, run.args["vdi_uuid"], lambda uuid: _taken(run, uuid))


def _taken(run: Run, uuid: str) -> str:
    found = run.pool.db.where("VDI", uuid=uuid)
    return str(found[0][1]["snapshot_time"]) if found else ""


@step
class VolumeResize(Step):
    """args: sr, vdi, vdi_uuid, size_bytes. Volumes never shrink, so there is no way back."""

    name = "volume-resize"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            grown = await driver_of(run.pool, sr).volume_resize(
                sr_as_driver_sees_it(run.pool.db, sr), run.args["vdi_uuid"], run.args["size_bytes"]
            )
        note_volume(run, grown)

    def commit(self, run: Run, tx: Transaction) -> None:
        volume = run.notes[f"volume:{run.args['vdi_uuid']}"]
        tx.set(
            "VDI",
            run.args["vdi"],
            virtual_size=volume["virtual_size_bytes"],
            physical_utilisation=volume["utilisation_bytes"],
        )


@step
class VolumeUpdate(Step):
    """args: sr, vdi, spec (new), old (spec as it was), fields (of the record)"""

    name = "volume-update"

    async def do(self, run: Run) -> None:
        await self._write(run, run.args["spec"])

    async def undo(self, run: Run) -> None:
        await self._write(run, run.args["old"])

    async def _write(self, run: Run, spec: dict[str, Any]) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            note_volume(
                run,
                await driver_of(run.pool, sr).volume_update(sr_as_driver_sees_it(run.pool.db, sr), VolumeSpec(**spec)),
            )

    def commit(self, run: Run, tx: Transaction) -> None:
        volume = run.notes[f"volume:{run.args['spec']['vdi_uuid']}"]
        tx.set("VDI", run.args["vdi"], **{**run.args["fields"], "sm_config": volume["sm_config"]})


@step
class VolumeOpen(Step):
    """args: sr, vdi, vdi_uuid, opening_id, initiator, mode, vm, vbd. What QEMU must open is left in
    ``memory["sources"][opening_id]``."""

    name = "volume-open"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            source = await driver_of(run.pool, sr).open(
                sr_as_driver_sees_it(run.pool.db, sr), run.args["vdi_uuid"], opening_with_secret(run.memory, run.args)
            )
        run.memory.setdefault("sources", {})[run.args["opening_id"]] = source

    async def undo(self, run: Run) -> None:
        await close_opening(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        record_opening(tx, OpenVolume(args["opening_id"], args["sr"], args["vdi_uuid"], args["vm"], args["vbd"]))
        if args["mode"] == "RW":
            kept_changes.is_written(tx, args["vdi_uuid"])

    def revert(self, run: Run, tx: Transaction) -> None:
        forget_opening(tx, run.args["opening_id"])


@step
class VolumeHandOver(Step):
    """args: sr, vdi_uuid, opening_id, to_opening_id. The one that was opened beside has the right to write from now on,
    and the other has it no longer."""

    name = "volume-hand-over"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args = run.args
        with storage_words(args["sr"], ""):
            await driver_of(run.pool, args["sr"]).hand_over(
                sr_as_driver_sees_it(run.pool.db, args["sr"]),
                args["vdi_uuid"],
                args["opening_id"],
                args["to_opening_id"],
            )


async def close_opening(run: Run) -> None:
    sr = run.args["sr"]
    with storage_words(sr, run.args.get("vdi", "")):
        await driver_of(run.pool, sr).close(
            sr_as_driver_sees_it(run.pool.db, sr), run.args["vdi_uuid"], run.args["opening_id"]
        )


@step
class VolumeClose(Step):
    """args: sr, vdi_uuid, opening_id. Undoing does nothing: what is closed is opened again under another name."""

    name = "volume-close"

    async def do(self, run: Run) -> None:
        await close_opening(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        forget_opening(tx, run.args["opening_id"])
