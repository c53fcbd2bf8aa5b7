"""From a method's name to its answer: the generic messages, and every way to be refused."""

import pytest

from gespann.pool.api import dispatch, messages
from gespann.pool.api.advertised import CLASSES, PLAIN_FIELDS
from gespann.pool.api.caller import Caller
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

MISSING = "OpaqueRef:00000000-0000-0000-0000-000000000000"


async def refusal(call) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await call
    return [caught.value.code, *caught.value.params]


# -- reading


async def test_reading_by_every_way(world):
    record = await world.call("VM.get_record", world.vm)
    assert record["name_label"] == "web1"
    assert set(record) == set(datamodel.classes()["VM"].fields)
    assert await world.call("VM.get_name_label", world.vm) == "web1"
    assert await world.call("VM.get_by_uuid", record["uuid"]) == world.vm
    assert await world.call("VM.get_by_name_label", "web1") == [world.vm]
    assert await world.call("VM.get_by_name_label", "nobody") == []
    assert await world.call("VM.get_all") == [world.vm]
    assert await world.call("VM.get_all_records") == {world.vm: record}
    assert await world.call("VM.get_VBDs", world.vm) == [world.vbd]


async def test_what_is_not_there(world):
    assert await refusal(world.call("VM.get_record", MISSING)) == ["HANDLE_INVALID", "VM", MISSING]
    assert await refusal(world.call("VM.get_record", NULL_REF)) == ["HANDLE_INVALID", "VM", NULL_REF]
    assert await refusal(world.call("VM.get_record", world.vdi)) == ["HANDLE_INVALID", "VM", world.vdi]
    assert await refusal(world.call("VM.get_by_uuid", "x")) == ["UUID_INVALID", "VM", "x"]


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("true", True),
        ("false", False),
        ("not true", False),
        ('field "name_label" = "web1"', True),
        ('(field "name_label") = ("web1")', True),
        ('field "name_label"="web2" or field "is_a_template" = "false"', True),
        ('field "is_a_template" = "true" and true or field "memory_static_max" = "1073741824"', True),
        ('not (field "name_label" = "web1" and true)', False),
        ("field 'name_label' = 'web1'", True),
        ('"web1" = field "name_label"', True),
        ('field "name_description" = ""', True),
        ('((true)) AND (((field "name_label" = "web1")))', True),
        (r'field "name_label" = "we\b1"', True),
        # `and` and `or` bind alike, from the left; `not` denies all that follows
        ("true or false and false", False),
        ("false and false or true", True),
        ("not false and false", True),
        ("(not false) and false", False),
        ("true and not false or true", False),
    ],
)
async def test_filters(world, expr, found):
    assert bool(await world.call("VM.get_all_records_where", expr)) is found
    assert bool(await world.call("VM.get_all_where", expr)) is found


@pytest.mark.parametrize(
    "expr",
    [
        "",
        "maybe",
        'field "no_such" = "x"',
        'field "name_label"',
        'field = "x"',
        "true true",
        "(true",
        'field "name_label" = "x',
        "__import__('os')",
        "(" * 50_000,
        "not " * 50_000 + "true",
        "x" * 100_000,
    ],
)
async def test_filters_that_cannot_be_read(world, expr):
    code, name, _ = await refusal(world.call("VM.get_all_records_where", expr))
    assert (code, name) == ("INVALID_VALUE", "expr")


# -- writing


async def test_setting_a_field(world):
    await world.call("VM.set_name_description", world.vm, "web server")
    assert await world.call("VM.get_name_description", world.vm) == "web server"


async def test_adding_to_and_removing_from_a_map(world):
    await world.call("pool.add_to_other_config", world.pool, "a", "1")
    uuid = await world.call("pool.get_uuid", world.pool)
    again = await refusal(world.call("pool.add_to_other_config", world.pool, "a", "2"))
    assert again == ["MAP_DUPLICATE_KEY", "pool", "other_config", uuid, "a"]
    assert await world.call("pool.get_other_config", world.pool) == {"a": "1"}
    await world.call("pool.remove_from_other_config", world.pool, "a")
    await world.call("pool.remove_from_other_config", world.pool, "a")  # not there: not an error
    assert await world.call("pool.get_other_config", world.pool) == {}


async def test_adding_to_and_removing_from_a_set(world):
    for _ in range(2):
        await world.call("VM.add_tags", world.vm, "blue")
    assert await world.call("VM.get_tags", world.vm) == ["blue"]
    await world.call("VM.remove_tags", world.vm, "blue")
    await world.call("VM.remove_tags", world.vm, "blue")
    assert await world.call("VM.get_tags", world.vm) == []


async def test_fields_published_with_messages_of_their_own_are_written_too(world):
    await world.call("VM.set_other_config", world.vm, {"a": "1"})
    await world.call("VM.add_to_other_config", world.vm, "b", "2")
    await world.call("VM.remove_from_other_config", world.vm, "a")
    assert await world.call("VM.get_other_config", world.vm) == {"b": "2"}


def test_plain_fields_are_published():
    for name in PLAIN_FIELDS:
        class_name, field = name.split(".")
        assert f"set_{field}" in datamodel.classes()[class_name].messages
        assert field in datamodel.classes()[class_name].fields


async def test_hook_gets_the_new_value_of_the_whole_field_instead_of_a_write(world, monkeypatch):
    seen = []

    async def hook(call, ref, value):
        seen.append((call.method, ref, value))

    monkeypatch.setitem(messages.SETTERS, "VDI.other_config", hook)
    await world.call("VDI.set_other_config", world.vdi, {"a": "1"})
    await world.call("VDI.add_to_other_config", world.vdi, "b", "2")
    assert seen == [
        ("VDI.set_other_config", world.vdi, {"a": "1"}),
        ("VDI.add_to_other_config", world.vdi, {"b": "2"}),
    ]
    assert await world.call("VDI.get_other_config", world.vdi) == {}


async def test_setting_a_reference_to_nothing_is_refused(world):
    for ref in (MISSING, world.vdi, "junk"):
        code, *_ = await refusal(world.call("pool.set_default_SR", world.pool, ref))
        assert code == "HANDLE_INVALID"
    await world.call("pool.set_default_SR", world.pool, NULL_REF)


async def test_map_cannot_grow_for_ever(world):
    big = "x" * (1 << 20)
    for number in range(3):
        await world.call("pool.add_to_other_config", world.pool, str(number), big)
    code, name, _ = await refusal(world.call("pool.add_to_other_config", world.pool, "4", big))
    assert (code, name) == ("INVALID_VALUE", "other_config")


# -- refusals before the work


@pytest.mark.parametrize(
    "method",
    [
        "VM.no_such",
        "NoSuch.get_all",
        "vm.get_all",
        "VM",
        "",
        ".",
        "VM.",
        ".get_all",
        "Async.VM.get_all",  # only work is asynchronous
        "Async.Async.task.create",
        "VM_",
        "blob.get_all",  # published, but not here
        "system.shutdown",
        "VM.__class__",
        "_" * 100_000,
        "\ud7ff\u0000",
    ],
)
async def test_unknown_methods(world, method):
    assert await refusal(world.call(method)) == ["MESSAGE_METHOD_UNKNOWN", method]


async def test_names_with_an_underscore_for_the_dot(world):
    assert await world.call("VM_get_all") == [world.vm]
    assert await world.call("host_metrics_get_all") == []
    assert await world.call("VM_guest_metrics_get_all_records") == {}


async def test_parameter_counts_leave_out_the_session(world):
    method = "VM.get_record"
    assert await refusal(world.api.call(method)) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", method, "1", "0"]
    assert await refusal(world.call(method)) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", method, "1", "0"]
    assert await refusal(world.call(method, world.vm, "x")) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", method, "1", "2"]
    login = "session.login_with_password"
    assert await refusal(world.api.call(login, "root")) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", login, "4", "1"]


async def test_sessions_are_asked_for(world):
    assert await refusal(world.api.call("VM.get_all", MISSING)) == ["SESSION_INVALID", MISSING]
    assert await refusal(world.api.call("VM.get_all", "")) == ["SESSION_INVALID", ""]
    assert await refusal(world.api.call("VM.get_all", 5)) == ["FIELD_TYPE_ERROR", "session_id"]
    assert await refusal(world.api.call("VM.get_all", world.vm)) == ["SESSION_INVALID", world.vm]


async def test_what_needs_no_session(world):
    assert await world.api.call("system.isAlive") is True
    methods = await world.api.call("system.listMethods")
    assert {"VM.get_all_records", "event.from", "session.login_with_password"} <= set(methods)


async def test_roles(world):
    reader = world.session("read-only")
    operator = world.session("vm-operator")
    assert await world.api.call("VM.get_all", reader) == [world.vm]
    code, method, text = await refusal(world.api.call("VM.set_name_label", reader, world.vm, "x"))
    assert (code, method) == ("RBAC_PERMISSION_DENIED", "vm.set_name_label")
    assert "pool-admin" in text
    await world.api.call("VM.add_tags", operator, world.vm, "blue")
    code, *_ = await refusal(world.api.call("pool.set_name_label", operator, world.pool, "x"))
    assert code == "RBAC_PERMISSION_DENIED"
    assert await world.call("pool.get_name_label", world.pool) == "p"


async def test_secrets_are_not_for_readers(world):
    secret = await world.call("secret.create", {"value": "hush", "other_config": {}})
    assert await world.call("secret.get_value", secret) == "hush"
    for role in ("read-only", "vm-admin"):
        session = world.session(role)
        for method, *params in (
            ("get_value", secret),
            ("get_record", secret),
            ("get_all_records",),
            ("get_all_where", 'field "value" = "hush"'),
            ("get_all_records_where", "true"),
        ):
            code, *_ = await refusal(world.api.call(f"secret.{method}", session, *params))
            assert code == "RBAC_PERMISSION_DENIED", method


async def test_failure_of_ours_tells_its_kind_and_no_detail(world, monkeypatch):
    async def broken(call, classes):
        raise RuntimeError("password is hunter2")

    monkeypatch.setitem(messages.HANDLERS, "event.register", broken)
    world.api.dispatcher._bound.clear()
    assert await refusal(world.call("event.register", ["vm"])) == ["INTERNAL_ERROR", "RuntimeError"]


# -- the list of what is there


def test_every_listed_method_can_be_found():
    for method in dispatch.implemented():
        class_name, _, name = method.partition(".")
        assert dispatch.bind(class_name, name) is not None


def test_every_class_that_can_be_listed_is_listed():
    listed = set(dispatch.implemented())
    for class_name in CLASSES:
        if "get_all_records" in datamodel.classes()[class_name].messages:
            assert f"{class_name}.get_all_records" in listed


def test_handlers_belong_to_classes_that_are_advertised():
    assert {method.partition(".")[0] for method in messages.HANDLERS} <= CLASSES


async def test_login_over_the_unix_socket_by_root_needs_no_password(world):
    _, ref = await world.api.invoke("session.login_with_password", ["root", ""], Caller(local_root=True))
    assert await world.api.call("session.get_is_local_superuser", ref, ref) is True
