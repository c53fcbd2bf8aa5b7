"""Values from strangers: decoded by their declared type, or refused.

What comes in is what a JSON or XML-RPC parser made of a request. What goes out of ``decode`` is what records hold:
str, int, float, bool, lists, dicts; refs and datetimes are str. A value of the wrong kind is FIELD_TYPE_ERROR [name];
one of the right kind that cannot be is INVALID_VALUE [name, value].
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Type
from gespann.seams.xenapi.errors import XenApiError

#: one string; records are written whole, so a longer one would make every later change slow
STRING_LIMIT_CHARS = 1024 * 1024
#: elements of one set or map
MEMBERS_LIMIT = 65_536
SHOWN_CHARS = 128  # of a refused value, in the error
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

Decoder = Callable[[str, Any], Any]

# what XML 1.0 cannot carry, and half characters, could be stored but never be read again by an XML-RPC client
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_INT = re.compile(r"[+-]?[0-9]{1,20}")
_DATETIME = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})T(\d{2}):?(\d{2}):?(\d{2})(?:\.\d{1,9})?(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)


def wrong_type(name: str) -> XenApiError:
    return XenApiError("FIELD_TYPE_ERROR", [name])


def invalid(name: str, value: str) -> XenApiError:
    shown = _UNSPEAKABLE.sub("\ufffd", value)
    return XenApiError("INVALID_VALUE", [name, shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}..."])


def decode(type_: Type, name: str, value: Any) -> Any:
    return decoder(type_)(name, value)


@cache
def decoder(type_: Type) -> Decoder:
    """A function of (name of the parameter, value) for a declared type."""
    match type_.kind:
        case "string" | "void":
            return _string
        case "int":
            return _int
        case "float":
            return _float
        case "bool":
            return _bool
        case "datetime":
            return _datetime
        case "ref":
            return _ref
        case "enum":
            return _enum_decoder(type_.name)
        case "option":
            inner = decoder(_inner(type_))
            return lambda name, value: "" if value in ("", None) else inner(name, value)
        case "set":
            return _set_decoder(_inner(type_))
        case "map":
            return _map_decoder(type_)
        case "record":
            return _record_decoder(type_.name)
    raise AssertionError(type_)


def _inner(type_: Type) -> Type:
    assert type_.inner is not None
    return type_.inner


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name)
    if len(value) > STRING_LIMIT_CHARS or _UNSPEAKABLE.search(value):
        raise invalid(name, value)
    return value


def _int(name: str, value: Any) -> int:
    if isinstance(value, str) and _INT.fullmatch(value.strip()):
        value = int(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON clients have one kind of number
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name)
    if not INT_MIN <= value <= INT_MAX:
        raise invalid(name, str(value))
    return value


def _float(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong_type(name) from None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name)
    try:
        number = float(value)
    except OverflowError:
        raise invalid(name, str(value)) from None
    if not math.isfinite(number):
        raise invalid(name, str(value))
    return number


def _bool(name: str, value: Any) -> bool:
    if value in ("true", "false", "1", "0") and isinstance(value, str):
        return value in ("true", "1")
    if not isinstance(value, bool):
        raise wrong_type(name)
    return value


def _datetime(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return datetime_text(value)
    text = _string(name, value)
    found = _DATETIME.fullmatch(text.strip())
    if found is None:
        raise wrong_type(name)
    zone = found[7] if found[7] not in (None, "Z") else "+0000"
    try:
        moment = datetime.strptime("".join(found.groups()[:6]) + zone.replace(":", ""), "%Y%m%d%H%M%S%z")
        return datetime_text(moment)
    except (ValueError, OverflowError):
        raise invalid(name, text) from None


def datetime_text(moment: datetime) -> str:
    """As the API writes it: no hyphens, UTC, whole seconds."""
    utc = moment.astimezone(UTC)
    return f"{utc.year:04d}{utc:%m%dT%H:%M:%SZ}"


def _ref(name: str, value: Any) -> str:
    text = _string(name, value)
    return text or NULL_REF


def _enum_decoder(enum: str) -> Decoder:
    exact = frozenset(datamodel.enums()[enum])
    # clients write "running" and "Running": spellings that differ by case alone mean the same
    folded = {value.lower(): value for value in datamodel.enums()[enum]}

    def decode_enum(name: str, value: Any) -> str:
        text = _string(name, value)
        if text in exact:
            return text
        if text.lower() in folded:
            return folded[text.lower()]
        raise invalid(name, text)

    return decode_enum


def _set_decoder(element: Type) -> Decoder:
    inner = decoder(element)

    def decode_set(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise wrong_type(name)
        if len(value) > MEMBERS_LIMIT:
            raise invalid(name, f"{len(value)} elements")
        return [inner(name, item) for item in value]

    return decode_set


def _map_decoder(type_: Type) -> Decoder:
    assert type_.key is not None
    key, inner = decoder(type_.key), decoder(_inner(type_))

    def decode_map(name: str, value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise wrong_type(name)
        if len(value) > MEMBERS_LIMIT:
            raise invalid(name, f"{len(value)} elements")
        return {key(name, k): inner(name, v) for k, v in value.items()}

    return decode_map


def _record_decoder(class_name: str) -> Decoder:
    """A constructor's argument: what may be given at creation, with defaults; other members of the struct are passed
    over, as whole records of another object are often sent back."""
    fields = [f for f in datamodel.classes()[class_name].fields.values() if f.qualifier in ("RW", "RO/constructor")]
    decoders = {f.name: decoder(f.type) for f in fields}

    def decode_record(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong_type(name)
        record = {}
        for field in fields:
            if field.name in value:
                record[field.name] = decoders[field.name](field.name, value[field.name])
            elif field.required:
                raise wrong_type(field.name)
            else:
                record[field.name] = field.default
        return record

    return decode_record
