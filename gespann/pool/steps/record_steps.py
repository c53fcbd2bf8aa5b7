"""Steps that only change records: the last act of an operation whose outcome becomes visible at once, whole."""

from typing import Any

from gespann.pool.model.database import Transaction
from gespann.pool.steps.registry import Run, Step, step
from gespann.pool.steps.volume_steps import volume_fields


@step
class RecordsWrite(Step):
    """args: destroy [(class, ref)], create [(class, ref, fields)], set [(class, ref, fields)], done in this order: what
    is created may have the uuid of what goes.

    A VDI among ``create`` and ``set`` takes what the storage said of its volume from the notes (``volume``: uuid)."""

    name = "records-write"

    def commit(self, run: Run, tx: Transaction) -> None:
        for class_name, ref in run.args.get("destroy", []):
            tx.destroy(class_name, ref)
        for class_name, ref, fields in run.args.get("create", []):
            tx.create(class_name, with_volume(run, fields), ref)
        for class_name, ref, fields in run.args.get("set", []):
            tx.set(class_name, ref, **with_volume(run, fields))


def show_downtime(run: Run, tx: Transaction) -> None:
    """In the task: for how long the guest stood still. ``notes["stood_still_ms"]``; after a crash nobody knows."""
    if "stood_still_ms" in run.notes and run.task is not None and tx.exists("task", run.task.ref):
        other_config = tx.get("task", run.task.ref)["other_config"]
        shown = {**other_config, "downtime_ms": str(run.notes["stood_still_ms"])}
        tx.set("task", run.task.ref, other_config=shown)


def with_volume(run: Run, fields: dict[str, Any]) -> dict[str, Any]:
    fields = dict(fields)
    vdi_uuid = fields.pop("volume", None)
    if vdi_uuid is not None:
        fields.update(volume_fields(run.notes[f"volume:{vdi_uuid}"]))
    return fields


@step
class VdiSwitch(Step):
    """args: vdi, new (class, ref, fields). Who used the one VDI uses the other from now on: its contents are equal."""

    name = "vdi-switch"
    point_of_no_return = True

    def commit(self, run: Run, tx: Transaction) -> None:
        class_name, ref, fields = run.args["new"]
        tx.create(class_name, with_volume(run, fields), ref)
        for vbd in list(tx.get("VDI", run.args["vdi"])["VBDs"]):
            tx.set("VBD", vbd, VDI=ref)


@step
class RecordsOwn(Step):
    """args: destroy [(class, ref)]: records that the plan's ``prepare`` made. First act; undone, they go."""

    name = "records-own"

    def revert(self, run: Run, tx: Transaction) -> None:
        for class_name, ref in run.args["destroy"]:
            tx.destroy(class_name, ref)
