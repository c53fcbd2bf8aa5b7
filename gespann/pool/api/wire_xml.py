"""XML-RPC as the API speaks it: strings bare, integers as strings, errors as a struct and never as a fault."""

import base64
import re
import xmlrpc.client
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from gespann.pool.api.record_cache import RecordCache
from gespann.pool.api.wire_json import DEPTH_LIMIT, INVALID_REQUEST, TEXT_LIMIT_CHARS, MalformedRequest
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError

CONTENT_TYPE = "text/xml"
_HEAD = '<?xml version="1.0"?><methodResponse><params><param>'
_TAIL = "</param></params></methodResponse>"
_ESCAPED = re.compile("[&<>\r]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_EMPTY_ARRAY = "<value><array><data></data></array></value>"
_EMPTY_STRUCT = "<value><struct></struct></value>"


class _Unmarshaller(xmlrpc.client.Unmarshaller):
    """The standard library's, with a floor under the depth."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > 4 * DEPTH_LIMIT:  # value, struct, member, value: four tags a level
            raise MalformedRequest(f"nested deeper than {DEPTH_LIMIT}", INVALID_REQUEST)
        super().start(tag, attrs)

    def end(self, tag: str) -> None:
        self._depth -= 1
        super().end(tag)


def parse(body: bytes) -> tuple[str, list[Any]]:
    """Method and parameters. MalformedRequest: not XML-RPC, or XML that declares entities."""
    target = _Unmarshaller()
    try:
        parser = DefusedExpatParser(target, forbid_dtd=True)
        parser.feed(body)
        parser.close()
        params = target.close()
        method = target.getmethodname()
    except MalformedRequest:
        raise
    except (ExpatError, DefusedXmlException) as error:
        raise MalformedRequest(f"not XML: {type(error).__name__}: {error}") from None
    except Exception as error:  # the parsers raise a dozen kinds; each means the same
        raise MalformedRequest(f"not XML-RPC: {type(error).__name__}: {error}", INVALID_REQUEST) from None
    if not isinstance(method, str):
        raise MalformedRequest("not an XML-RPC call: no methodName", INVALID_REQUEST)
    return method, [_plain(param) for param in params]


_DECLARATION = re.compile(rb"\s*<\?xml[^>]{0,100}\?>")


def parse_value(body: bytes) -> Any:
    """One bare ``<value>``, as files hold it. MalformedRequest as ``parse``."""
    inside = _DECLARATION.sub(b"", body, count=1) if _DECLARATION.match(body) else body
    _, params = parse(
        b"<methodCall><methodName>value</methodName><params><param>" + inside + b"</param></params></methodCall>"
    )
    if len(params) != 1:
        raise MalformedRequest("not one value")
    return params[0]


def _plain(value: Any) -> Any:
    """What the standard library wraps, unwrapped: dates become text, binaries text if they are."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, xmlrpc.client.DateTime):
        return value.value
    if isinstance(value, xmlrpc.client.Binary):
        return base64.b64encode(value.data).decode()
    return value


def success(type_: Type, value: Any, records: RecordCache) -> bytes:
    shown = (
        "<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>"
        f"{encode(type_, value, records)}</member></struct></value>"
    )
    return f"{_HEAD}{shown}{_TAIL}".encode()


def bare(type_: Type, value: Any, records: RecordCache) -> bytes:
    """For ``system.listMethods``, which answers without Status."""
    return f"{_HEAD}{encode(type_, value, records)}{_TAIL}".encode()


def malformed(error: MalformedRequest) -> bytes:
    """A fault, for what is no call. Calls never get one."""
    text = "".join(char if char.isprintable() else "?" for char in error.text[:TEXT_LIMIT_CHARS])
    shown = (
        f"<value><struct><member><name>faultCode</name><value><int>{error.code}</int></value></member><member><name>"
        f"faultString</name>{_string(text)}</member></struct></value>"
    )
    return f'<?xml version="1.0"?><methodResponse><fault>{shown}</fault></methodResponse>'.encode()


def failure(error: XenApiError) -> bytes:
    texts = "".join(_string(text) for text in (error.code, *error.params))
    shown = (
        "<value><struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription"
        f"</name><value><array><data>{texts}</data></array></value></member></struct></value>"
    )
    return f"{_HEAD}{shown}{_TAIL}".encode()


def encode(type_: Type, value: Any, records: RecordCache) -> str:
    if type_.kind == "record" and type_.name in records.classes:
        return records.xml(type_.name, value, lambda: _record(type_.name, value))
    if type_.kind == "map" and type_.inner is not None and type_.inner.kind == "record":
        inner = type_.inner
        return struct((key, encode(inner, item, records)) for key, item in value.items())
    if type_.kind == "events":
        return _events(value, records)
    return encoder(type_)(value)


def _events(batch: Any, records: RecordCache) -> str:
    def event(item: Mapping[str, Any]) -> str:
        members = [(k, _string(str(v))) for k, v in item.items() if k != "snapshot"]
        if "snapshot" in item:
            type_ = Type("record", records.real_class[item["class"]])
            members.append(("snapshot", encode(type_, item["snapshot"], records)))
        return struct(members)

    events = batch if isinstance(batch, list) else batch["events"]
    array = f"<value><array><data>{''.join(map(event, events))}</data></array></value>"
    if isinstance(batch, list):
        return array
    counts = struct((k, f"<value><i4>{n}</i4></value>") for k, n in batch["valid_ref_counts"].items())
    return struct([("events", array), ("valid_ref_counts", counts), ("token", _string(batch["token"]))])


def _escape(text: str) -> str:
    """Most texts need nothing, and to find that out is ten times as quick as ``translate``."""
    return text.translate(_ESCAPES) if _ESCAPED.search(text) else text


def _string(text: str) -> str:
    return f"<value>{_escape(text)}</value>"


def struct(members: Any) -> str:
    """``members``: (name, written value)."""
    inside = "".join(f"<member><name>{_escape(str(k))}</name>{v}</member>" for k, v in members)
    return f"<value><struct>{inside}</struct></value>"


def _record(class_name: str, record: Mapping[str, Any]) -> str:
    inside = "".join([head + make(record[name]) for head, name, make in _field_encoders(class_name)])
    return f"<value><struct>{inside}</member></struct></value>" if inside else _EMPTY_STRUCT


@cache
def _field_encoders(class_name: str) -> list[tuple[str, str, Callable[[Any], str]]]:
    """What stands before each field's value, its name, and how it is written."""
    fields = datamodel.classes()[class_name].fields.values()
    return [
        (f"{'</member>' if number else ''}<member><name>{f.name}</name>", f.name, encoder(f.type))
        for number, f in enumerate(fields)
    ]


@cache
def encoder(type_: Type) -> Callable[[Any], str]:
    """A function that writes a value of a declared type as ``<value>...</value>``."""
    match type_.kind:
        case "int":
            return lambda value: f"<value>{value}</value>"
        case "float":
            return lambda value: f"<value><double>{float(value)!r}</double></value>"
        case "bool":
            return lambda value: f"<value><boolean>{int(value)}</boolean></value>"
        case "datetime":
            return lambda value: f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>"
        case "void":
            return lambda _: "<value></value>"
        case "set" if type_.inner is not None:
            inner = encoder(type_.inner)
            return lambda value: (
                f"<value><array><data>{''.join(map(inner, value))}</data></array></value>" if value else _EMPTY_ARRAY
            )
        case "map" if type_.inner is not None:
            inner = encoder(type_.inner)
            return lambda value: struct([(key, inner(item)) for key, item in value.items()]) if value else _EMPTY_STRUCT
        case "option" if type_.inner is not None:
            inner = encoder(type_.inner)
            return lambda value: "<value></value>" if value in ("", None) else inner(value)
        case "record":
            return lambda value: _record(type_.name, value)
    return _string
