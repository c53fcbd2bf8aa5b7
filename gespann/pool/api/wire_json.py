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
TEXT_LIMIT_CHARS = 1000  # of what is said of a malformed request
CONTENT_TYPE = "application/json"


#: JSON-RPC 2.0 section 5.1; XML-RPC has the same numbers, by its "Specification for Fault Code Interoperability"
PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, SERVER_ERROR = -32700, -32600, -32602, -32000


class MalformedRequest(Exception):
    """Not a request at all; text for people. ``request``: as far as it could be read."""

    def __init__(self, text: str, code: int = PARSE_ERROR, request: "JsonRequest | None" = None) -> None:
        super().__init__(text)
        self.text, self.code, self.request = text, code, request


@dataclass(frozen=True)
class JsonRequest:
    method: str
    params: list[Any]
    id: Any
    version_2: bool


class NotUtf8(XenApiError):
    """INVALID_VALUE. ``request``: as far as it could be read."""

    def __init__(self, at: int, request: JsonRequest) -> None:
        super().__init__("INVALID_VALUE", ["body", f"not UTF-8 at byte {at}"])
        self.request = request


def parse(body: bytes) -> JsonRequest:
    """MalformedRequest: not JSON-RPC. NotUtf8: it would be, but for single bytes."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotUtf8(error.start, _parse(body.decode("utf-8", errors="replace").encode())) from None
    return _parse(body)


def _parse(body: bytes) -> JsonRequest:
    if _depth(body) > DEPTH_LIMIT:
        raise MalformedRequest(f"nested deeper than {DEPTH_LIMIT}")
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedRequest(f"not JSON: {error}") from None
    if isinstance(request, list):
        raise MalformedRequest("several requests at once are not taken: send one by one", INVALID_REQUEST)
    if not isinstance(request, dict):
        raise MalformedRequest("not a JSON-RPC request: an object is expected", INVALID_REQUEST)
    return _request(request)


def _request(said: dict[str, Any]) -> JsonRequest:
    """``params`` by name are one parameter, as in the original."""
    version, method, params = said.get("jsonrpc"), said.get("method"), said.get("params", [])
    read = JsonRequest("", [], said.get("id"), "jsonrpc" in said)
    if "jsonrpc" in said and version != "2.0":
        raise MalformedRequest('not a JSON-RPC request: jsonrpc must be "2.0", or be left out', INVALID_REQUEST, read)
    if not isinstance(method, str):
        raise MalformedRequest("not a JSON-RPC request: method must be a string", INVALID_REQUEST, read)
    if isinstance(params, dict) and read.version_2:
        params = [params]
    if not isinstance(params, list):
        raise MalformedRequest("params must be an array", INVALID_PARAMS, read)
    return JsonRequest(method, params, read.id, read.version_2)


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


def failure(request: JsonRequest, error: XenApiError) -> bytes:
    if request.version_2:
        detail = {"code": 1, "message": error.code, "data": list(error.params)}
        return msgspec.json.encode({"jsonrpc": "2.0", "error": detail, "id": request.id})
    return msgspec.json.encode({"result": None, "error": [error.code, *error.params], "id": request.id})


def malformed(error: MalformedRequest) -> bytes:
    """What cannot be read counts as of version 2.0."""
    detail = {"code": error.code, "message": error.text[:TEXT_LIMIT_CHARS]}
    if error.request is not None and not error.request.version_2:
        return msgspec.json.encode({"result": None, "error": detail, "id": error.request.id})
    request_id = None if error.request is None else error.request.id
    return msgspec.json.encode({"jsonrpc": "2.0", "error": detail, "id": request_id})


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
