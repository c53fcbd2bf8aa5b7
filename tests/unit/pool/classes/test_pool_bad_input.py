"""Every parameter of every method that answers, and every member of every constructor, given what it cannot be: the
API's error that names the parameter, and nothing has changed."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from gespann.pool.api import dispatch
from gespann.pool.api.dispatch import UNCHECKED_REFS
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Message, Type
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import vif_fields

DANGLING = "OpaqueRef:00000000-0000-0000-0000-000000000000"
LONG = "x" * 10_000_000
WRONG, INVALID, NO_HANDLE = "FIELD_TYPE_ERROR", "INVALID_VALUE", "HANDLE_INVALID"
#: values and the code that each is refused with
TEXTS: list[tuple[Any, str]] = [
    (5, WRONG), (None, WRONG), (True, WRONG), ([], WRONG), ({}, WRONG), (["a"], WRONG),
    ("\x00", INVALID), ("\ud800", INVALID), (LONG, INVALID),
]  # fmt: skip
BAD: dict[str, list[tuple[Any, str]]] = {
    "string": TEXTS,
    "int": [("x", WRONG), ("", WRONG), (1.5, WRONG), (True, WRONG), ([], WRONG), ({}, WRONG), ("1e3", WRONG),
            (2**63, INVALID), (str(-(2**63) - 1), INVALID), (None, WRONG)],
    "float": [("x", WRONG), ([], WRONG), (None, WRONG), (True, WRONG), ("nan", INVALID), (10**400, INVALID)],
    "bool": [("maybe", WRONG), (2, WRONG), (None, WRONG), ([], WRONG), ("", WRONG)],
    "datetime": [("yesterday", WRONG), (5, WRONG), ([], WRONG), ("20101301T00:00:00Z", INVALID), ("", WRONG)],
    "enum": [("no such value", INVALID), ("", INVALID), *[bad for bad in TEXTS if bad[1] == WRONG]],
    "set": [("x", WRONG), (5, WRONG), (None, WRONG), ({}, WRONG), ([None], WRONG), ([[]], WRONG)],
    "map": [("x", WRONG), (5, WRONG), (None, WRONG), ([], WRONG), ({"a": None}, WRONG), ({"a": []}, WRONG)],
    "record": [("x", WRONG), (5, WRONG), (None, WRONG), ([], WRONG)],
    "ref": [bad for bad in TEXTS if bad[1] == WRONG] + [(DANGLING, NO_HANDLE), ("junk", NO_HANDLE)],
}  # fmt: skip
#: made of more than their parameters: a value that fits is needed before the wrong one is looked at
CLASSES = sorted({method.partition(".")[0] for method in dispatch.implemented()})


def bad_values(type_: Type) -> list[tuple[Any, str]]:
    """An option may be nothing: a value that is there must still be right. Of sets and maps each member, key and value
    is wrong in turn."""
    if type_.kind == "option":
        assert type_.inner is not None
        return [(value, code) for value, code in bad_values(type_.inner) if value not in (None, "")]
    found = BAD[type_.kind]
    if type_.kind == "set" and type_.inner is not None:
        found = [*found, *(([value], code) for value, code in bad_values(type_.inner) if value is not LONG)]
    if type_.kind == "map" and type_.key is not None and type_.inner is not None:
        if type_.key.kind != "string":
            found = [bad for bad in found if not bad[0] or not isinstance(bad[0], dict)]  # their keys are wrong before
        keys = [bad for bad in bad_values(type_.key) if isinstance(bad[0], str) and bad[0] is not LONG]
        right, value = sample(type_.key), sample(type_.inner)
        found = [*found, *(({key: value}, code) for key, code in keys)]
        if right != NULL_REF:  # of a map by references the key is no handle before its value is looked at
            found += [({right: bad}, code) for bad, code in bad_values(type_.inner) if bad is not LONG]
    return found


def sample(type_: Type) -> Any:
    """A value of the type that is right by itself."""
    return datamodel.zero(type_)


def fitting(world, type_: Type) -> Any:
    """Something of the type; refs are of records that are there."""
    if type_.kind == "ref":
        return next(iter(world.db.all(type_.name)), NULL_REF) if type_.name in world.db.tables else NULL_REF
    if type_.kind == "record":
        fields = datamodel.classes()[type_.name].fields.values()
        given = [f for f in fields if f.qualifier in ("RW", "RO/constructor")]
        return {f.name: fitting(world, f.type) if f.type.kind == "ref" else f.default for f in given}
    return datamodel.zero(type_)


def wrong_calls(world, message: Message) -> Iterator[tuple[list[Any], str, str]]:
    """Parameters, the expected code, and the name that the error must give."""
    right = [fitting(world, param.type) for param in message.params]
    for at, param in enumerate(message.params):
        for value, code in bad_values(param.type):
            if not (code == NO_HANDLE and f"{message.class_name}.{message.name}" in UNCHECKED_REFS):
                yield [*right[:at], value, *right[at + 1 :]], code, param.name
        if param.type.kind == "record":
            for member, value, code in wrong_members(param.type.name):
                yield [*right[:at], {**right[at], member: value}, *right[at + 1 :]], code, member


def wrong_members(class_name: str) -> Iterator[tuple[str, Any, str]]:
    for field in datamodel.classes()[class_name].fields.values():
        if field.qualifier in ("RW", "RO/constructor"):
            for value, code in bad_values(field.type):
                yield field.name, value, code


async def filled(world) -> None:
    """A record of every class that can be made here, so that what is in front of a wrong parameter is right."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    network = await world.call("network.create", {"name_label": "inside", "name_description": "", "other_config": {}})
    await world.call("VIF.create", vif_fields(vm, network))
    await world.call("secret.create", {"value": "hush hush", "other_config": {}})
    await world.call("subject.create", {"subject_identifier": "u1", "other_config": {}})
    await world.call("message.create", "n", 1, "VM", world.get("VM", vm)["uuid"], "")
    await world.call("task.create", "mine", "")
    await world.call("VM.start", vm, False, False)


def picture(world) -> Any:
    return copy.deepcopy({name: table for name, table in world.db.tables.items() if name not in ("session", "task")})


async def outcome(world, method: str, params: list[Any]) -> list[str]:
    try:
        await world.call(method, *params)
    except XenApiError as error:
        return [error.code, *error.params]
    return ["done"]


@pytest.mark.parametrize("class_name", CLASSES)
async def test_wrong_parameter_is_named_and_nothing_changes(world, class_name):
    await filled(world)
    before = picture(world)
    for message in datamodel.classes()[class_name].messages.values():
        method = f"{class_name}.{message.name}"
        if dispatch.bind(class_name, message.name) is None or not message.needs_session:
            continue
        for params, code, name in wrong_calls(world, message):
            answer = await outcome(world, method, params)
            shown = (method, name, str(params)[:200], answer)
            assert answer[0] == code, shown
            if code != NO_HANDLE:
                assert answer[1].partition("[")[0] == name, shown
            assert len(str(answer)) < 1000, "an error does not repeat what it was given"
    assert picture(world) == before


@pytest.mark.parametrize("class_name", CLASSES)
async def test_references_of_other_classes_are_no_handles(world, class_name):
    await filled(world)
    before = picture(world)
    for message in datamodel.classes()[class_name].messages.values():
        if dispatch.bind(class_name, message.name) is None or not message.needs_session:
            continue
        method = f"{class_name}.{message.name}"
        right = [fitting(world, param.type) for param in message.params]
        for at, param in enumerate(message.params):
            if param.type.kind == "ref" and param.type.name in world.db.tables and method not in UNCHECKED_REFS:
                other = "host" if param.type.name != "host" else "pool"
                foreign = next(iter(world.db.all(other)))
                answer = await outcome(world, method, [*right[:at], foreign, *right[at + 1 :]])
                assert answer == [NO_HANDLE, param.type.name, foreign], method
    assert picture(world) == before


CONSTRUCTORS = sorted(
    (class_name, message.name)
    for class_name in CLASSES
    for message in datamodel.classes()[class_name].messages.values()
    if message.params and message.params[0].type.kind == "record" and dispatch.bind(class_name, message.name)
)


@pytest.mark.parametrize(("class_name", "name"), CONSTRUCTORS)
async def test_constructor_without_a_member_or_with_another_classes_reference(world, class_name, name):
    await filled(world)
    before = picture(world)
    (param,) = datamodel.classes()[class_name].messages[name].params
    right = fitting(world, param.type)
    assert right
    for field in datamodel.classes()[class_name].fields.values():
        if field.name not in right:
            continue
        if field.required:
            less = {member: value for member, value in right.items() if member != field.name}
            assert await outcome(world, f"{class_name}.{name}", [less]) == [WRONG, field.name]
        if field.type.kind == "ref" and field.type.name in world.db.tables:
            other = next(iter(world.db.all("host" if field.type.name != "host" else "pool")))
            answer = await outcome(world, f"{class_name}.{name}", [{**right, field.name: other}])
            assert answer == [NO_HANDLE, field.type.name, other], field.name
    assert picture(world) == before


@pytest.mark.parametrize("class_name", CLASSES)
async def test_nothing_is_not_an_object(world, class_name):
    """The null reference, an empty one, and a uuid in the place of what a message is about."""
    await filled(world)
    before = picture(world)
    uuid = "00000000-0000-4000-8000-000000000000"
    for message in datamodel.classes()[class_name].messages.values():
        if dispatch.bind(class_name, message.name) is None or not message.needs_session or not message.params:
            continue
        first = message.params[0]
        method = f"{class_name}.{message.name}"
        if first.type.kind != "ref" or first.type.name != class_name or method in UNCHECKED_REFS:
            continue
        rest = [fitting(world, param.type) for param in message.params[1:]]
        for nothing, shown in ((NULL_REF, NULL_REF), ("", NULL_REF), (uuid, uuid)):
            assert await outcome(world, method, [nothing, *rest]) == [NO_HANDLE, class_name, shown], method
    assert picture(world) == before


@pytest.mark.parametrize("class_name", CLASSES)
async def test_counts_that_do_not_fit(world, class_name):
    for message in datamodel.classes()[class_name].messages.values():
        if dispatch.bind(class_name, message.name) is None or not message.needs_session:
            continue
        method = f"{class_name}.{message.name}"
        most, least = len(message.params), sum(not param.optional for param in message.params)
        for count in {most + 1, most + 100, least - 1, 0 if least else most + 1} - {-1}:
            answer = await outcome(world, method, ["x"] * count)
            assert answer == ["MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(most), str(count)]
