"""The declared XenAPI: classes, fields, messages, enums, relations, loaded once from the data beside this file.

Types are written as published: ``string``, ``int``, ``float``, ``bool``, ``datetime``, ``VM ref``,
``enum vm_power_state``, ``X set``, ``(X -> Y) map``, ``X record``, ``X option``. ``parse_type`` reads them.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
NULL_REF = "OpaqueRef:NULL"
EPOCH = "19700101T00:00:00Z"


@dataclass(frozen=True)
class Type:
    """``kind``: string int float bool datetime ref enum set map record option void; ``name``: class or enum;
    ``inner``: element of a set or option, value of a map; ``key``: key of a map."""

    kind: str
    name: str = ""
    inner: "Type | None" = None
    key: "Type | None" = None


@cache
def parse_type(text: str) -> Type:
    if text in ("string", "int", "float", "bool", "datetime", "void"):
        return Type(text)
    if text == "secret string":  # a string that must never be shown or logged
        return Type("string", name="secret")
    for suffix in ("set", "option"):
        if text.endswith(f" {suffix}"):
            return Type(suffix, inner=parse_type(text.removesuffix(f" {suffix}")))
    if match := re.fullmatch(r"\((.+?) -> (.+)\) map", text):
        return Type("map", key=parse_type(match[1]), inner=parse_type(match[2]))
    for suffix in ("ref", "record"):
        if text.endswith(f" {suffix}"):
            return Type(suffix, name=text.removesuffix(f" {suffix}"))
    if text.startswith("enum "):
        return Type("enum", name=text.removeprefix("enum "))
    raise ValueError(f"not a XenAPI type: {text!r}")


@dataclass(frozen=True)
class Field:
    name: str
    type: Type
    qualifier: str  # RW, RO/constructor, RO/runtime
    default: Any  # as a record holds it when nobody gave a value
    required: bool  # a constructor must name it
    setter_role: str


@dataclass(frozen=True)
class Param:
    name: str
    type: Type


@dataclass(frozen=True)
class Message:
    """``kind``: custom, ctor, dtor, getter, setter, adder, remover, get_record, get_by_uuid, get_by_name_label,
    get_all, get_all_where, get_all_records, get_all_records_where."""

    class_name: str
    name: str
    kind: str
    params: tuple[Param, ...]
    result: Type
    needs_session: bool
    is_async: bool
    least_role: str
    hidden: bool


@dataclass(frozen=True)
class Class:
    name: str
    gen_events: bool
    fields: dict[str, Field] = field(repr=False)
    messages: dict[str, Message] = field(repr=False)


@dataclass(frozen=True)
class Relation:
    """``one`` and ``many`` are (class, field); where both sides are sets the relation is many-to-many."""

    one: tuple[str, str]
    many: tuple[str, str]


def _load(path: str) -> Any:
    return json.loads((_HERE / path).read_text(encoding="utf-8"))


@cache
def enums() -> dict[str, tuple[str, ...]]:
    return {e["name"]: tuple(e["values"]) for e in _load("facts/enums.json")}


def zero(type_: Type) -> Any:
    """What a field holds when neither the datamodel nor a caller gives a value."""
    match type_.kind:
        case "string" | "option" | "void":
            return ""
        case "int":
            return 0
        case "float":
            return 0.0
        case "bool":
            return False
        case "datetime":
            return EPOCH
        case "ref":
            return NULL_REF
        case "set":
            return []
        case "map" | "record":
            return {}
        case "enum":
            return enums()[type_.name][0]
    raise AssertionError(type_)


def _field(raw: dict[str, Any]) -> Field:
    type_ = parse_type(raw["type"])
    return Field(
        name=raw["name"],
        type=type_,
        qualifier=raw["qualifier"],
        default=raw.get("default", zero(type_)),
        required="default" not in raw and raw["qualifier"] in ("RW", "RO/constructor"),
        setter_role=raw.get("setter_roles", "pool-admin"),
    )


def _message(class_name: str, raw: dict[str, Any]) -> Message:
    return Message(
        class_name=class_name,
        name=raw["name"],
        kind=raw["kind"],
        params=tuple(Param(p["name"], parse_type(p["type"])) for p in raw.get("params", [])),
        result=parse_type(raw.get("result") or "void"),
        needs_session=raw.get("session", True),
        is_async=raw.get("async", False),
        least_role=raw.get("least_role") or "read-only",
        hidden=raw.get("hidden", False),
    )


@cache
def classes() -> dict[str, Class]:
    found = {}
    for path in sorted((_HERE / "classes").glob("*.json")):
        raw = _load(f"classes/{path.name}")
        found[raw["name"]] = Class(
            name=raw["name"],
            gen_events=raw["gen_events"],
            fields={f["name"]: _field(f) for f in raw["fields"]},
            messages={m["name"]: _message(raw["name"], m) for m in raw["messages"]},
        )
    return found


@cache
def relations() -> tuple[Relation, ...]:
    def split(text: str) -> tuple[str, str]:
        class_name, field_name = text.split(".")
        return class_name, field_name

    return tuple(Relation(split(r["one_side"]), split(r["many_side"])) for r in _load("facts/relations.json"))


@cache
def error_params() -> dict[str, tuple[str, ...]]:
    """Error code -> names of its parameters."""
    return {e["code"]: tuple(e["params"]) for e in _load("facts/errors.json")}
