"""JSON as the API speaks it: JSON-RPC 1.0 and 2.0, integers as strings.

Records are encoded once and kept until they change: lists of ten thousand machines are asked for again and again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from gespann.pool.api.record_cache import RecordCache
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError

DEPTH_LIMIT = 64
CONTENT_TYPE = "application/json"


class MalformedRequest(Exception):
    """Not a request at all; text for people."""


@dataclass(frozen=True)
class JsonRequest:
    method: str
    params: list[Any]
    id: Any
    version_2: bool


def parse(body: bytes) -> JsonRequest:
    """MalformedRequest: not JSON-RPC. XenApiError INVALID_VALUE: not UTF-8."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise XenApiError("INVALID_VALUE", ["body", f"not UTF-8 at byte {error.start}"]) from None
    if _depth(body) > DEPTH_LIMIT:
        raise MalformedRequest(f"nested deeper than {DEPTH_LIMIT}")
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedRequest(f"not JSON: {error}") from None
    if not isinstance(request, dict):
        raise MalformedRequest("not a JSON-RPC request: an object is expected")
    method, params = request.get("method"), request.get("params", [])
    if not isinstance(method, str) or not isinstance(params, list):
        raise MalformedRequest("not a JSON-RPC request: method must be a string, params an array")
    return JsonRequest(method, params, request.get("id"), request.get("jsonrpc") == "2.0")


def _depth(body: bytes) -> int:
    """An upper bound of the nesting: brackets inside strings count too, so real depth is looked at only beyond it."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_LIMIT:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for byte in body:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def success(request: JsonRequest, type_: Type, value: Any, records: RecordCache) -> bytes:
    result = encode(type_, value, records)
    if request.version_2:
        return msgspec.json.encode({"jsonrpc": "2.0", "result": result, "id": request.id})
    return msgspec.json.encode({"result": result, "error": None, "id": request.id})


def failure(request: JsonRequest | None, error: XenApiError) -> bytes:
    request_id = request.id if request else None
    if request is not None and request.version_2:
        detail = {"code": 1, "message": error.code, "data": list(error.params)}
        return msgspec.json.encode({"jsonrpc": "2.0", "error": detail, "id": request_id})
    return msgspec.json.encode({"result": None, "error": [error.code, *error.params], "id": request_id})


def encode(type_: Type, value: Any, records: RecordCache) -> Any:
    """What msgspec then writes; records come ready as raw text."""
    if type_.kind == "record" and type_.name in records.classes:
        return records.json(type_.name, value, lambda: encode_record(type_.name, value))
    if type_.kind == "map" and type_.inner is not None and type_.inner.kind == "record":
        inner = type_.inner
        return {key: encode(inner, item, records) for key, item in value.items()}
    if type_.kind == "events":
        return _events(value, records)
    return _encoder(type_)(value)


def encode_record(class_name: str, record: Mapping[str, Any]) -> msgspec.Raw:
    fields = {name: make(record[name]) for name, make in _field_encoders(class_name)}
    return msgspec.Raw(msgspec.json.encode(fields))


def _events(batch: Any, records: RecordCache) -> Any:
    def event(item: Mapping[str, Any]) -> dict[str, Any]:
        sent = {**item, "id": str(item["id"])}
        if "snapshot" in item:
            sent["snapshot"] = encode(Type("record", records.real_class[item["class"]]), item["snapshot"], records)
        return sent

    if isinstance(batch, list):
        return [event(item) for item in batch]
    return {**batch, "events": [event(item) for item in batch["events"]]}


@cache
def _field_encoders(class_name: str) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(f.name, _encoder(f.type)) for f in datamodel.classes()[class_name].fields.values()]


def _same(value: Any) -> Any:
    return value


@cache
def _encoder(type_: Type) -> Callable[[Any], Any]:
    match type_.kind:
        case "int":
            return str
        case "void":
            return lambda _: ""
        case "set" if type_.inner is not None:
            inner = _encoder(type_.inner)
            return _same if inner is _same else lambda value: [inner(item) for item in value]
        case "map" if type_.inner is not None and type_.key is not None:
            inner, key = _encoder(type_.inner), _encoder(type_.key)
            if inner is _same and key is _same:
                return _same
            return lambda value: {str(key(k)): inner(v) for k, v in value.items()}
        case "option" if type_.inner is not None:
            inner = _encoder(type_.inner)
            return lambda value: "" if value in ("", None) else inner(value)
        case "record":
            return lambda value: {name: make(value[name]) for name, make in _field_encoders(type_.name)}
    return _same
