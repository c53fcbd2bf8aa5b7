"""Steps on the devices of a running domain. ``vm_uuid`` names the domain; one that is gone has no devices left."""

import logging

from gespann.pool.model.database import Transaction
from gespann.pool.steps.domain_steps import ask_of_machine, disk_with_source
from gespann.pool.steps.host_door import HostRefused, ask, ask_unless_gone
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.seams.engine_socket import Request
from gespann.seams.host_agent import Disk, DiskAttach, DiskDetach, DiskResize, Nic, NicAttach, NicDetach
from gespann.seams.xenapi.datamodel import NULL_REF

log = logging.getLogger(__name__)

UNPLUG_WITHIN_S = 30.0
ANSWER_MARGIN_S = 20.0


async def _unless_gone(run: Run, request: Request) -> None:
    await ask_unless_gone(run.pool, run.args["host"], request, UNPLUG_WITHIN_S + ANSWER_MARGIN_S)


async def _unplug(run: Run, class_name: str, ref: str, request: Request) -> None:
    try:
        await _unless_gone(run, request)
    except HostRefused as error:
        if error.seam_code in ("REFUSED", "TIMEOUT"):
            raise Refused("DEVICE_DETACH_REJECTED", [class_name, ref, error.params[-1]]) from error
        raise


def _show(tx: Transaction, class_name: str, ref: str, *, attached: bool, device: str | None = None) -> None:
    if tx.exists(class_name, ref):
        fields = {"currently_attached": attached} | ({} if device is None else {"device": device})
        tx.set(class_name, ref, **fields)


@step
class DiskPlug(Step):
    """args: host, vm_uuid, vbd, disk (shape), device_name"""

    name = "disk-plug"

    async def do(self, run: Run) -> None:
        disk = disk_with_source(run, run.args["disk"])
        await ask_of_machine(run, run.args["vm_uuid"], DiskAttach(uuid=run.args["vm_uuid"], disk=disk))

    async def undo(self, run: Run) -> None:
        request = DiskDetach(uuid=run.args["vm_uuid"], device=run.args["disk"]["device"], timeout_s=UNPLUG_WITHIN_S)
        await _unless_gone(run, request)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VBD", run.args["vbd"], attached=True, device=run.args["device_name"])

    def revert(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VBD", run.args["vbd"], attached=False, device="")


@step
class DiskUnplug(Step):
    """args: host, vm_uuid, vbd, device"""

    name = "disk-unplug"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        request = DiskDetach(uuid=run.args["vm_uuid"], device=run.args["device"], timeout_s=UNPLUG_WITHIN_S)
        await _unplug(run, "VBD", run.args["vbd"], request)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VBD", run.args["vbd"], attached=False, device="")


@step
class DiskGrow(Step):
    """args: host, vm_uuid, vdi, device. Tells a running guest the size that the storage has now. One whose disk has
    moved here from storage with other units sees it at its next start."""

    name = "disk-grow"

    async def do(self, run: Run) -> None:
        size_bytes = run.pool.db.get("VDI", run.args["vdi"])["virtual_size"]
        request = DiskResize(uuid=run.args["vm_uuid"], device=run.args["device"], size_bytes=size_bytes)
        try:
            await _unless_gone(run, request)
        except HostRefused as error:
            if error.seam_code != "BAD_STATE":
                raise
            log.warning("%s", error.params[-1])


@step
class MediumInsert(Step):
    """args: host ("" for a VM that does not run), vm_uuid, vbd, vdi, disk (shape), empty (shape of the empty drive)"""

    name = "medium-insert"

    async def do(self, run: Run) -> None:
        if run.args["host"]:
            disk = disk_with_source(run, run.args["disk"])
            await ask_of_machine(run, run.args["vm_uuid"], DiskAttach(uuid=run.args["vm_uuid"], disk=disk))

    async def undo(self, run: Run) -> None:
        if run.args["host"]:
            disk = disk_with_source(run, run.args["empty"])
            await _unless_gone(run, DiskAttach(uuid=run.args["vm_uuid"], disk=disk))

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("VBD", run.args["vbd"], VDI=run.args["vdi"], empty=False)

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VBD", run.args["vbd"]):
            tx.set("VBD", run.args["vbd"], VDI=NULL_REF, empty=True)


@step
class MediumEject(Step):
    """args: host ("" for a VM that does not run), vm_uuid, vbd, empty (shape)"""

    name = "medium-eject"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        if run.args["host"]:
            disk: Disk = disk_with_source(run, run.args["empty"])
            request = DiskAttach(uuid=run.args["vm_uuid"], disk=disk)
            await _unplug(run, "VBD", run.args["vbd"], request)

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("VBD", run.args["vbd"], VDI=NULL_REF, empty=True)


@step
class NicPlug(Step):
    """args: host, vm_uuid, vif, nic"""

    name = "nic-plug"

    async def do(self, run: Run) -> None:
        nic = Nic(**run.args["nic"])
        await ask_of_machine(run, run.args["vm_uuid"], NicAttach(uuid=run.args["vm_uuid"], nic=nic))

    async def undo(self, run: Run) -> None:
        request = NicDetach(uuid=run.args["vm_uuid"], device=run.args["nic"]["device"], timeout_s=UNPLUG_WITHIN_S)
        await _unless_gone(run, request)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VIF", run.args["vif"], attached=True)

    def revert(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VIF", run.args["vif"], attached=False)


@step
class NicMove(Step):
    """args: host, vm_uuid, vif, network, nic, network_before, before (where it was)"""

    name = "nic-move"

    async def do(self, run: Run) -> None:
        await ask(run.pool, run.args["host"], NicAttach(uuid=run.args["vm_uuid"], nic=Nic(**run.args["nic"])))

    async def undo(self, run: Run) -> None:
        request = NicAttach(uuid=run.args["vm_uuid"], nic=Nic(**run.args["before"]))
        await ask_unless_gone(run.pool, run.args["host"], request)

    def commit(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VIF", run.args["vif"]):
            tx.set("VIF", run.args["vif"], network=run.args["network"])

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VIF", run.args["vif"]):
            tx.set("VIF", run.args["vif"], network=run.args["network_before"])


@step
class NicLock(Step):
    """args: host, vm_uuid, vif, nic, before (what it may and might), fields (of its record, then)"""

    name = "nic-lock"

    async def do(self, run: Run) -> None:
        await ask(run.pool, run.args["host"], NicAttach(uuid=run.args["vm_uuid"], nic=Nic(**run.args["nic"])))

    async def undo(self, run: Run) -> None:
        request = NicAttach(uuid=run.args["vm_uuid"], nic=Nic(**run.args["before"]))
        await _unless_gone(run, request)

    def commit(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VIF", run.args["vif"]):
            tx.set("VIF", run.args["vif"], **run.args["fields"])


@step
class NicUnplug(Step):
    """args: host, vm_uuid, vif, device"""

    name = "nic-unplug"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        request = NicDetach(uuid=run.args["vm_uuid"], device=run.args["device"], timeout_s=UNPLUG_WITHIN_S)
        await _unplug(run, "VIF", run.args["vif"], request)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(tx, "VIF", run.args["vif"], attached=False)
