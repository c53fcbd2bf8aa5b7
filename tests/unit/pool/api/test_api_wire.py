"""Bodies of requests: what is read, and what is refused without harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.api import wire_json, wire_xml
from gespann.pool.api.wire_json import MalformedRequest
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<methodCall><methodName>&b;</methodName></methodCall>"
)
OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><methodCall><methodName>&a;</methodName></methodCall>'


def call(params: str, name: str = "VM.start") -> bytes:
    inside = f"<methodName>{name}</methodName><params>{params}</params>"
    inside = f"<methodName>{name}</methodName><params>{params}</params>"
    return f"<?xml version='1.0'?><methodCall>{inside}</methodCall>".encode()


def param(value: str) -> str:
    return f"<param><value>{value}</value></param>"


def test_xml_rpc_call_is_read():
    body = call(
        param("bare")
        + param("<string>typed</string>")
        + param("<i4>4</i4>")
        + param("<int>5</int>")
        + param("<boolean>1</boolean>")
        + param("<double>0.5</double>")
        + param("<dateTime.iso8601>20260101T00:00:00Z</dateTime.iso8601>")
        + param("<array><data><value>a</value></data></array>")
        + param("<struct><member><name>k</name><value>v</value></member></struct>")
        + param("")
    )
    assert wire_xml.parse(body) == (
        "VM.start",
        ["bare", "typed", 4, 5, True, 0.5, "20260101T00:00:00Z", ["a"], {"k": "v"}, ""],
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"<methodCall>",
        b"<methodCall></methodCall>",
        b"<methodResponse><params></params></methodResponse>",
        b"<html><body>hello</body></html>",
        BOMB,
        OUTSIDE,
        call(param("<int>x</int>")),
        call(param("<boolean>7</boolean>")),
        call(param("<base64>!!</base64>")).replace(b"!!", b"\xff\xff"),
        call(param("<struct><member><value>v</value></member></struct>")),
        call(param("<nonsense>1</nonsense>")),
        call("<value>" * 100_000),
        call(
            param(
                "<array><data>" + "<value><array><data>" * 1000 + "</data></array></value>" * 1000 + "</data></array>"
            )
        ),
        call(param("\x01")),
    ],
    ids=range(16),
)
def test_what_is_not_xml_rpc_is_malformed(body):
    with pytest.raises(MalformedRequest):
        wire_xml.parse(body)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_xml_parser(junk):
    for body in (junk, call(param("x")).replace(b"x</value>", junk + b"</value>")):
        with contextlib.suppress(MalformedRequest):
            wire_xml.parse(body)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_json_parser(junk):
    for body in (junk, b'{"method": "x", "params": [' + junk + b'], "id": 1}'):
        with contextlib.suppress(MalformedRequest, XenApiError):
            wire_json.parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        b'{"method": 1}',
        b'{"method": "a", "params": {}}',
        b'{"method": "a", "params": "b"}',
        b"[" * 100_000,
        b'{"method":"a","params":[' + b"[" * 65 + b"]" * 65 + b"]}",
        b'{"method": "a" "params": []}',
    ],
    ids=range(11),
)
def test_what_is_not_json_rpc_is_malformed(body):
    with pytest.raises(MalformedRequest):
        wire_json.parse(body)


def test_brackets_inside_strings_are_not_depth():
    body = b'{"method": "a", "params": ["' + b"[" * 200 + b'\\"{"]}'
    assert wire_json.parse(body).params == ["[" * 200 + '"{']


def test_what_is_not_utf_8_is_an_invalid_value():
    with pytest.raises(XenApiError, match="INVALID_VALUE"):
        wire_json.parse(b'{"method": "a", "params": ["\xff"]}')


def test_json_versions_answer_in_their_own_shape():
    old = wire_json.parse(b'{"method": "a", "params": [], "id": 7}')
    new = wire_json.parse(b'{"jsonrpc": "2.0", "method": "a", "id": "x"}')
    error = XenApiError("HANDLE_INVALID", ["VM", "x"])
    assert wire_json.success(old, Type("int"), 5, None) == b'{"result":"5","error":null,"id":7}'
    assert wire_json.failure(old, error) == b'{"result":null,"error":["HANDLE_INVALID","VM","x"],"id":7}'
    assert wire_json.success(new, Type("void"), None, None) == b'{"jsonrpc":"2.0","result":"","id":"x"}'
    assert wire_json.failure(new, error) == (
        b'{"jsonrpc":"2.0","error":{"code":1,"message":"HANDLE_INVALID","data":["VM","x"]},"id":"x"}'
    )
