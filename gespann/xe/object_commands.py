"""The commands that every class has: list, param-list, param-get, param-set, param-add, param-remove, param-clear."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from gespann.xe.arguments import STANDARD_KEYS
from gespann.xe.call import Call, Handler
from gespann.xe.failures import CommandFailure, UnknownField
from gespann.xe.filters import needed_classes, parse_filters, split_part
from gespann.xe.printer import TableRecord
from gespann.xe.records import change
from gespann.xe.records.catalog import ObjectClass, object_classes
from gespann.xe.records.columns import Column, FieldAbsent, Row, Value

EXPENSIVE, SECRET = "<expensive field>", "<secret>"


@asynccontextmanager
async def _chosen_database(call: Call) -> AsyncIterator[Call]:
    """``database:vdi-uuid=`` reads the database kept on that VDI instead of the pool's own."""
    vdi_uuid = call.arguments.mapping("database").get("vdi-uuid")
    if vdi_uuid is None:
        yield call
        return
    session = str(await call.request("VDI.open_database", await call.ref_of("VDI", vdi_uuid)))
    try:
        yield replace(call, session=session)
    finally:
        await call.api.call("session.logout", session)


async def list_objects(object_class: ObjectClass, call: Call) -> None:
    async with _chosen_database(call) as chosen:
        await _list(object_class, chosen)


async def _list(object_class: ObjectClass, call: Call) -> None:
    records = await call.tables.all(object_class.api_class)
    typed = [(k, v) for k, v in call.arguments.filters("params") if not k.startswith("database:")]
    # As in the original, nobody is told about an unknown field where there is no object to look at.
    filters = parse_filters(object_class, [*object_class.filters, *typed]) if records else []
    columns = selected_columns(object_class, call.arguments.get("params", None))
    await call.tables.fetch(needed_classes([*columns, *(found.column for found in filters)]))
    rows = [Row(ref, record, call.tables) for ref, record in records.items()]
    if not call.arguments.boolean("all"):
        rows = [row for row in rows if all(found.matches(row) for found in filters)]
        if object_class.name == "role" and not typed:  # permissions are roles too, two thousand of them
            rows = [row for row in rows if row.record["subroles"]]
    await call.printer.table([table_record(columns, row) for row in rows])


def selected_columns(object_class: ObjectClass, wanted: str | None) -> list[Column]:
    """Always in the class's own order; names that it does not have are passed over."""
    names = object_class.default_columns if wanted is None else () if wanted == "all" else tuple(wanted.split(","))
    return [column for column in object_class.columns if not column.hidden and (not names or column.name in names)]


def table_record(columns: Sequence[Column], row: Row) -> TableRecord:
    found = []
    for column in columns:
        try:
            value = EXPENSIVE if column.expensive else SECRET if column.secret else column.printed(column.read(row))
        except FieldAbsent:
            continue
        found.append((column.heading, value))
    return found


async def read_value(call: Call, column: Column, row: Row) -> Value:
    await call.tables.fetch(column.needs)
    return column.read(row) if column.fetch is None else await column.fetch(call, row)


async def single_row(object_class: ObjectClass, call: Call) -> Row:
    """The object named by ``uuid=``. XenApiError UUID_INVALID if there is none."""
    ref = await call.ref_of(object_class.api_class, call.arguments.required("uuid"))
    return Row(ref, await call.request(f"{object_class.api_class}.get_record", ref), call.tables)


async def list_parameters(object_class: ObjectClass, call: Call) -> None:
    async with _chosen_database(call) as chosen:
        row = await single_row(object_class, chosen)
        found = []
        for column in object_class.columns:
            if not column.hidden:
                try:
                    shown = SECRET if column.secret else column.printed(await read_value(chosen, column, row))
                    found.append((column.heading, shown))
                except FieldAbsent:
                    continue
        await call.printer.table([found])


def _named_column(object_class: ObjectClass, call: Call) -> Column:
    name = call.arguments.required("param-name")
    column = object_class.column(name)
    if column is None:
        raise UnknownField(name)
    return column


async def get_parameter(object_class: ObjectClass, call: Call) -> None:
    async with _chosen_database(call) as chosen:
        row = await single_row(object_class, chosen)
        column = _named_column(object_class, chosen)
        try:
            value = await read_value(chosen, column, row)
        except FieldAbsent:
            raise UnknownField(column.name) from None
        key = call.arguments.get("param-key", None)
        if key is not None and column.is_map:
            pairs = value if isinstance(value, dict) else {}
            if key not in pairs:
                raise CommandFailure(f"Key {key} not found in map")
            value = pairs[key]
        await call.printer.values([column.printed(value)])


async def set_parameters(object_class: ObjectClass, call: Call) -> None:
    row = await single_row(object_class, call)
    maps: dict[str, dict[str, str]] = {}
    for name, value in call.arguments.filters("uuid"):
        column = object_class.column(name)
        if column is not None:
            await change.set_field(call, object_class, column, row.ref, value)
            continue
        column, key = split_part(object_class, name)
        if column.is_set:
            raise CommandFailure("Cannot param-set on set fields")
        maps.setdefault(column.name, {}).setdefault(key, value)
    for name, entries in maps.items():
        if column := object_class.column(name):
            await change.set_map_entries(call, object_class, column, row, entries)


async def add_parameter(object_class: ObjectClass, call: Call) -> None:
    row = await single_row(object_class, call)
    column = _named_column(object_class, call)
    if not (column.is_set or column.is_map):
        raise CommandFailure("Can only add to parameters of type Set or Map")
    if not column.writable:
        raise CommandFailure("Parameter is read-only")
    if column.is_set:
        key = call.arguments.get("param-key", None)
        if key is None:
            raise CommandFailure(
                "When adding a key to a set, use the syntax: *-param-add param-name=<name> param-key=<key>"
            )
        await change.add_to_set(call, object_class, column, row, key)
        return
    own = STANDARD_KEYS | {"uuid", "param-name", "param-key"}
    for key, value in [(k, v) for k, v in call.arguments.pairs if k not in own]:
        await change.add_to_map(call, object_class, column, row, key, value)


async def remove_parameter(object_class: ObjectClass, call: Call) -> None:
    row = await single_row(object_class, call)
    column = _named_column(object_class, call)
    key = call.arguments.required("param-key")
    if not (column.is_set or column.is_map):
        raise CommandFailure("Can only remove from parameters of type Set or Map")
    if not column.writable:
        raise CommandFailure("Cannot remove parameters from read-only map")
    await call.tables.fetch(column.needs)
    if column.is_set:
        if key not in column.members(row):
            raise CommandFailure(f"Key {key} is not in the set")
        await change.remove_from_set(call, object_class, column, row, key)
        return
    if key not in column.pairs(row):
        raise CommandFailure(f"Key {key} is not in map")
    await change.remove_from_map(call, object_class, column, row, key)


async def clear_parameter(object_class: ObjectClass, call: Call) -> None:
    row = await single_row(object_class, call)
    column = _named_column(object_class, call)
    await call.tables.fetch(column.needs)
    await change.clear(call, object_class, column, row)


_Generated = Callable[[ObjectClass, Call], Awaitable[None]]
_READING: dict[str, _Generated] = {
    "list": list_objects,
    "param-list": list_parameters,
    "param-get": get_parameter,
}
_CHANGING: dict[str, _Generated] = {
    "param-set": set_parameters,
    "param-add": add_parameter,
    "param-remove": remove_parameter,
    "param-clear": clear_parameter,
}


def generated_commands() -> dict[str, Handler]:
    """All of them for all classes; the command table decides which of these exist."""
    return {
        f"{name}-{verb}": partial(run, object_class)
        for name, object_class in object_classes().items()
        for verb, run in (_READING | _CHANGING).items()
    }
