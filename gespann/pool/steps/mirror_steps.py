"""Steps of disks that move to another SR while their VM runs.

    disk-mirror-name ► disk-mirror ► disk-hold ► disk-pivot ═► disk-go-on ► volume-settle
    (for each disk)    (for each)    (the guest  (point of no   (it goes    (for each: the old volume goes;
                                     stands still) return)       on)         of one that did not move, the new)

From ``disk-hold`` to the records that say which volumes the VM has, the guest writes nothing. So whatever is lost in
between, the old volumes hold all that it has written, and so do the new ones that it was given.

``host``, ``vm``, ``vm_uuid``, ``start_id``: the machine. A *move* is a dict: vdi, vdi_uuid, sr, opening_id (what it
has), new (class, ref, fields), new_uuid, new_sr, new_opening_id (what it gets), device, vbd, size_bytes.
"""

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from gespann.pool.model import kept_changes
from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import HostRefused, ask, ask_unless_gone
from gespann.pool.steps.openings import forget_opening
from gespann.pool.steps.record_steps import show_downtime, with_volume
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.seams.host_agent import DiskResize, DomainPause, DomainUnpause, IscsiSource
from gespann.seams.host_mirror import (
    DiskMirror,
    DiskMirrorProgress,
    DiskMirrorStop,
    DiskPivot,
    MirrorTarget,
    opening_meant,
)
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

MIRROR_WITHIN_S = 7 * 24 * 3600.0  # a large disk on a slow network
PROGRESS_EVERY_S = 1.0
#: what an agent says of a pivot that has not happened; after anything else nobody knows
NOT_EXCHANGED = frozenset({"BAD_STATE", "NOT_FOUND"})


class NobodyKnows(XenApiError):
    """It may have happened: the operation waits until it can be found out."""

    nobody_answered = True


def _to(run: Run, opening_id: str) -> MirrorTarget | None:
    noted = run.notes.get(f"mirror:{opening_id}")
    return msgspec.convert(noted, MirrorTarget) if noted is not None else None


def _machine_gone(run: Run) -> Refused:
    return Refused("VM_BAD_POWER_STATE", [run.args["vm"], "running", "halted"])


@step
class DiskMirrorName(Step):
    """args: opening_id. By what the host knows the volume that the disk goes to: written down before anything goes
    there, so that it can be ended after a crash."""

    name = "disk-mirror-name"

    async def do(self, run: Run) -> None:
        source = run.memory["sources"][run.args["opening_id"]]
        if not isinstance(source, IscsiSource):
            raise Refused("OPERATION_NOT_ALLOWED", ["The host has no way to copy to that kind of SR"])
        run.notes[f"mirror:{run.args['opening_id']}"] = msgspec.to_builtins(opening_meant(source))


@step
class DiskMirrored(Step):
    """args: host, vm, vm_uuid, start_id, device, vdi, new_uuid and opening_id (of the volume that it goes to). Done
    when both hold the same; they stay in step."""

    name = "disk-mirror"
    weight = 50

    async def do(self, run: Run) -> None:
        args = run.args
        request = DiskMirror(
            uuid=args["vm_uuid"],
            start_id=args["start_id"],
            device=args["device"],
            source=run.memory["sources"][args["opening_id"]],
            volume_bytes=run.notes[f"volume:{args['new_uuid']}"]["virtual_size_bytes"],
        )
        watching = asyncio.create_task(_show_progress(run))
        try:
            await run.unless_cut_short(ask(run.pool, args["host"], request, timeout_s=MIRROR_WITHIN_S))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                raise _machine_gone(run) from error
            if error.seam_code == "STORAGE":
                log.warning("VDI %s is not copied: %s", args["vdi"], error.params[-1])
                raise Refused("MIRROR_FAILED", [args["vdi"]]) from error
            raise
        finally:
            watching.cancel()

    async def undo(self, run: Run) -> None:
        """A host on which the machine is no more has nothing to end."""
        await _end_copy(run, run.args["opening_id"])


async def _end_copy(run: Run, opening_id: str) -> None:
    """To the volume of that opening, if it has ever begun."""
    to = _to(run, opening_id)
    if to is not None:
        stop = DiskMirrorStop(uuid=run.args["vm_uuid"], device=run.args["device"], to=to)
        await ask_unless_gone(run.pool, run.args["host"], stop)


async def _show_progress(run: Run) -> None:
    while True:
        await run.pool.clock.sleep(PROGRESS_EVERY_S)
        with contextlib.suppress(XenApiError):
            request = DiskMirrorProgress(uuid=run.args["vm_uuid"], device=run.args["device"])
            run.progress((await ask(run.pool, run.args["host"], request)).fraction)


async def _unpause(run: Run) -> None:
    if run.args["runs"]:
        await ask_unless_gone(run.pool, run.args["host"], DomainUnpause(uuid=run.args["vm_uuid"]))


@step
class DiskHold(Step):
    """args: host, vm, vm_uuid, runs. The guest stands still until ``disk-go-on``; one that is paused (``runs`` false)
    does so anyway."""

    name = "disk-hold"
    too_late_to_cancel = True

    async def do(self, run: Run) -> None:
        if not run.args["runs"]:
            return
        run.memory["held_s"] = run.pool.clock.monotonic_s()
        try:
            await ask(run.pool, run.args["host"], DomainPause(uuid=run.args["vm_uuid"]))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                raise _machine_gone(run) from error
            raise

    async def undo(self, run: Run) -> None:
        await _unpause(run)


@step
class DiskPivoted(Step):
    """args: host, vm, vm_uuid, start_id, moves. The guest gets the new volumes, and the records say so at once. The
    first that cannot be exchanged undoes it all; one after it stays where it is (``notes["stay"]``), since those
    before it have moved."""

    name = "disk-pivot"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        stay: list[str] = []
        for number, move in enumerate(run.args["moves"]):
            try:
                await self._exchange(run, move)
            except Refused:
                if not number:
                    raise
                stay.append(move["vdi"])
        run.notes["stay"] = run.memory["stay"] = stay

    async def _exchange(self, run: Run, move: dict[str, Any]) -> None:
        args, to = run.args, _to(run, move["new_opening_id"])
        if to is None:
            raise Refused("MIRROR_FAILED", [move["vdi"]])
        request = DiskPivot(uuid=args["vm_uuid"], start_id=args["start_id"], device=move["device"], to=to)
        try:
            await ask(run.pool, args["host"], request)
        except HostRefused as error:
            log.warning("VDI %s: %s", move["vdi_uuid"], error)
            if error.seam_code in NOT_EXCHANGED:
                raise Refused("MIRROR_FAILED", [move["vdi"]]) from error
            raise NobodyKnows(error.code, error.params) from error

    def commit(self, run: Run, tx: Transaction) -> None:
        for move in run.args["moves"]:
            if move["vdi"] in run.notes["stay"]:
                continue
            class_name, ref, fields = move["new"]
            tx.create(class_name, with_volume(run, fields), ref)
            for vbd in list(tx.get("VDI", move["vdi"])["VBDs"]):
                tx.set("VBD", vbd, VDI=ref)


@step
class DiskGoOn(Step):
    """args: host, vm, vm_uuid, runs, moves. A machine that has ended meanwhile needs nothing. One that the hypervisor
    does not let go on stays as it is, and the reconciler shows it: its disks have moved all the same."""

    name = "disk-go-on"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        try:
            await self._let_go_on(run)
        except HostRefused as error:
            log.error("VM %s, whose disks have moved, does not go on: %s", run.args["vm_uuid"], error)
            run.notes["failed"] = run.memory["failed"] = str(error.params[-1] if error.params else error.code)
        if "held_s" in run.memory:  # not after a crash
            stood_still_ms = round(1000 * (run.pool.clock.monotonic_s() - run.memory["held_s"]))
            run.notes["stood_still_ms"] = stood_still_ms
            log.info("VM %s stood still for %d ms", run.args["vm_uuid"], stood_still_ms)
        for move in run.args["moves"]:
            if move["vdi"] not in run.notes["stay"]:
                await self._tell_size(run, move)

    async def _let_go_on(self, run: Run) -> None:
        """Asked twice: the first answer may have been of something that passes."""
        try:
            await _unpause(run)
        except HostRefused:
            await _unpause(run)

    async def _tell_size(self, run: Run, move: dict[str, Any]) -> None:
        """Another SR may round sizes up to other units; what a guest cannot be told now it sees at its next start."""
        size_bytes = run.notes[f"volume:{move['new_uuid']}"]["virtual_size_bytes"]
        if size_bytes == move["size_bytes"]:
            return
        request = DiskResize(uuid=run.args["vm_uuid"], device=move["device"], size_bytes=size_bytes)
        with contextlib.suppress(HostRefused):
            await ask(run.pool, run.args["host"], request)

    def commit(self, run: Run, tx: Transaction) -> None:
        show_downtime(run, tx)


@step
class VolumeSettle(Step):
    """args: a move, and host, vm_uuid. What the VM does not have is closed and goes: the old volume, or the new one of
    a disk that stayed where it was."""

    name = "volume-settle"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args = run.args
        if self._stays(run):
            await _end_copy(run, args["new_opening_id"])
            gone = (args["new_sr"], args["new_uuid"], args["new_opening_id"])
        else:
            gone = (args["sr"], args["vdi_uuid"], args["opening_id"])
        await _take_away(run, *gone)

    def _stays(self, run: Run) -> bool:
        return run.args["vdi"] in run.notes["stay"]

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        if self._stays(run):
            forget_opening(tx, args["new_opening_id"])
            return
        forget_opening(tx, args["opening_id"])
        tx.destroy("VDI", args["vdi"])
        kept_changes.forget(run.pool.db, tx, args["vdi_uuid"], lambda uuid: _taken(run, uuid))


async def _take_away(run: Run, sr: str, vdi_uuid: str, opening_id: str) -> None:
    driver = driver_of(run.pool, sr)
    with storage_words(sr):
        seen = sr_as_driver_sees_it(run.pool.db, sr)
        await driver.close(seen, vdi_uuid, opening_id)
        await driver.volume_destroy(seen, vdi_uuid)


def _taken(run: Run, uuid: str) -> str:
    found = run.pool.db.where("VDI", uuid=uuid)
    return str(found[0][1]["snapshot_time"]) if found else ""
