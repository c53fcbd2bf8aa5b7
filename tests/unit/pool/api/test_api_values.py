"""Values by declared type: what is taken, what is refused, and what comes back over both wires."""

import xmlrpc.client
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.api import values, wire_json, wire_xml
from gespann.pool.api.record_cache import RecordCache
from gespann.pool.model.database import Database
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Type, parse_type
from gespann.seams.xenapi.errors import XenApiError

RECORDS = RecordCache(Database(None).tables)

# text that both wires can carry: no control characters but tab and newline, no halves of characters
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\t\n")
)
LEAVES = {
    "string": TEXT,
    "int": st.integers(values.INT_MIN, values.INT_MAX),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "datetime": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(
        lambda d: values.datetime_text(d.replace(tzinfo=UTC))
    ),
    "VM ref": st.uuids().map(lambda u: f"OpaqueRef:{u}"),
    "enum vm_power_state": st.sampled_from(datamodel.enums()["vm_power_state"]),
}


@st.composite
def typed_values(draw):
    name = draw(st.sampled_from(sorted(LEAVES)))
    shape = draw(st.sampled_from(["plain", "set", "map"]))
    if shape == "set":
        return f"{name} set", draw(st.lists(LEAVES[name], max_size=5))
    if shape == "map":
        return f"(string -> {name}) map", draw(st.dictionaries(TEXT, LEAVES[name], max_size=5))
    return name, draw(LEAVES[name])


@given(typed_values())
def test_json_carries_every_value_there_and_back(typed):
    type_text, value = typed
    type_ = parse_type(type_text)
    sent = msgspec.json.encode(wire_json.encode(type_, value, RECORDS))
    assert values.decode(type_, "x", msgspec.json.decode(sent)) == value


@given(typed_values())
def test_xml_rpc_carries_every_value_there_and_back(typed):
    type_text, value = typed
    type_ = parse_type(type_text)
    answer = wire_xml.success(type_, value, RECORDS)
    (result,), _ = xmlrpc.client.loads(answer.decode(), use_builtin_types=False)
    assert result["Status"] == "Success"
    assert values.decode(type_, "x", wire_xml._plain(result["Value"])) == value


@pytest.mark.parametrize(
    ("type_text", "given_value", "expected"),
    [
        ("int", "12", 12),
        ("int", " -3 ", -3),
        ("int", 12, 12),
        ("int", 12.0, 12),
        ("float", "0.5", 0.5),
        ("float", 1, 1.0),
        ("bool", "true", True),
        ("bool", False, False),
        ("VM ref", "", NULL_REF),
        ("datetime", "20260101T10:00:00Z", "20260101T10:00:00Z"),
        ("datetime", "2026-01-01T10:00:00Z", "20260101T10:00:00Z"),
        ("datetime", "20260101T10:00:00", "20260101T10:00:00Z"),
        ("datetime", "2026-01-01T10:00:00.123+02:00", "20260101T08:00:00Z"),
        ("enum vm_power_state", "running", "Running"),
        ("(string -> string) map", {}, {}),
        ("string set", ("a", "b"), ["a", "b"]),
    ],
)
def test_taken(type_text, given_value, expected):
    decoded = values.decode(parse_type(type_text), "x", given_value)
    assert decoded == expected
    assert type(decoded) is type(expected)


@pytest.mark.parametrize(
    ("type_text", "given_value", "code"),
    [
        ("string", 1, "FIELD_TYPE_ERROR"),
        ("string", None, "FIELD_TYPE_ERROR"),
        ("string", ["a"], "FIELD_TYPE_ERROR"),
        ("string", "a\x00b", "INVALID_VALUE"),
        ("string", "\ud800", "INVALID_VALUE"),
        ("string", "x" * (values.STRING_LIMIT_CHARS + 1), "INVALID_VALUE"),
        ("int", "twelve", "FIELD_TYPE_ERROR"),
        ("int", "", "FIELD_TYPE_ERROR"),
        ("int", True, "FIELD_TYPE_ERROR"),
        ("int", 1.5, "FIELD_TYPE_ERROR"),
        ("int", "٣", "FIELD_TYPE_ERROR"),
        ("int", 2**63, "INVALID_VALUE"),
        ("int", str(-(2**63) - 1), "INVALID_VALUE"),
        ("int", "9" * 5000, "FIELD_TYPE_ERROR"),
        ("float", "inf", "INVALID_VALUE"),
        ("float", "nan", "INVALID_VALUE"),
        ("float", 10**400, "INVALID_VALUE"),
        ("float", "much", "FIELD_TYPE_ERROR"),
        ("bool", "yes", "FIELD_TYPE_ERROR"),
        ("bool", 1, "FIELD_TYPE_ERROR"),
        ("datetime", "yesterday", "FIELD_TYPE_ERROR"),
        ("datetime", "20261301T10:00:00Z", "INVALID_VALUE"),
        ("datetime", 5, "FIELD_TYPE_ERROR"),
        ("VM ref", 7, "FIELD_TYPE_ERROR"),
        ("enum vm_power_state", "Dancing", "INVALID_VALUE"),
        ("enum vm_power_state", 1, "FIELD_TYPE_ERROR"),
        ("string set", "a", "FIELD_TYPE_ERROR"),
        ("string set", {"a": "b"}, "FIELD_TYPE_ERROR"),
        ("string set", [1], "FIELD_TYPE_ERROR"),
        ("string set", ["a"] * (values.MEMBERS_LIMIT + 1), "INVALID_VALUE"),
        ("(string -> string) map", [], "FIELD_TYPE_ERROR"),
        ("(string -> string) map", {"a": 1}, "FIELD_TYPE_ERROR"),
        ("(string -> enum vm_operations) map", {"a": "no_such"}, "INVALID_VALUE"),
        ("VBD record", "x", "FIELD_TYPE_ERROR"),
        ("VBD record", {}, "FIELD_TYPE_ERROR"),
    ],
)
def test_refused(type_text, given_value, code):
    with pytest.raises(XenApiError) as caught:
        values.decode(parse_type(type_text), "x", given_value)
    assert caught.value.code == code
    assert all(len(param) < 200 for param in caught.value.params)


def test_constructor_takes_what_may_be_given_and_fills_in_the_rest():
    required = {
        f.name: values.decode(f.type, f.name, "") if f.type.kind == "ref" else datamodel.zero(f.type)
        for f in datamodel.classes()["VBD"].fields.values()
        if f.required
    }
    record = values.decode(parse_type("VBD record"), "args", {**required, "uuid": "mine", "no_such": 1})
    assert "uuid" not in record  # not the caller's to choose
    assert "no_such" not in record
    assert record["other_config"] == {}


def test_constructor_names_the_missing_member():
    with pytest.raises(XenApiError) as caught:
        values.decode(parse_type("secret record"), "args", {})
    assert (caught.value.code, caught.value.params) == ("FIELD_TYPE_ERROR", ["value"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_value_breaks_a_decoder(value):
    for type_text in (*LEAVES, "string set", "(string -> string) map", "VM record", "string option"):
        refusal = refusal_of(type_text, value)
        if refusal is not None:
            assert refusal.code in ("FIELD_TYPE_ERROR", "INVALID_VALUE")
            assert refusal.code.encode() in wire_xml.failure(refusal)
            assert msgspec.json.encode(refusal.params)


def refusal_of(type_text, value):
    try:
        values.decode(parse_type(type_text), "x", value)
    except XenApiError as error:
        return error
    return None


def test_every_type_of_the_datamodel_has_a_decoder_and_encoders():
    for class_ in datamodel.classes().values():
        record = {f.name: f.default for f in class_.fields.values()}
        type_ = Type("record", class_.name)
        xml = wire_xml.encode(type_, record, RECORDS)
        shown = msgspec.json.decode(msgspec.json.encode(wire_json.encode(type_, record, RECORDS)))
        assert set(shown) == set(class_.fields)
        assert xml.count("<name>") >= len(class_.fields)
        for field in class_.fields.values():
            assert values.decode(field.type, field.name, shown[field.name]) == field.default
