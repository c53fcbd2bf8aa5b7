"""What is no call at all, at the real door: the error of JSON-RPC or XML-RPC that says so, with HTTP 400, whatever was
sent; never a page that a program cannot read, and never an error of ours."""

import json
import xmlrpc.client

import pytest
from hypothesis import given
from hypothesis import strategies as st

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS = -32700, -32600, -32602
CALL = {"jsonrpc": "2.0", "method": "system.isAlive", "params": [], "id": 1}
XML_CALL = xmlrpc.client.dumps(("ä", 1, [True, {"a": "b"}]), "VM.get_record").encode()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), texts
    ),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=8,
)


def ask_json(doors, body: bytes) -> tuple[int, dict]:
    status, headers, answer = doors.post("/jsonrpc", body)
    assert headers["content-type"] == "application/json"
    said = json.loads(answer)
    assert isinstance(said, dict)
    return status, said


def refused(said: dict) -> int:
    """The code; its text is there too, and neither tells of our insides."""
    assert said.get("result") is None
    assert said["error"]["message"]
    assert "Traceback" not in said["error"]["message"]
    return said["error"]["code"]


def wanted(request: object) -> int | None:
    """The code, as JSON-RPC 2.0 section 5.1 has it; none: it is a request."""
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return INVALID_REQUEST
    if "jsonrpc" in request and request["jsonrpc"] != "2.0":
        return INVALID_REQUEST
    by_name = isinstance(request.get("params"), dict) and "jsonrpc" in request
    return None if by_name or isinstance(request.get("params", []), list) else INVALID_PARAMS


@given(
    st.one_of(
        values,
        st.dictionaries(st.sampled_from(sorted(CALL)), values),
        st.tuples(st.sampled_from(sorted(CALL)), values).map(lambda changed: {**CALL, changed[0]: changed[1]}),
        st.sampled_from(sorted(CALL)).map(lambda left: {key: CALL[key] for key in CALL if key != left}),
        st.lists(st.just(CALL), max_size=3),
    )
)
async def test_any_json_gets_the_error_that_fits_it(doors, request):
    status, said = await doors.thread(ask_json, doors, json.dumps(request).encode())
    code = wanted(request)
    if code is not None:
        assert (status, refused(said)) == (400, code)
        assert said["id"] == (request.get("id") if isinstance(request, dict) else None)
    else:
        assert (status, said["id"]) == (200, request.get("id"))
        assert said.get("error") or said["result"] is True


@given(st.integers(0, len(json.dumps(CALL)) - 1), st.binary(max_size=5))
async def test_json_that_is_cut_or_damaged(doors, at, junk):
    whole = json.dumps(CALL).encode()
    status, said = await doors.thread(ask_json, doors, whole[:at])
    assert (status, refused(said), said["id"]) == (400, PARSE_ERROR, None)
    status, said = await doors.thread(ask_json, doors, whole[:at] + junk + whole[at:])
    if status == 400:
        assert refused(said) in (PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS)
    else:
        assert status == 200
        assert "result" in said or isinstance(said["error"]["message"], str)


@pytest.mark.parametrize(
    ("body", "status", "code", "id_"),
    [
        (b"", 400, PARSE_ERROR, None),
        (b"[" * 100_000, 400, PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","method":"a","id":3,"params":' + b"[" * 500 + b"]" * 500 + b"}", 400, PARSE_ERROR, None),
        (b"[]", 400, INVALID_REQUEST, None),
        (b'[{"jsonrpc":"2.0","method":"system.isAlive","id":1}]', 400, INVALID_REQUEST, None),
        (b'{"jsonrpc":"1.0","method":"system.isAlive","id":7}', 400, INVALID_REQUEST, 7),
        (b'{"jsonrpc":"2.0","method":["system.isAlive"],"id":"x"}', 400, INVALID_REQUEST, "x"),
        (b'{"jsonrpc":"2.0","method":"system.isAlive","params":"a","id":8}', 400, INVALID_PARAMS, 8),
        (b'{"jsonrpc":"2.0","method":"system.isAlive","params":null,"id":8}', 400, INVALID_PARAMS, 8),
        (b'{"method":"system.isAlive","params":{},"id":9}', 400, INVALID_PARAMS, 9),
        (b'{"jsonrpc":"2.0","method":"VM.\xff","id":5}', 200, 1, 5),  # INVALID_VALUE, as the XenAPI has it
    ],
)
async def test_each_kind_of_malformed_json(doors, body, status, code, id_):
    answered, said = await doors.thread(ask_json, doors, body)
    assert (answered, refused(said), said["id"]) == (status, code, id_)
    assert ("jsonrpc" in said) is (id_ != 9), "in the version that was asked in"


async def test_parameters_by_name_are_one_parameter(doors):
    """As in the original: methods of the XenAPI know no names of theirs."""
    body = b'{"jsonrpc":"2.0","method":"VM.get_record","params":{"session_id":"x"},"id":1}'
    status, said = await doors.thread(ask_json, doors, body)
    assert (status, said["error"]["message"]) == (200, "MESSAGE_PARAMETER_COUNT_MISMATCH")


def ask_xml(doors, body: bytes) -> tuple[int, object]:
    """A fault's code, or the struct of an answer."""
    status, headers, answer = doors.post("/", body)
    assert headers["content-type"] == "text/xml"
    try:
        ((said,), _) = xmlrpc.client.loads(answer)
    except xmlrpc.client.Fault as fault:
        return status, fault.faultCode if fault.faultString else "no text"
    return status, said


@given(st.integers(0, len(XML_CALL) - 2), st.binary(max_size=5), st.integers(0, 30))
async def test_xml_that_is_cut_or_damaged(doors, at, junk, left_out):
    status, said = await doors.thread(ask_xml, doors, XML_CALL[:at].rstrip())
    assert (status, said) == (400, PARSE_ERROR)
    status, said = await doors.thread(ask_xml, doors, XML_CALL[:at] + junk + XML_CALL[at + left_out :])
    if status == 400:
        assert said in (PARSE_ERROR, INVALID_REQUEST)
    else:
        assert (status, said["Status"]) == (200, "Failure")
        assert said["ErrorDescription"][0] != "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", PARSE_ERROR),
        (b"<methodCall>", PARSE_ERROR),
        (b"\xff\xfe", PARSE_ERROR),
        (XML_CALL.replace("ä".encode(), b"\xe4"), PARSE_ERROR),
        (b"<html></html>", INVALID_REQUEST),
        (b"<methodCall></methodCall>", INVALID_REQUEST),
        (XML_CALL.replace(b"<int>1</int>", b"<int>one</int>"), INVALID_REQUEST),
        (b'<!DOCTYPE x [<!ENTITY a "aa">]><methodCall><methodName>&a;</methodName></methodCall>', PARSE_ERROR),
        (b"<methodCall><methodName>a</methodName>" + b"<value><array><data>" * 200, INVALID_REQUEST),
    ],
)
async def test_each_kind_of_malformed_xml(doors, body, code):
    assert await doors.thread(ask_xml, doors, body) == (400, code)
