"""Steps of snapshots: volumes at one instant, a guest that holds still meanwhile, and going back."""

import logging
from typing import Any

from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import HostRefused, ask
from gespann.pool.steps.record_steps import RecordsWrite
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.pool.steps.volume_steps import note_volume
from gespann.seams.host_agent import GuestFreeze, GuestThaw, GuestThawReply
from gespann.seams.sr_driver import SnapshotSpec, VolumeSpec

log = logging.getLogger(__name__)

#: a guest is held for no longer; its host lets it go by itself then
HOLD_S = 10.0


@step
class VolumeSnapshots(Step):
    """args: sr, vdi (the first, for errors), snapshots [{source_vdi_uuid, spec}]: all of one instant."""

    name = "volume-snapshots"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, sr)
            for made in await driver_of(run.pool, sr).volumes_snapshot(seen, _snapshots(run)):
                note_volume(run, made)

    async def undo(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr, run.args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, sr)
            await driver_of(run.pool, sr).volumes_snapshot_undo(seen, _snapshots(run))


def _snapshots(run: Run) -> list[SnapshotSpec]:
    return [SnapshotSpec(one["source_vdi_uuid"], VolumeSpec(**one["spec"])) for one in run.args["snapshots"]]


@step
class VolumeRestore(Step):
    """args: sr, vdi, vdi_uuid, snapshot_uuid, spec: of the snapshot that keeps what the volume held before."""

    name = "volume-restore"

    async def do(self, run: Run) -> None:
        args = run.args
        with storage_words(args["sr"], args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, args["sr"])
            kept = VolumeSpec(**args["spec"])
            driver = driver_of(run.pool, args["sr"])
            note_volume(run, await driver.volume_restore(seen, args["vdi_uuid"], args["snapshot_uuid"], kept))

    async def undo(self, run: Run) -> None:
        args = run.args
        with storage_words(args["sr"], args["vdi"]):
            seen = sr_as_driver_sees_it(run.pool.db, args["sr"])
            driver = driver_of(run.pool, args["sr"])
            await driver.volume_restore_undo(seen, args["vdi_uuid"], args["spec"]["vdi_uuid"])


@step
class RecordsForGood(RecordsWrite):
    """As ``records-write``, and from here on there is only finishing: what follows tidies up."""

    name = "records-for-good"
    point_of_no_return = True


class _GuestStep(Step):
    """args: host, vm, vm_uuid"""

    async def _thaw(self, run: Run) -> bool:
        """True: the guest held still until now. A guest that is gone is not frozen."""
        try:
            said: GuestThawReply = await ask(run.pool, run.args["host"], GuestThaw(uuid=run.args["vm_uuid"]))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                return False
            raise
        return said.held


@step
class GuestHold(_GuestStep):
    """Asks the guest to write everything out and to hold its file systems still. The host lets it go after ``HOLD_S``
    whatever becomes of us."""

    name = "guest-freeze"

    async def do(self, run: Run) -> None:
        vm = run.args["vm"]
        try:
            await ask(run.pool, run.args["host"], GuestFreeze(uuid=run.args["vm_uuid"], hold_s=HOLD_S))
        except HostRefused as error:
            code, params = _refusal(vm, error)
            raise Refused(code, params) from error

    async def undo(self, run: Run) -> None:
        """A guest that does not answer is asked further on by its host, for as long as it takes: the VM need not wait
        for that, and can be shut down meanwhile."""
        try:
            await self._thaw(run)
        except HostRefused as error:
            if error.seam_code != "TIMEOUT":
                raise
            log.warning("VM %s: %s; its host goes on asking", run.args["vm_uuid"], error.params[0])


def _refusal(vm: str, error: HostRefused) -> tuple[str, list[Any]]:
    match error.seam_code:
        case "GUEST_AGENT":
            return "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", [vm, error.params[0]]
        case "TIMEOUT":
            return "VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT", [vm]
        case _:
            return "VM_SNAPSHOT_WITH_QUIESCE_FAILED", [vm]


@step
class GuestRelease(_GuestStep):
    """A guest that was let go before, because all took too long, makes the whole operation fail: its snapshot is not
    what was asked for."""

    name = "guest-thaw"

    async def do(self, run: Run) -> None:
        held = await self._thaw(run)
        if not (held or run.notes.get("held")):
            raise Refused("VM_SNAPSHOT_WITH_QUIESCE_TIMEOUT", [run.args["vm"]])
        run.notes["held"] = True

    def commit(self, run: Run, tx: Transaction) -> None:
        run.notes.pop("held", None)
