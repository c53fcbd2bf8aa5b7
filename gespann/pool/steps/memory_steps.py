"""Steps that put a VM's memory into a volume and take it out again.

Two moments count. A suspended VM is one from the instant its record says so, with its image durable and its domain
still there, paused: only then does the domain go. A resumed VM has used its image up from the instant its record says
so, with its domain there and still paused: only then may the guest go on. So there is never an image older than the
disks, and never a VM with neither image nor domain.
"""

import asyncio
import contextlib
from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.domain_steps import disk_with_source
from gespann.pool.steps.host_door import HostRefused, ask, ask_unless_gone
from gespann.pool.steps.openings import Start, forget_start, record_start
from gespann.pool.steps.record_steps import with_volume
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.vm_records import show_running, show_suspended
from gespann.seams.host_agent import (
    Domain,
    DomainDestroy,
    DomainRestore,
    DomainSpec,
    DomainUnpause,
    MemoryProgress,
    MemorySave,
    MemoryStop,
)
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

SLOWEST_BYTES_PER_S = 4 * 1024**2  # what is slower counts as hanging
LEAST_S = 120.0
PROGRESS_EVERY_S = 1.0
ANSWER_MARGIN_S = 20.0  # the agent's own deadline comes first


def _within_s(memory_bytes: int) -> float:
    return LEAST_S + memory_bytes / SLOWEST_BYTES_PER_S


@step
class MemoryWrite(Step):
    """args: host, vm, vm_uuid, start_id, opening_id, memory_bytes. The domain is paused, and stays it."""

    name = "memory-save"

    async def do(self, run: Run) -> None:
        args = run.args
        within_s = _within_s(args["memory_bytes"])
        request = MemorySave(
            uuid=args["vm_uuid"],
            start_id=args["start_id"],
            image_id=args["opening_id"],
            target=run.memory["sources"][args["opening_id"]],
            timeout_s=within_s,
        )
        watching = asyncio.create_task(_show_progress(run))
        try:
            await run.unless_cut_short(ask(run.pool, args["host"], request, timeout_s=within_s + ANSWER_MARGIN_S))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                raise Refused("VM_BAD_POWER_STATE", [args["vm"], "running", "halted"]) from error
            raise
        finally:
            watching.cancel()

    async def undo(self, run: Run) -> None:
        await ask(run.pool, run.args["host"], MemoryStop(image_id=run.args["opening_id"]))


async def _show_progress(run: Run) -> None:
    while True:
        await run.pool.clock.sleep(PROGRESS_EVERY_S)
        with contextlib.suppress(XenApiError):
            reply = await ask(run.pool, run.args["host"], MemoryProgress(image_id=run.args["opening_id"]))
            run.progress(reply.fraction)


@step
class VmSuspended(Step):
    """args: vm, image (class, ref, fields of the VDI's record)"""

    name = "vm-suspended"
    point_of_no_return = True

    def commit(self, run: Run, tx: Transaction) -> None:
        class_name, ref, fields = run.args["image"]
        tx.create(class_name, with_volume(run, fields), ref)
        forget_start(tx, run.args["vm"])
        show_suspended(tx, run.args["vm"], ref)


@step
class DomainEnd(Step):
    """args: host, vm_uuid, start_id. The power cord, for a domain that the records no longer count."""

    name = "domain-end"

    async def do(self, run: Run) -> None:
        args = run.args
        await ask(run.pool, args["host"], DomainDestroy(uuid=args["vm_uuid"], start_id=args["start_id"]))


@step
class MemoryRead(Step):
    """args: host, vm, spec (as ``domain-start`` takes it), opening_id. The domain is there then, paused."""

    name = "domain-restore"

    async def do(self, run: Run) -> None:
        args = run.args
        shape: dict[str, Any] = dict(args["spec"])
        disks = [disk_with_source(run, disk) for disk in shape.pop("disks")]
        spec = msgspec.structs.replace(msgspec.convert({**shape, "disks": []}, DomainSpec), disks=disks)
        within_s = _within_s(spec.memory_bytes)
        source = run.memory["sources"][args["opening_id"]]
        request = DomainRestore(spec=spec, image_id=args["opening_id"], memory=source, timeout_s=within_s)
        domain: Domain = await run.unless_cut_short(
            ask(run.pool, args["host"], request, timeout_s=within_s + ANSWER_MARGIN_S)
        )
        run.notes["domain"] = msgspec.to_builtins(domain)

    async def undo(self, run: Run) -> None:
        args = run.args
        await ask(run.pool, args["host"], MemoryStop(image_id=args["opening_id"]))
        await ask(run.pool, args["host"], DomainDestroy(uuid=args["spec"]["uuid"], start_id=args["spec"]["start_id"]))


@step
class VmResumed(Step):
    """args: host, vm, start_id, vbds {ref: device name}. From here on the image is not used again, whatever happens."""

    name = "vm-resumed"
    point_of_no_return = True

    def commit(self, run: Run, tx: Transaction) -> None:
        args, pool = run.args, run.pool
        domain = msgspec.convert(run.notes["domain"], Domain)
        record_start(tx, Start(args["vm"], args["start_id"], args["host"]))
        show_running(tx, args["vm"], args["host"], domain, pool.clock.now(), pool.tls_port, booted=False)
        tx.set("VM", args["vm"], suspend_VDI=NULL_REF)
        for vbd, device in args["vbds"].items():
            tx.set("VBD", vbd, device=device)


@step
class GuestGoesOn(Step):
    """args: host, vm, vm_uuid. A domain that has gone meanwhile may have run before: its host will tell."""

    name = "guest-goes-on"

    async def do(self, run: Run) -> None:
        await ask_unless_gone(run.pool, run.args["host"], DomainUnpause(uuid=run.args["vm_uuid"]))

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("VM", run.args["vm"], power_state="Running")
