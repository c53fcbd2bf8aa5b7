"""Alerts: left, found and taken away."""

import pytest

from gespann.pool.model import messages
from gespann.seams.xenapi.errors import XenApiError

EPOCH = "19700101T00:00:00Z"


async def leave(world, name: str = "VM_STARTED", priority: int = 3, body: str = "b") -> str:
    uuid = await world.call("VM.get_uuid", world.vm)
    return await world.call("message.create", name, priority, "VM", uuid, body)


async def refusal(work) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await work
    return [caught.value.code, *caught.value.params]


async def test_what_is_left_is_found_by_every_way(world):
    ref = await leave(world, body="disk is full")
    record = await world.call("message.get_record", ref)
    assert (record["name"], record["priority"], record["cls"], record["body"]) == (
        "VM_STARTED",
        3,
        "VM",
        "disk is full",
    )
    uuid = await world.call("VM.get_uuid", world.vm)
    assert await world.call("message.get_by_uuid", record["uuid"]) == ref
    assert await world.call("message.get_all") == [ref]
    for found in (
        await world.call("message.get_all_records"),
        await world.call("message.get_all_records_where", 'field "name" = "VM_STARTED"'),
        await world.call("message.get", "VM", uuid, EPOCH),
        await world.call("message.get_since", EPOCH),
    ):
        assert found == {ref: record}
    assert await world.call("message.get", "Host", uuid, EPOCH) == {}
    assert await world.call("message.get_since", "29990101T00:00:00Z") == {}


async def test_destroyed_ones_are_gone(world):
    first, second, third = [await leave(world) for _ in range(3)]
    await world.call("message.destroy", first)
    await world.call("message.destroy_many", [second, first])
    assert await world.call("message.get_all") == [third]
    assert (await refusal(world.call("message.destroy", first)))[0] == "HANDLE_INVALID"


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, []),
        ({"priority": "1"}, ["B"]),
        ({"name": "b"}, ["A"]),
        ({"cls": "host"}, ["A", "B"]),
        ({"before": EPOCH}, ["A", "B"]),
        ({"after": EPOCH, "priority": "3"}, ["A"]),
    ],
)
async def test_many_are_taken_away_by_what_they_are(world, filters, left):
    await leave(world, "A", 1)
    await leave(world, "B", 3)
    await world.call("message.destroy_all", filters)
    assert [record["name"] for record in (await world.call("message.get_all_records")).values()] == left


async def test_filters_that_are_none(world):
    await leave(world)
    for filters in ({"colour": "red"}, {"priority": "high"}, {"before": "yesterday"}):
        assert (await refusal(world.call("message.destroy_all", filters)))[0] in ("INVALID_VALUE", "FIELD_TYPE_ERROR")
    assert len(await world.call("message.get_all")) == 1


async def test_alert_is_about_something_that_is_there(world):
    assert (await refusal(world.call("message.create", "n", 1, "VM", "no-such-uuid", "")))[0] == "UUID_INVALID"
    uuid = await world.call("VM.get_uuid", world.vm)
    assert (await refusal(world.call("message.create", "", 1, "VM", uuid, "")))[0] == "INVALID_VALUE"
    assert (await refusal(world.call("message.create", "n", 1, "Toaster", uuid, "")))[0] == "INVALID_VALUE"


async def test_only_the_newest_are_kept(world, monkeypatch):
    monkeypatch.setattr(messages, "KEPT", 3)
    refs = [await leave(world) for _ in range(5)]
    assert await world.call("message.get_all") == refs[2:]


async def test_watchers_are_told(world):
    token = (await world.call("event.from", ["message"], "", 0.0))["token"]
    ref = await leave(world)
    (event,) = (await world.call("event.from", ["message"], token, 0.0))["events"]
    assert (event["class"], event["operation"], event["ref"]) == ("message", "add", ref)
