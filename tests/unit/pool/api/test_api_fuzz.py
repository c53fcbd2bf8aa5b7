"""Every method that answers, with every kind of wrong parameter: one of the API's errors, and nothing changed."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gespann.pool.api import dispatch
from gespann.pool.api.generic import handler_of
from gespann.pool.api.messages import HANDLERS
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError

MISSING = "OpaqueRef:00000000-0000-0000-0000-000000000000"
REFUSALS = {
    "FIELD_TYPE_ERROR",
    "INVALID_VALUE",
    "HANDLE_INVALID",
    "UUID_INVALID",
    "MESSAGE_PARAMETER_COUNT_MISMATCH",
    "EVENT_SUBSCRIPTION_PARSE_FAILURE",
    "EVENT_FROM_TOKEN_PARSE_FAILURE",
}
JUNK = (None, True, 1, 1.5, -1, 2**70, "", "junk", MISSING, "x" * 2_000_000, "\x00", [], [1], ["a"], {}, {"a": 1}, [[]])
OWN = ("session", "task", "event", "message", "role", "secret")  # classes with handlers of this part
METHODS = [m for m in dispatch.implemented() if "logout" not in m and "login" not in m and "password" not in m]


def is_answered_here(method: str) -> bool:
    """Handlers of work have their own tests; here is what the door answers itself."""
    class_name, name = method.split(".")
    generic = method not in HANDLERS and handler_of(datamodel.classes()[class_name].messages[name])
    return bool(generic) or class_name in OWN


def methods_here() -> list[str]:
    return [method for method in METHODS if is_answered_here(method)]


async def outcome(api, method, *params) -> str:
    try:
        await api.call(method, *params)
    except XenApiError as error:
        return error.code
    return "done"


def picture(db):
    kept = {name: table for name, table in db.tables.items() if name not in ("session", "task", "message")}
    return copy.deepcopy(kept)


@pytest.mark.parametrize("class_name", sorted({method.split(".")[0] for method in methods_here()}))
async def test_wrong_counts_and_wrong_types_are_refused(world, class_name):
    before = picture(world.api.pool.db)
    for method in methods_here():
        if method.split(".")[0] == class_name:
            await try_wrong_calls(world, datamodel.classes()[class_name].messages[method.split(".")[1]])
    assert picture(world.api.pool.db) == before


async def try_wrong_calls(world, message) -> None:
    method = f"{message.class_name}.{message.name}"
    many = [world.root] + ["x"] * (len(message.params) + 1)
    assert await outcome(world.api, method, *many) == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    if any(not p.optional for p in message.params):
        assert await outcome(world.api, method, world.root) == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    if not message.params or message.params[0].type.kind != "ref":
        return
    rest = [p.default if p.optional else datamodel.zero(p.type) for p in message.params[1:]]
    for bad in (MISSING, world.vm if message.class_name != "VM" else world.vdi, "junk", 5, None, []):
        code = await outcome(world.api, method, world.root, bad, *rest)
        assert code in REFUSALS, (method, bad, code)


@settings(max_examples=4 * settings().max_examples)
@given(st.sampled_from(methods_here()), st.lists(st.sampled_from(JUNK), max_size=5))
async def test_junk_never_gets_further_than_a_refusal_or_a_proper_answer(world, method, junk):
    code = await outcome(world.api, method, world.root, *junk)
    assert code != "INTERNAL_ERROR"
    assert code == "done" or code in datamodel.error_params()


SETTERS = [method for method in methods_here() if ".set_" in method]


@pytest.mark.parametrize("class_name", sorted({method.split(".")[0] for method in SETTERS}))
async def test_setters_take_only_values_of_their_type(world, class_name):
    """Every one with every value: which of them fails must not be a matter of luck."""
    refs = list(world.api.pool.db.all(class_name))
    messages = datamodel.classes()[class_name].messages
    for method in SETTERS:
        message = messages.get(method.split(".")[1])
        if refs and method.split(".")[0] == class_name and message is not None and len(message.params) == 2:
            for value in JUNK:
                await try_set(world, method, refs[0], value)


async def try_set(world, method, ref, value) -> None:
    class_name, name = method.split(".")
    code = await outcome(world.api, method, world.root, ref, value)
    assert code in REFUSALS or code in ("done", "OPERATION_NOT_ALLOWED"), (method, str(value)[:80], code)
    if code == "done":
        kept = world.api.pool.db.get(class_name, ref)[name.removeprefix("set_")]
        wanted = datamodel.zero(datamodel.classes()[class_name].fields[name.removeprefix("set_")].type)
        assert type(kept) is type(wanted), (method, str(value)[:80])
