"""Changing one column of one object: which XenAPI messages do it, and how typed text becomes a value."""

from typing import Any

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.arguments import FALSE_WORDS, TRUE_WORDS, parse_size
from gespann.xe.call import Call
from gespann.xe.failures import CommandFailure
from gespann.xe.records.catalog import ObjectClass
from gespann.xe.records.columns import Column, Row
from gespann.xe.records.spelling import parsed, printed
from gespann.xe.tables import class_name

# Maps that the API only takes one key at a time, or only whole: (class, attribute) -> message.
_SET_ONE_KEY = {("Bond", "properties"): "Bond.set_property", ("PIF", "properties"): "PIF.set_property"}
_SET_WHOLE = {("VM", "bios_strings"): "VM.set_bios_strings"}
#: what of a VM that runs takes effect at once: (class, attribute) -> message, which replaces a key that is there
_LIVE = {("VM", "VCPUs_params"): "VM.add_to_VCPUs_params_live"}
_EXTRA_WRITABLE_MAPS = frozenset([*_SET_ONE_KEY, *_SET_WHOLE])


# Sets whose messages are named after one member.
_ONE_MEMBER = {("pool", "repositories"): "repository", ("Caller", "groups"): "group"}


def _message(object_class: ObjectClass, verb: str, column: Column) -> str | None:
    attribute = column.attribute
    if verb in ("add", "remove"):
        attribute = _ONE_MEMBER.get((object_class.api_class, attribute), attribute)
    known = datamodel.classes()[object_class.api_class].messages
    return f"{object_class.api_class}.{verb}_{attribute}" if attribute and f"{verb}_{attribute}" in known else None


#: sets that the original takes one member at a time only, by ``param-add``
_MEMBER_BY_MEMBER = frozenset({"tags", "purpose", "groups"})


def settable(object_class: ObjectClass, column: Column) -> bool:
    """Also whole sets: ``vif-param-set ipv4-allowed=10.0.0.7,10.0.0.8``."""
    whole = column.tag == "RW" or (column.tag == "SRW" and column.name not in _MEMBER_BY_MEMBER)
    return whole and _message(object_class, "set", column) is not None


def map_changeable(object_class: ObjectClass, column: Column) -> bool:
    key = (object_class.api_class, column.attribute)
    return column.is_map and (column.writable or key in _EXTRA_WRITABLE_MAPS)


async def typed_value(call: Call, object_class: ObjectClass, column: Column, text: str) -> Any:
    """``text`` as a value of the column's type. CommandFailure says what was expected."""
    if column.type.kind == "set" and column.type.inner:
        words = [word for word in text.split(",") if word]
        return [await _typed_scalar(call, column, column.type.inner, word) for word in words]
    if column.type.kind == "int" and object_class.api_class == "VM" and column.name.startswith("memory-"):
        return parse_size(column.name, text)
    return await _typed_scalar(call, column, column.type, text)


async def add_to_map(call: Call, object_class: ObjectClass, column: Column, row: Row, key: str, value: str) -> None:
    """XenApiError MAP_DUPLICATE_KEY if the key is there already."""
    live = _LIVE.get((object_class.api_class, column.attribute))
    if live is not None and row.record["power_state"] == "Running":
        await call.request(live, row.ref, key, value)
        return
    if message := _message(object_class, "add_to", column):
        await call.request(message, row.ref, key, value)
        return
    if key in (entries := row.attribute(column.attribute)):
        raise XenApiError("MAP_DUPLICATE_KEY", [object_class.api_class, column.attribute, row.record["uuid"], key])
    await _set_whole(call, object_class, column, row, entries | {key: value})


async def remove_from_map(call: Call, object_class: ObjectClass, column: Column, row: Row, key: str) -> None:
    if message := _message(object_class, "remove_from", column):
        await call.request(message, row.ref, key)
        return
    kept = {found: value for found, value in row.attribute(column.attribute).items() if found != key}
    await _set_whole(call, object_class, column, row, kept)


async def _typed_scalar(call: Call, column: Column, type_: Type, text: str) -> Any:
    try:
        match type_.kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
    except ValueError:
        expected = "an integer" if type_.kind == "int" else "a floating-point number"
        raise CommandFailure(f"Parameter {column.name} must be {expected}") from None
    match type_.kind:
        case "bool":
            return _typed_boolean(column, text)
        case "enum":
            return _typed_enum(type_.name, text)
        case "ref":
            return NULL_REF if text in ("", NULL_REF) else await call.ref_of(class_name(type_.name), text)
        case _:
            return text


def _typed_boolean(column: Column, text: str) -> bool:
    if text.lower() in TRUE_WORDS | FALSE_WORDS:
        return text.lower() in TRUE_WORDS
    raise CommandFailure(f"Parameter {column.name} must be a boolean (true or false)")


def _typed_enum(enum: str, text: str) -> str:
    value = parsed(enum, text)
    if value is None:
        choices = ", ".join(f"'{printed(enum, choice)}'" for choice in datamodel.enums()[enum])
        raise CommandFailure(f"Expected one of {choices}, got {text}")
    return value


async def set_field(call: Call, object_class: ObjectClass, column: Column, ref: str, text: str) -> None:
    message = _message(object_class, "set", column)
    if message is None or not settable(object_class, column):
        if column.writable and (column.is_map or column.is_set):
            raise CommandFailure(f"Field '{column.name}' is a map or set. use the 'name:key=value' syntax.")
        raise CommandFailure(f"Field '{column.name}' is read-only.")
    await call.request(message, ref, await typed_value(call, object_class, column, text))


async def set_map_entries(
    call: Call, object_class: ObjectClass, column: Column, row: Row, entries: dict[str, str]
) -> None:
    """Each key gets its value, whether it was there or not; other keys stay."""
    key_of = (object_class.api_class, column.attribute)
    if not map_changeable(object_class, column):
        raise CommandFailure(f"Map field '{column.name}' is read-only.")
    if key_of in _SET_WHOLE:
        await call.request(_SET_WHOLE[key_of], row.ref, entries)
        return
    if _message(object_class, "add_to", column) is None and key_of not in _SET_ONE_KEY:
        await _set_whole(call, object_class, column, row, row.attribute(column.attribute) | entries)
        return
    for key, value in entries.items():
        if key_of in _SET_ONE_KEY:
            await call.request(_SET_ONE_KEY[key_of], row.ref, key, value)
            continue
        if key in column.pairs(row) and not (key_of in _LIVE and row.record["power_state"] == "Running"):
            await remove_from_map(call, object_class, column, row, key)
        await add_to_map(call, object_class, column, row, key, value)


async def add_to_set(call: Call, object_class: ObjectClass, column: Column, row: Row, text: str) -> None:
    member = await _typed_member(call, column, text)
    if message := _message(object_class, "add", column):
        await call.request(message, row.ref, member)
    else:
        members = row.attribute(column.attribute)
        await _set_whole(call, object_class, column, row, members if member in members else [*members, member])


async def remove_from_set(call: Call, object_class: ObjectClass, column: Column, row: Row, text: str) -> None:
    member = await _typed_member(call, column, text)
    if message := _message(object_class, "remove", column):
        await call.request(message, row.ref, member)
    else:
        members = [found for found in row.attribute(column.attribute) if found != member]
        await _set_whole(call, object_class, column, row, members)


async def _typed_member(call: Call, column: Column, text: str) -> Any:
    if column.type.inner is None:
        raise CommandFailure("Parameter is read-only")
    return await _typed_scalar(call, column, column.type.inner, text)


async def _set_whole(call: Call, object_class: ObjectClass, column: Column, row: Row, value: Any) -> None:
    """For sets and maps that the API only takes whole."""
    message = _message(object_class, "set", column)
    if message is None:
        raise CommandFailure("Parameter is read-only")
    await call.request(message, row.ref, value)


async def clear(call: Call, object_class: ObjectClass, column: Column, row: Row) -> None:
    """Empties a set or map, or sets a plain field to nothing."""
    if column.is_set and column.writable:
        await _clear_set(call, object_class, column, row)
    elif map_changeable(object_class, column):
        await _clear_map(call, object_class, column, row)
    elif settable(object_class, column):
        try:
            await set_field(call, object_class, column, row.ref, "")
        except CommandFailure:
            raise CommandFailure("Cannot clear this parameter") from None
    else:
        raise CommandFailure("Can only clear RW parameters")


async def _clear_set(call: Call, object_class: ObjectClass, column: Column, row: Row) -> None:
    if _message(object_class, "set", column):
        await _set_whole(call, object_class, column, row, [])
        return
    for member in column.members(row):
        await remove_from_set(call, object_class, column, row, member)


async def _clear_map(call: Call, object_class: ObjectClass, column: Column, row: Row) -> None:
    if whole := _SET_WHOLE.get((object_class.api_class, column.attribute)) or _message(object_class, "set", column):
        await call.request(whole, row.ref, {})
        return
    for key in column.pairs(row):
        await remove_from_map(call, object_class, column, row, key)
