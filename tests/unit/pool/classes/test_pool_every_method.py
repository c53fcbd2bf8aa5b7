"""Every method that answers is tried: the generic ones here, by what their class declares; each of the others is named
in a test of its own."""

import re
from pathlib import Path
from typing import Any

import pytest

from gespann.pool.api import dispatch
from gespann.pool.api.generic import handler_of, writer_kind
from gespann.pool.api.messages import HANDLERS, SETTERS
from gespann.pool.classes import HANDLER_MODULES
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import Message, Type

assert HANDLER_MODULES
TESTS = Path(__file__).resolve().parents[3]
CLASSES = sorted({method.partition(".")[0] for method in dispatch.implemented()})
UUID = "00000000-0000-0000-0000-0000000000aa"


def generic(class_name: str, *kinds: str) -> list[Message]:
    found = datamodel.classes()[class_name].messages.values()
    plain = [m for m in found if f"{class_name}.{m.name}" not in HANDLERS and handler_of(m) is not None]
    return [m for m in plain if (writer_kind(m) or (m.kind, ""))[0] in kinds]


def record(world, class_name: str) -> str:
    """One of the class, with nothing but what it is made with."""
    fields: dict[str, Any] = {"uuid": UUID} if "uuid" in datamodel.classes()[class_name].fields else {}
    if class_name == "VBD":
        fields |= {"userdevice": "0", "empty": True, "type": "CD"}
    with world.db.transaction() as tx:
        if "name_label" in datamodel.classes()[class_name].fields:
            fields["name_label"] = "one"
        return tx.create(class_name, fields)


def another(type_: Type, value: Any) -> Any:
    """A value of the type that is not this one, where the type has one that needs no other record."""
    match type_.kind:
        case "string":
            return f"{value}x"
        case "int" | "float":
            return value + 1
        case "bool":
            return not value
        case "datetime":
            return "20200202T02:02:02Z"
        case "enum":
            return next(v for v in datamodel.enums()[type_.name] if v != value)
        case "set":
            return [member(type_)]
        case "map":
            return {"k": another(type_.inner, datamodel.zero(type_.inner))} if type_.key.kind == "string" else {}
    return value


def member(type_: Type) -> Any:
    return another(type_.inner, datamodel.zero(type_.inner))


def keys(type_: Type) -> tuple[str, str]:
    """Two members of a set, or keys of a map, of texts or of an enum."""
    of = type_.key if type_.kind == "map" else type_.inner
    first, second, *_ = datamodel.enums()[of.name] if of.kind == "enum" else ("old", "new")
    return first, second


@pytest.mark.parametrize("class_name", CLASSES)
async def test_reading(world, class_name):
    ref = record(world, class_name)
    kept = world.db.get(class_name, ref)
    for message in generic(class_name, "getter"):
        assert await world.call(f"{class_name}.{message.name}", ref) == kept[message.field], message.name
    expected: dict[str, tuple[list[Any], Any]] = {
        "get_record": ([ref], kept),
        "get_by_uuid": ([UUID], ref),
        "get_by_name_label": (["one"], [ref]),
        "get_all": ([], list(world.db.all(class_name))),
        "get_all_records": ([], dict(world.db.all(class_name))),
        "get_all_where": ([f'field "uuid" = "{UUID}"'], [ref]),
        "get_all_records_where": ([f'field "uuid" = "{UUID}"'], {ref: kept}),
    }
    for message in generic(class_name, *expected):
        params, answer = expected[message.kind]
        assert await world.call(f"{class_name}.{message.name}", *params) == answer, message.name


@pytest.mark.parametrize("class_name", CLASSES)
async def test_writing(world, class_name):
    ref = record(world, class_name)
    fields = datamodel.classes()[class_name].fields
    for message in generic(class_name, "setter", "adder", "remover"):
        writer = writer_kind(message)
        assert writer is not None
        kind, field = writer
        if f"{class_name}.{field}" in SETTERS:
            continue  # does more than to write: named in a test of its own
        type_, method = fields[field].type, f"{class_name}.{message.name}"
        if kind == "setter":
            value = another(type_, world.db.get(class_name, ref)[field])
            await world.call(method, ref, value)
            assert world.db.get(class_name, ref)[field] == value, method
            continue
        old, new = keys(type_)
        with world.db.transaction() as tx:
            held: Any = {old: "1"} if type_.kind == "map" else [old]
            tx.set(class_name, ref, **{field: held})
        if kind == "adder":
            await world.call(method, ref, *([new, "v"] if type_.kind == "map" else [new]))
            expected: Any = {old: "1", new: "v"} if type_.kind == "map" else [old, new]
        else:
            await world.call(method, ref, old)
            expected = {} if type_.kind == "map" else []
        assert world.db.get(class_name, ref)[field] == expected, method


def test_each_other_method_is_named_in_a_test():
    texts = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py") if path.name != Path(__file__).name)
    texts += (TESTS / "unit/pool/scenes.py").read_text() + (TESTS / "unit/pool/world.py").read_text()
    named = set(re.findall(r'["\'.]((?:[A-Za-z_]+)\.[A-Za-z_0-9]+)["\'(]', texts))
    assert not sorted(set(HANDLERS) - named)
    for field in SETTERS:
        class_name, _, name = field.partition(".")
        ways = {f"{class_name}.{way}{name}" for way in ("set_", "add_", "add_to_", "remove_from_", "remove_")}
        assert ways & named or f'"{class_name}.set_{{field}}"' in texts, f"no test sets {field}"
