"""The messages that every class has: answered from the datamodel and the database, without a handler.

Setters, adders and removers write the field, or give its new value to the field's ``on_set`` hook.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gespann.pool.api import expressions
from gespann.pool.api.advertised import PLAIN_FIELDS
from gespann.pool.api.messages import SETTERS, Call, Handler
from gespann.pool.api.values import MEMBERS_LIMIT, STRING_LIMIT_CHARS, invalid
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Message, Type
from gespann.seams.xenapi.errors import XenApiError


def handler_of(message: Message) -> Handler | None:
    """None: the message is not generic."""
    if message.kind in _READERS:
        return _READERS[message.kind](message)
    writer = writer_kind(message)
    return _WRITERS[writer[0]](message, writer[1]) if writer else None


def writer_kind(message: Message) -> tuple[str, str] | None:
    """("setter" | "adder" | "remover", field), if the message writes one field and nothing else."""
    if message.kind in _WRITERS:
        return message.kind, message.field
    for prefix, kind in (("set_", "setter"), ("add_to_", "adder"), ("remove_from_", "remover")):
        name = message.name.removeprefix(prefix)
        if name != message.name and f"{message.class_name}.{name}" in PLAIN_FIELDS:
            return kind, name
    return None


# -- reading


def _get_record(message: Message) -> Handler:
    async def get_record(call: Call, ref: str) -> Mapping[str, Any]:
        return call.pool.db.get(message.class_name, ref)

    return get_record


def _getter(message: Message) -> Handler:
    async def getter(call: Call, ref: str) -> Any:
        return call.pool.db.get(message.class_name, ref)[message.field]

    return getter


def _get_by_uuid(message: Message) -> Handler:
    async def get_by_uuid(call: Call, uuid: str) -> str:
        return call.pool.db.by_uuid(message.class_name, uuid)

    return get_by_uuid


def _get_by_name_label(message: Message) -> Handler:
    async def get_by_name_label(call: Call, label: str) -> list[str]:
        return call.pool.db.by_name_label(message.class_name, label)

    return get_by_name_label


def _get_all(message: Message) -> Handler:
    async def get_all(call: Call) -> list[str]:
        return list(call.pool.db.all(message.class_name))

    return get_all


def _get_all_records(message: Message) -> Handler:
    async def get_all_records(call: Call) -> dict[str, Mapping[str, Any]]:
        return dict(call.pool.db.all(message.class_name))

    return get_all_records


def matching(call: Call, class_name: str, expr: str) -> dict[str, Mapping[str, Any]]:
    """INVALID_VALUE ["expr", why] if the expression cannot be read."""
    try:
        test = expressions.parse(expr, datamodel.classes()[class_name])
    except expressions.BadExpression as error:
        raise invalid("expr", f"{error}: {expr}") from None
    return {ref: record for ref, record in call.pool.db.all(class_name).items() if test(record)}


def _get_all_where(message: Message) -> Handler:
    async def get_all_where(call: Call, expr: str) -> list[str]:
        return list(matching(call, message.class_name, expr))

    return get_all_where


def _get_all_records_where(message: Message) -> Handler:
    async def get_all_records_where(call: Call, expr: str) -> dict[str, Mapping[str, Any]]:
        return matching(call, message.class_name, expr)

    return get_all_records_where


# -- writing


async def write_field(call: Call, class_name: str, ref: str, field: str, value: Any) -> None:
    check_size(field, value)
    hook = SETTERS.get(f"{class_name}.{field}")
    if hook is not None:
        await hook(call, ref, value)
        return
    with call.pool.db.transaction() as tx:
        tx.set(class_name, ref, **{field: value})


def check_size(field: str, value: Any) -> None:
    """A field is written whole at each change of its record, so that maps cannot grow for ever."""
    if isinstance(value, list | dict):
        texts = [*value, *value.values()] if isinstance(value, dict) else value
        if len(value) > MEMBERS_LIMIT or sum(len(str(text)) for text in texts) > 4 * STRING_LIMIT_CHARS:
            raise invalid(field, f"{len(value)} elements, too large together")


def _setter(message: Message, field: str) -> Handler:
    async def setter(call: Call, ref: str, value: Any) -> None:
        call.pool.db.get(message.class_name, ref)
        await write_field(call, message.class_name, ref, field, value)

    return setter


def _adder(message: Message, field: str) -> Handler:
    is_map = datamodel.classes()[message.class_name].fields[field].type.kind == "map"

    async def add_to_map(call: Call, ref: str, key: Any, value: Any) -> None:
        record = call.pool.db.get(message.class_name, ref)
        if key in record[field]:
            params = [message.class_name, field, str(record.get("uuid", "")), str(key)]
            raise XenApiError("MAP_DUPLICATE_KEY", params)
        await write_field(call, message.class_name, ref, field, {**record[field], key: value})

    async def add_to_set(call: Call, ref: str, value: Any) -> None:
        record = call.pool.db.get(message.class_name, ref)
        if value not in record[field]:
            await write_field(call, message.class_name, ref, field, [*record[field], value])

    return add_to_map if is_map else add_to_set


def _remover(message: Message, field: str) -> Handler:
    is_map = datamodel.classes()[message.class_name].fields[field].type.kind == "map"

    async def remover(call: Call, ref: str, gone: Any) -> None:
        record = call.pool.db.get(message.class_name, ref)
        if gone not in record[field]:
            return  # not an error: clients remove before they add
        if is_map:
            left: Any = {k: v for k, v in record[field].items() if k != gone}
        else:
            left = [item for item in record[field] if item != gone]
        await write_field(call, message.class_name, ref, field, left)

    return remover


_READERS: dict[str, Callable[[Message], Handler]] = {
    "get_record": _get_record,
    "getter": _getter,
    "get_by_uuid": _get_by_uuid,
    "get_by_name_label": _get_by_name_label,
    "get_all": _get_all,
    "get_all_records": _get_all_records,
    "get_all_where": _get_all_where,
    "get_all_records_where": _get_all_records_where,
}
_WRITERS: dict[str, Callable[[Message, str], Handler]] = {"setter": _setter, "adder": _adder, "remover": _remover}


# -- references


def check_refs(call: Call, type_: Type, value: Any) -> None:
    """HANDLE_INVALID [class, ref] for a ref, anywhere inside the value, of no record of its class."""
    if type_.kind == "ref":
        if value != NULL_REF and type_.name in call.pool.db.tables:
            call.pool.db.get(type_.name, value)
    elif type_.kind in ("set", "option") and type_.inner is not None and value:
        if type_.inner.kind == "ref":
            for item in value:
                check_refs(call, type_.inner, item)
    elif type_.kind == "map" and type_.key is not None and type_.inner is not None:
        for key, item in value.items():
            check_refs(call, type_.key, key)
            check_refs(call, type_.inner, item)
    elif type_.kind == "record":
        fields = datamodel.classes()[type_.name].fields
        for name, item in value.items():
            check_refs(call, fields[name].type, item)
