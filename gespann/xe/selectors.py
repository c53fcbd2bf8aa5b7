"""Selecting the objects of an operation: ``vm=``, ``host=``, ``sr=``, ``uuid=`` or any field of their records."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import Record
from gespann.xe.call import Call
from gespann.xe.command_table import own_keys
from gespann.xe.error_texts import describe_refs, error_text
from gespann.xe.failures import CommandFailure, ParameterMissing, SeveralFailures, UnknownField
from gespann.xe.filters import needed_classes, parse_filters
from gespann.xe.messages import MessageWatch
from gespann.xe.records.catalog import object_classes
from gespann.xe.records.columns import Row

Selected = Row
Operation = Callable[[Selected], Awaitable[None]]


@dataclass(frozen=True)
class Selection:
    """How objects of one kind are selected. ``label``: the class in messages; ``nouns``: plural and singular in them;
    ``none_found``: what is said if nothing matches; ``shortcut``: a key that takes a uuid or any of ``names``."""

    object_class: str
    label: str
    plural: str
    singular: str
    none_found: str
    shortcut: str
    names: tuple[str, ...] = ("name_label",)
    implicit: tuple[tuple[str, str], ...] = ()


VMS = Selection(
    "vm", "VM", "VMs", "VM", "No matching VMs found", "vm",
    implicit=(("is-control-domain", "false"), ("is-a-template", "false")),
)  # fmt: skip
HOSTS = Selection("host", "Host", "hosts", "host", "No matching hosts found", "host", names=("name_label", "hostname"))
# With no SR the original speaks of hosts too; scripts may look for the text, so it stays.
SRS = Selection("sr", "SR", "SRs", "SR", "No matching hosts found", "sr")


async def select(call: Call, selection: Selection) -> list[Selected]:
    """All objects that match; all there are if nothing is asked for."""
    object_class = object_classes()[selection.object_class]
    records = await call.tables.all(object_class.api_class)
    rows = [Row(ref, record, call.tables) for ref, record in records.items()]
    wanted = call.arguments.get(selection.shortcut, None)
    if wanted is not None:
        rows = [row for row in rows if _is_called(row.record, wanted, selection)]
    pairs = call.arguments.filters(selection.shortcut, *own_keys(call.arguments.command))
    try:
        filters = parse_filters(object_class, [*selection.implicit, *pairs])
    except UnknownField as error:
        raise CommandFailure(
            f"Parameter '{error}' is not a field of the {selection.label} class."
            f" Failed to select {selection.label} for operation."
        ) from None
    await call.tables.fetch(needed_classes([found.column for found in filters]))
    return [row for row in rows if all(found.matches(row) for found in filters)]


def _is_called(record: Record, wanted: str, selection: Selection) -> bool:
    return wanted.lower() == str(record["uuid"]).lower() or wanted in [record.get(name) for name in selection.names]


async def select_one(call: Call, selection: Selection) -> Selected:
    found = await select(call, selection)
    if not found:
        raise CommandFailure(selection.none_found)
    if len(found) > 1:
        raise CommandFailure(
            f"Multiple matches {selection.plural} found."
            f" Operation can only be performed on one {selection.singular} at a time"
        )
    return found[0]


async def for_each(call: Call, selection: Selection, operation: Operation) -> None:
    """One object, or with ``--multiple`` any number. What fails for some of several is told when all were tried."""
    found = await select(call, selection)
    if not found:
        raise CommandFailure(selection.none_found)
    if len(found) > 1 and not call.arguments.boolean("multiple"):
        raise CommandFailure(
            f"Multiple matches {selection.plural} found. --multiple required to complete the operation"
        )
    if len(found) == 1:
        await operation(found[0])
        return
    failures = []
    for row in found:
        try:
            await operation(row)
        except XenApiError as error:
            text = error_text(error.code, await describe_refs(error, call.tables))
            failures.append((str(row.record["uuid"]), text.text or error.code))
        except CommandFailure as error:
            failures.append((str(row.record["uuid"]), str(error)))
    if failures:
        raise SeveralFailures(failures)


async def for_each_vm(call: Call, operation: Operation) -> None:
    """``for_each`` over VMs; messages that appear about a VM meanwhile are shown afterwards."""

    async def watched(row: Selected) -> None:
        watch = await MessageWatch.start(call, row)
        try:
            await operation(row)
        finally:
            await watch.show()

    await for_each(call, VMS, watched)


async def one_vm(call: Call) -> Selected:
    return await select_one(call, VMS)


async def snapshot_or_template(call: Call, *keys: str) -> Selected:
    """The VM record named by the first of ``keys`` that is given; its uuid must be known to the pool."""
    for key in keys:
        if (uuid := call.arguments.get(key, None)) is not None:
            ref = await call.ref_of("VM", uuid)
            return Row(ref, await call.request("VM.get_record", ref), call.tables)
    raise ParameterMissing(keys[0])
