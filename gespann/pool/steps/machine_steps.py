"""Steps on a machine that runs, which change how much it has."""

from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import HostRefused, ask
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.seams.host_agent import CpuTuning
from gespann.seams.host_machine import DomainMemory, DomainTune
from gespann.seams.xenapi.errors import XenApiError

KIB = 1024


@step
class MemoryTarget(Step):
    """args: host, vm, vm_uuid, target, before {field: bytes}. The plan's ``prepare`` has set the new fields."""

    name = "memory-target"

    async def do(self, run: Run) -> None:
        args = run.args
        try:
            await ask(run.pool, args["host"], DomainMemory(uuid=args["vm_uuid"], target_bytes=args["target"]))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                raise Refused("VM_BAD_POWER_STATE", [args["vm"], "running", "halted"]) from error
            if error.seam_code == "BAD_STATE":
                raise Refused("OPERATION_NOT_ALLOWED", [error.params[0]]) from error
            raise

    async def undo(self, run: Run) -> None:
        target = run.args["before"]["memory_dynamic_max"] // KIB * KIB
        try:
            await ask(run.pool, run.args["host"], DomainMemory(uuid=run.args["vm_uuid"], target_bytes=target))
        except HostRefused as error:
            if error.seam_code not in ("NOT_FOUND", "BAD_STATE"):
                raise

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("VM", run.args["vm"]):
            tx.set("VM", run.args["vm"], **run.args["before"])


@step
class CpuTune(Step):
    """args: host, vm, vm_uuid, params (of the record), tuning and before (CpuTuning as JSON)"""

    name = "cpu-tune"

    async def do(self, run: Run) -> None:
        args = run.args
        try:
            await ask(run.pool, args["host"], _tune(args["vm_uuid"], args["tuning"], args["before"]))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                raise XenApiError("VM_BAD_POWER_STATE", [args["vm"], "running", "halted"]) from error
            if error.seam_code == "REFUSED":
                raise XenApiError("OPERATION_NOT_ALLOWED", [error.params[0].removeprefix("REFUSED: ")]) from error
            raise

    async def undo(self, run: Run) -> None:
        """A host that can do a part of it only has done that part."""
        args = run.args
        try:
            await ask(run.pool, args["host"], _tune(args["vm_uuid"], args["before"], args["tuning"]))
        except HostRefused as error:
            if error.seam_code not in ("NOT_FOUND", "REFUSED"):
                raise

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("VM", run.args["vm"], VCPUs_params=run.args["params"])


def _tune(uuid: str, tuning: dict[str, Any], before: dict[str, Any]) -> DomainTune:
    return DomainTune(uuid=uuid, tuning=msgspec.convert(tuning, CpuTuning), before=msgspec.convert(before, CpuTuning))
