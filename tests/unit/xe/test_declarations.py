"""What is declared fits together: commands, columns, calls, sentences and descriptions."""

import json
import re
from pathlib import Path

import pytest

from gespann.seams.xenapi import datamodel
from gespann.xe.command_table import declared_commands
from gespann.xe.commands.plain_call import PlainCall
from gespann.xe.commands.plain_calls import plain_commands
from gespann.xe.error_texts import error_text, sentences
from gespann.xe.help import description
from gespann.xe.not_there import reasons
from gespann.xe.records.catalog import object_classes
from gespann.xe.records.change import _message
from gespann.xe.records.columns import Row
from gespann.xe.records.spelling import PRINTED, parsed, printed
from gespann.xe.registry import commands, handlers, missing_commands
from gespann.xe.tables import Tables
from tests.unit.xe.fake_xenapi import FakeXenApi

PLAIN = [(name, run.__self__) for name, run in plain_commands().items()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "declared"), PLAIN, ids=[name for name, _ in PLAIN])
def test_a_plain_call_is_a_message_of_the_api(name: str, declared: PlainCall) -> None:
    class_name, _, message_name = declared.message.partition(".")
    message = datamodel.classes()[class_name].messages[message_name]
    given = len(declared.parameters) + (declared.selects is not None)
    least = sum(not param.optional for param in message.params)
    assert least <= given <= len(message.params), message
    assert message.is_async or not declared.task
    shows = {"void": ("void",), "lines": ("set",), "map": ("map",)}.get(declared.shows)
    if shows:
        assert message.result.kind in shows or declared.shows == "void"
    elif declared.shows == "text":
        assert message.result.kind in ("string", "int", "float", "bool", "enum")
    else:
        assert (message.result.kind, message.result.name) == ("ref", declared.shows)


@pytest.mark.parametrize(("name", "declared"), PLAIN, ids=[name for name, _ in PLAIN])
def test_a_selecting_call_is_declared_to_select(name: str, declared: PlainCall) -> None:
    flags = declared_commands()[name].flags
    selects = {"vm-selectors", "host-selectors", "sr-selectors"} & flags
    assert bool(selects) == (declared.selects is not None) or name == "host-set-hostname-live"
    if declared.selects is not None:
        assert selects == {f"{declared.selects.object_class}-selectors"}


def test_every_missing_command_has_its_reason() -> None:
    assert sorted(reasons()) == missing_commands()


def test_every_handler_is_a_declared_command() -> None:
    assert set(handlers()) <= set(declared_commands())
    assert not set(handlers()) & set(missing_commands())


def test_every_command_says_what_it_does() -> None:
    assert [name for name in commands() if not description(name)] == []


def test_sentences_are_for_errors_that_the_datamodel_describes() -> None:
    assert set(sentences()) <= set(datamodel.error_params())
    assert len(sentences()) > 250
    for code, text in sentences().items():
        assert re.fullmatch(r"[A-Z].*[.]", text), code


def test_the_pools_errors_have_sentences() -> None:
    """Whatever the declarations of the pool's classes say that their messages raise."""
    folder = Path(datamodel.__file__).parent / "classes"
    raised = {
        code
        for name in _SERVED
        for message in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["messages"]
        for code in message.get("errors", [])
    }
    assert len(raised) > 80
    assert {code for code in raised & set(datamodel.error_params()) if code not in sentences()} <= _UNDESCRIBED


def test_whatever_the_pools_code_raises_has_a_sentence() -> None:
    folder = Path(datamodel.__file__).parents[2] / "pool"
    raised = {
        code
        for source in folder.rglob("*.py")
        for code in re.findall(r'(?:XenApiError|Refused)\(\s*"([A-Z_0-9]+)"', source.read_text(encoding="utf-8"))
    }
    assert len(raised) > 100
    errors = json.loads((Path(datamodel.__file__).parent / "facts/errors.json").read_text(encoding="utf-8"))
    described = {error["code"] for error in errors if error["params"] is not None}
    assert raised & described <= set(sentences())


_SERVED = (
    *("VM", "VDI", "VBD", "SR", "PBD", "VIF", "network", "PIF", "VLAN", "Bond", "tunnel", "task", "message"),
    *("session", "console", "host", "pool", "secret", "SM", "event"),
)
# Codes that the datamodel names without describing them: shown bare, as the original does.
_UNDESCRIBED = {code for code, names in datamodel.error_params().items() if not names}


def test_too_few_and_too_many_parameters() -> None:
    assert error_text("UUID_INVALID", ["VM"]).lines == ["type: VM", "uuid: <unknown>"]
    assert error_text("UUID_INVALID", ["VM", "a", "b"]).lines == ["type: VM", "uuid: a", "<extra>: b"]
    assert error_text("SR_BACKEND_FAILURE_90", ["", "x"]).sentence is None


@pytest.mark.parametrize("enum", sorted(PRINTED))
def test_spellings_are_of_values_and_read_back(enum: str) -> None:
    values = datamodel.enums()[enum]
    assert set(PRINTED[enum]) <= set(values)
    assert {parsed(enum, printed(enum, value)) for value in values} == set(values)
    assert {parsed(enum, value.upper()) for value in values} == set(values)


@pytest.mark.parametrize("name", sorted(object_classes()))
async def test_every_column_of_a_fresh_object_is_text(name: str) -> None:
    object_class = object_classes()[name]
    api = FakeXenApi()
    ref = api.add(object_class.api_class)
    session = await api.local_session()

    async def request(method: str, *params: object) -> object:
        return await api.call(method, session, *params)

    tables = Tables(request)
    await tables.fetch({needed for column in object_class.columns for needed in column.needs})
    row = Row(ref, api.db[object_class.api_class][ref], tables)
    for column in object_class.columns:
        assert isinstance(column.printed(column.read(row)), str), column.name
        assert column.heading.endswith((")", "[DEPRECATED]"))
        if column.writable:
            verbs = {"RW": ("set",), "SRW": ("add", "remove"), "MRW": ("add_to", "remove_from")}[column.tag]
            ways = [_message(object_class, verb, column) for verb in verbs]
            assert all(ways) or _message(object_class, "set", column), column.name


def test_default_columns_exist() -> None:
    for object_class in object_classes().values():
        assert object_class.column("uuid") is not None
        shown = [name for name in object_class.default_columns if object_class.column(name)]
        assert shown or not object_class.default_columns, object_class.name
