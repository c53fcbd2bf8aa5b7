"""Steps on domains as a whole. A domain is meant by VM uuid and ``start_id``: news of another start changes nothing."""

import logging
from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import HostRefused, ask, ask_unless_gone
from gespann.pool.steps.openings import Start, forget_start, record_start
from gespann.pool.steps.reboots import ask_for_reboot
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.vm_records import show_running, show_stopped
from gespann.seams.engine_socket import Request
from gespann.seams.host_agent import (
    BridgeEnsure,
    Disk,
    Domain,
    DomainCreate,
    DomainDestroy,
    DomainList,
    DomainPause,
    DomainReset,
    DomainShutdown,
    DomainSpec,
    DomainUnpause,
    DomainVcpus,
)
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

SHUTDOWN_WITHIN_S = 180.0
ANSWER_MARGIN_S = 20.0  # the agent's own deadline comes first
LOOK_WITHIN_S = 5.0


async def ask_of_machine(run: Run, vm_uuid: str, request: Request) -> Any:
    """As ``ask``; a machine that has stopped by itself is the caller's news, not our failure."""
    try:
        return await ask(run.pool, run.args["host"], request)
    except HostRefused as error:
        if error.seam_code == "NOT_FOUND":
            vm = run.pool.db.by_uuid("VM", vm_uuid)
            raise Refused("VM_BAD_POWER_STATE", [vm, "running", "halted"]) from error
        raise


@step
class VmClaim(Step):
    """args: vm. The plan's ``prepare`` has set ``scheduled_to_be_resident_on``, so that others count its memory."""

    name = "vm-claim"

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VM", run.args["vm"]):
            tx.set("VM", run.args["vm"], scheduled_to_be_resident_on=NULL_REF)


@step
class BridgeReady(Step):
    """args: host, bridge, mtu. A bridge that is there harms nobody: not undone."""

    name = "bridge-ready"

    async def do(self, run: Run) -> None:
        try:
            await ask(run.pool, run.args["host"], BridgeEnsure(bridge=run.args["bridge"], mtu=run.args["mtu"]))
        except HostRefused as error:
            found = run.pool.db.where("network", bridge=run.args["bridge"])
            if error.seam_code != "BAD_STATE" or not found:
                raise
            log.warning("%s", error.params[-1])  # the host has something else of that name
            raise Refused("HOST_CANNOT_ATTACH_NETWORK", [run.args["host"], found[0][0]]) from error


def disk_with_source(run: Run, shape: dict[str, Any]) -> Disk:
    """``shape``: a Disk as JSON with ``opening_id`` ("" for an empty drive) in the place of its source."""
    shape = dict(shape)
    opening_id = shape.pop("opening_id")
    source = run.memory["sources"][opening_id] if opening_id else None
    return Disk(source=source, **shape)


@step
class DomainStart(Step):
    """args: host, vm, spec (DomainSpec as JSON, its disks shapes as ``disk_with_source`` takes them), vbds {ref: device
    name}, vifs [ref]"""

    name = "domain-start"

    async def do(self, run: Run) -> None:
        shape = dict(run.args["spec"])
        disks = [disk_with_source(run, disk) for disk in shape.pop("disks")]
        spec = msgspec.convert({**shape, "disks": []}, DomainSpec)
        domain: Domain = await ask(
            run.pool, run.args["host"], DomainCreate(spec=msgspec.structs.replace(spec, disks=disks))
        )
        run.notes["domain"] = msgspec.to_builtins(domain)

    async def undo(self, run: Run) -> None:
        spec = run.args["spec"]
        await ask(run.pool, run.args["host"], DomainDestroy(uuid=spec["uuid"], start_id=spec["start_id"]))

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        domain = msgspec.convert(run.notes["domain"], Domain)
        record_start(tx, Start(args["vm"], args["spec"]["start_id"], args["host"]))
        show_running(tx, args["vm"], args["host"], domain, run.pool.clock.now(), run.pool.tls_port)
        for vbd, device in args["vbds"].items():
            tx.set("VBD", vbd, currently_attached=True, device=device)
        for vif in args["vifs"]:
            tx.set("VIF", vif, currently_attached=True)

    def revert(self, run: Run, tx: Transaction) -> None:
        forget_start(tx, run.args["vm"])
        show_stopped(tx, run.args["vm"])


@step
class DomainStop(Step):
    """args: host, vm, vm_uuid, start_id. The power cord; also right when the domain is gone already."""

    name = "domain-stop"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args = run.args
        await ask(run.pool, args["host"], DomainDestroy(uuid=args["vm_uuid"], start_id=args["start_id"]))

    def commit(self, run: Run, tx: Transaction) -> None:
        forget_start(tx, run.args["vm"])
        show_stopped(tx, run.args["vm"])


@step
class DomainForget(Step):
    """args: vm. The VM counts as stopped, whatever its host would say; closing its volumes then shuts it out."""

    name = "domain-forget"
    point_of_no_return = True

    def commit(self, run: Run, tx: Transaction) -> None:
        forget_start(tx, run.args["vm"])
        show_stopped(tx, run.args["vm"])


@step
class GuestShutdown(Step):
    """args: host, vm, vm_uuid, reboot. Asks the guest and waits for it; what it does cannot be undone, and what it did
    is seen from the host."""

    name = "guest-shutdown"
    too_late_to_cancel = True

    async def do(self, run: Run) -> None:
        args = run.args
        if args["reboot"]:
            ask_for_reboot(run.pool, args["vm_uuid"])
        request = DomainShutdown(uuid=args["vm_uuid"], reboot=args["reboot"], timeout_s=SHUTDOWN_WITHIN_S)
        try:
            await run.unless_cut_short(
                ask(run.pool, args["host"], request, timeout_s=SHUTDOWN_WITHIN_S + ANSWER_MARGIN_S)
            )
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                if not args["reboot"]:
                    return  # it has stopped by itself meanwhile
                raise Refused("VM_BAD_POWER_STATE", [args["vm"], "running", "halted"]) from error
            if error.seam_code in ("REFUSED", "TIMEOUT", "GUEST_AGENT"):
                raise Refused("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", [args["vm"]]) from error
            raise
        except XenApiError as error:
            if error.code != "TASK_CANCELLED" or args["reboot"] or not await self._has_stopped(run):
                raise  # else the guest was as quick as whoever did not want to wait for it: it has happened

    async def _has_stopped(self, run: Run) -> bool:
        try:
            reply = await ask(run.pool, run.args["host"], DomainList(), timeout_s=LOOK_WITHIN_S)
        except XenApiError:
            return False
        return all(domain.uuid != run.args["vm_uuid"] for domain in reply.domains)


@step
class DomainRestart(Step):
    """args: host, vm_uuid. The reset button."""

    name = "domain-restart"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        ask_for_reboot(run.pool, run.args["vm_uuid"])
        await ask_of_machine(run, run.args["vm_uuid"], DomainReset(uuid=run.args["vm_uuid"]))


@step
class VcpusSet(Step):
    """args: host, vm, vm_uuid, vcpus, before. A guest need not let go of what it has been given: then it keeps it."""

    name = "vcpus-set"

    async def do(self, run: Run) -> None:
        args = run.args
        try:
            await ask_of_machine(run, args["vm_uuid"], DomainVcpus(uuid=args["vm_uuid"], vcpus=args["vcpus"]))
        except HostRefused as error:
            if error.seam_code in ("BAD_STATE", "REFUSED"):
                raise Refused("OPERATION_NOT_ALLOWED", [error.params[0]]) from error
            raise

    async def undo(self, run: Run) -> None:
        args = run.args
        try:
            await ask(run.pool, args["host"], DomainVcpus(uuid=args["vm_uuid"], vcpus=args["before"]))
        except HostRefused as error:
            if error.seam_code not in ("NOT_FOUND", "REFUSED"):
                raise

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        tx.set("VM", args["vm"], VCPUs_at_startup=args["vcpus"])
        metrics = tx.get("VM", args["vm"])["metrics"]
        if tx.exists("VM_metrics", metrics):
            tx.set("VM_metrics", metrics, VCPUs_number=args["vcpus"])


class _PauseOrNot(Step):
    """args: host, vm, vm_uuid"""

    pauses = True

    async def do(self, run: Run) -> None:
        await ask_of_machine(run, run.args["vm_uuid"], self._request(run, self.pauses))

    async def undo(self, run: Run) -> None:
        await ask_unless_gone(run.pool, run.args["host"], self._request(run, not self.pauses))

    def _request(self, run: Run, paused: bool) -> Request:
        uuid = run.args["vm_uuid"]
        return DomainPause(uuid=uuid) if paused else DomainUnpause(uuid=uuid)

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("VM", run.args["vm"], power_state="Paused" if self.pauses else "Running")

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VM", run.args["vm"]):
            tx.set("VM", run.args["vm"], power_state="Running" if self.pauses else "Paused")


@step
class GuestPause(_PauseOrNot):
    name = "domain-pause"
    pauses = True


@step
class GuestUnpause(_PauseOrNot):
    name = "domain-unpause"
    pauses = False
