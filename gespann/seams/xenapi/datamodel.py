"""The declared XenAPI: classes, fields, messages, enums, relations, loaded once from the data beside this file.

Types are written as published: ``string``, ``int``, ``float``, ``bool``, ``datetime``, ``VM ref``,
``enum vm_power_state``, ``X set``, ``(X -> Y) map``, ``X record``, ``X option``. ``parse_type`` reads them.
"""

import hashlib
import json
import re
import uuid as uuid_module
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
    optional: bool = False  # a caller may leave it out, if it leaves out all that follow
    default: Any = None  # what it means then


@dataclass(frozen=True)
class Message:
    """``kind``: custom, ctor, dtor, getter, setter, adder, remover, get_record, get_by_uuid, get_by_name_label,
    get_all, get_all_where, get_all_records, get_all_records_where. ``params`` leaves out the session."""

    class_name: str
    name: str
    kind: str
    params: tuple[Param, ...]
    result: Type
    needs_session: bool
    is_async: bool
    least_role: str
    hidden: bool
    field: str = ""  # of a getter, setter, adder or remover


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


#: each role may do what those before it may
ROLES = ("read-only", "client-cert", "vm-operator", "vm-admin", "vm-power-admin", "pool-operator", "pool-admin")
#: what only these may read; everything else may be read by all
READ_ROLES = {"secret": "pool-operator"}
_SELF = "self"


def _field(raw: dict[str, Any]) -> Field:
    type_ = parse_type(raw["type"])
    default = raw.get("default", zero(type_))
    return Field(
        name=raw["name"],
        type=type_,
        qualifier=raw["qualifier"],
        default=float(default) if type_.kind == "float" else default,
        required="default" not in raw and raw["qualifier"] in ("RW", "RO/constructor"),
        setter_role=raw.get("setter_roles", "pool-admin"),
    )


def _message(class_name: str, raw: dict[str, Any], fields: dict[str, Field]) -> Message:
    if "params" not in raw:
        return _generic_message(class_name, raw["name"], raw["kind"], fields)
    return Message(
        class_name=class_name,
        name=raw["name"],
        kind=raw["kind"],
        params=tuple(
            Param(p["name"], parse_type(p["type"]), p.get("optional", False), p.get("default")) for p in raw["params"]
        ),
        result=parse_type(raw.get("result") or "void"),
        needs_session=raw.get("session", True),
        is_async=raw.get("async", False),
        least_role=raw.get("least_role") or "pool-admin",
        hidden=raw.get("hidden", False),
    )


def _generic_message(class_name: str, name: str, kind: str, fields: dict[str, Field]) -> Message:
    """A message that is published by its name alone: what it takes and gives follows from its kind."""
    params, result, field_name = _generic_shape(class_name, name, kind, fields)
    changes = kind in ("setter", "adder", "remover")
    return Message(
        class_name=class_name,
        name=name,
        kind=kind,
        params=tuple(Param(n, t) for n, t in params),
        result=result,
        needs_session=True,
        is_async=False,
        least_role=fields[field_name].setter_role if changes else READ_ROLES.get(class_name, ROLES[0]),
        hidden=False,
        field=field_name,
    )


def _generic_shape(
    class_name: str, name: str, kind: str, fields: dict[str, Field]
) -> tuple[list[tuple[str, Type]], Type, str]:
    """Parameters, result and field of a generic message."""
    ref, string, void = Type("ref", class_name), Type("string"), Type("void")
    records = Type("map", key=ref, inner=Type("record", class_name))
    match kind:
        case "get_record":
            return [(_SELF, ref)], Type("record", class_name), ""
        case "get_by_uuid":
            return [("uuid", string)], ref, ""
        case "get_by_name_label":
            return [("label", string)], Type("set", inner=ref), ""
        case "get_all":
            return [], Type("set", inner=ref), ""
        case "get_all_where":
            return [("expr", string)], Type("set", inner=ref), ""
        case "get_all_records":
            return [], records, ""
        case "get_all_records_where":
            return [("expr", string)], records, ""
        case "getter":
            field_name = name.removeprefix("get_")
            return [(_SELF, ref)], fields[field_name].type, field_name
        case "setter":
            field_name = name.removeprefix("set_")
            return [(_SELF, ref), ("value", fields[field_name].type)], void, field_name
    field_name = re.sub("^(add_to|remove_from|add|remove)_", "", name)
    type_ = fields[field_name].type
    if type_.kind == "map" and type_.key is not None and type_.inner is not None:
        pair = [("key", type_.key), ("value", type_.inner)]
        return [(_SELF, ref), *(pair if kind == "adder" else pair[:1])], void, field_name
    if type_.kind == "set" and type_.inner is not None:
        return [(_SELF, ref), ("value", type_.inner)], void, field_name
    raise ValueError(f"{class_name}.{name}: a {kind} of a {type_.kind}")


@cache
def classes() -> dict[str, Class]:
    found = {}
    for path in sorted((_HERE / "classes").glob("*.json")):
        raw = _load(f"classes/{path.name}")
        fields = {f["name"]: _field(f) for f in raw["fields"]}
        found[raw["name"]] = Class(
            name=raw["name"],
            gen_events=raw["gen_events"],
            fields=fields,
            messages={m["name"]: _message(raw["name"], m, fields) for m in raw["messages"]},
        )
    return found


@cache
def relations() -> tuple[Relation, ...]:
    def split(text: str) -> tuple[str, str]:
        class_name, field_name = text.split(".")
        return class_name, field_name

    found = (Relation(split(r["one_side"]), split(r["many_side"])) for r in _load("facts/relations.json"))
    return tuple(r for r in found if _published(r.one) and _published(r.many))


def _published(side: tuple[str, str]) -> bool:
    """The published list also names relations of fields that the API does not show."""
    return side[1] in classes()[side[0]].fields


@cache
def error_params() -> dict[str, tuple[str, ...]]:
    """Error code -> names of its parameters."""
    return {e["code"]: tuple(e["params"] or ()) for e in _load("facts/errors.json")}


@cache
def http_actions() -> dict[tuple[str, str], str]:
    """(HTTP method, path) -> the published name of the action."""
    return {(a["method"], a["uri"]): a["name"] for a in _load("facts/http_actions.json")}


@cache
def role_ref(role: str) -> str:
    """Refs of roles are made from their names, and the same in every pool (``subject.roles`` has one as default)."""
    return f"OpaqueRef:{uuid_module.UUID(hashlib.md5(role.encode(), usedforsecurity=False).hexdigest())}"
