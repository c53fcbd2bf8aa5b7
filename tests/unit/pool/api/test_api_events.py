"""Events: who waits is woken, sees each change once, and is told when he has missed some."""

import asyncio

import pytest

from gespann.pool.api.events import BATCH_S, parse_token, token_text
from gespann.pool.model import history
from gespann.seams.xenapi.errors import XenApiError


async def ask(world, classes, token, timeout=5.0):
    return await world.call("event.from", classes, token, timeout)


async def now(world, *classes) -> str:
    return (await ask(world, list(classes) or ["*"], ""))["token"]


def seen(batch) -> list[tuple[str, str, str]]:
    return [(event["class"], event["operation"], event["ref"]) for event in batch["events"]]


async def refusal(call) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await call
    return [caught.value.code, *caught.value.params]


async def test_empty_token_gives_everything(world):
    batch = await ask(world, ["vm", "VBD"], "")
    assert {(e["class"], e["operation"], e["ref"]) for e in batch["events"]} == {
        ("vm", "add", world.vm),
        ("vbd", "add", world.vbd),
    }
    (event,) = [e for e in batch["events"] if e["class"] == "vm"]
    assert event["snapshot"]["name_label"] == "web1"
    assert event["timestamp"] == "0.0"
    assert batch["valid_ref_counts"]["vm"] == 1
    assert batch["valid_ref_counts"]["host"] == 2
    assert "session" not in batch["valid_ref_counts"]


async def test_nothing_new_waits_for_the_time_out(world):
    token = await now(world)
    batch = await ask(world, ["*"], token, 0.02)
    assert batch["events"] == []
    assert (await ask(world, ["*"], batch["token"], 0))["events"] == []
    assert (await ask(world, ["*"], batch["token"], -5))["events"] == []


async def test_change_wakes_who_waits_for_it(world):
    waiter = asyncio.ensure_future(ask(world, ["vm"], await now(world)))
    await asyncio.sleep(0)
    await world.call("VM.set_name_label", world.vm, "web2")
    batch = await waiter
    assert seen(batch) == [("vm", "mod", world.vm)]
    assert batch["events"][0]["snapshot"]["name_label"] == "web2"


async def test_change_of_another_class_does_not_wake(world):
    token = await now(world)
    waiter = asyncio.ensure_future(ask(world, ["sr"], token, 0.3))
    await asyncio.sleep(0)
    await world.call("VM.set_name_label", world.vm, "web2")
    assert (await waiter)["events"] == []


async def test_one_object_is_watched(world):
    other = next(r for r in world.api.pool.db.all("host") if r != world.host)
    token = await now(world)
    await world.call("host.set_name_label", other, "x")
    assert (await ask(world, [f"host/{world.host}"], token, 0))["events"] == []
    await world.call("host.set_name_label", world.host, "x")
    assert seen(await ask(world, [f"HOST/{world.host}"], token, 0)) == [("host", "mod", world.host)]


async def test_several_changes_of_one_object_are_one_event(world):
    token = await now(world)
    for number in range(5):
        await world.call("VM.set_name_label", world.vm, str(number))
    batch = await ask(world, ["vm"], token)
    assert len(batch["events"]) == 1
    assert batch["events"][0]["snapshot"]["name_label"] == "4"


async def test_burst_is_one_answer(world):
    token = await now(world)
    waiter = asyncio.ensure_future(ask(world, ["host"], token))
    for ref in list(world.api.pool.db.all("host")):
        await world.call("host.set_name_label", ref, "renamed")
        await asyncio.sleep(0)
    assert len((await waiter)["events"]) == 2


async def test_deleted_has_no_snapshot_and_what_came_and_went_is_not_seen(world):
    secret_token = await now(world)
    own = await world.call("task.create", "short", "")
    token = await now(world)
    await world.call("task.destroy", own)
    batch = await ask(world, ["task"], token)
    assert seen(batch) == [("task", "del", own)]
    assert "snapshot" not in batch["events"][0]
    assert (await ask(world, ["task"], secret_token, 0))["events"] == []


async def test_classes_without_events_tell_nothing(world):
    token = await now(world)
    await world.call("secret.create", {"value": "hush"})
    world.session("read-only")
    assert (await ask(world, ["*", "secret", "session"], token, 0))["events"] == []


async def test_watchers_of_tasks_are_not_kept_for_the_batch(world, monkeypatch):
    slept = []
    clock = world.api.pool.clock
    real = clock.sleep

    async def sleep(delay_s):
        slept.append(delay_s)
        await real(0)

    token = await now(world)
    monkeypatch.setattr(clock, "sleep", sleep)
    await world.call("task.create", "x", "")
    await ask(world, ["task"], token)
    assert BATCH_S not in slept
    await ask(world, ["task", "vm"], token)
    assert BATCH_S in slept


async def test_inject_gives_a_token_from_before_its_event(world):
    token = await world.call("event.inject", "pool", world.pool)
    batch = await ask(world, ["pool"], token)
    assert seen(batch) == [("pool", "mod", world.pool)]
    missing = world.vm
    assert (await refusal(world.call("event.inject", "pool", missing)))[0] == "HANDLE_INVALID"
    assert (await refusal(world.call("event.inject", "nonsense", missing)))[0] == "EVENT_SUBSCRIPTION_PARSE_FAILURE"


@pytest.mark.parametrize("token", ["x", "1", "1,", ",1", "1,2,3", "-1,0", "1.5,2", "1" * 30 + ",1", " 1,1"])
async def test_bad_tokens(world, token):
    assert await refusal(ask(world, ["*"], token)) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]


@pytest.mark.parametrize("word", ["nonsense", "", "vm/", "/x", "*/x"])
async def test_bad_subscriptions(world, word):
    assert await refusal(ask(world, [word], "")) == ["EVENT_SUBSCRIPTION_PARSE_FAILURE", word]


async def test_classes_that_this_pool_does_not_have_may_be_watched(world):
    assert (await ask(world, ["bond", "PGPU"], ""))["events"] == []


async def test_tokens_of_another_run_are_lost(world):
    future = token_text(world.api.pool.db.generation + 1)
    assert await refusal(ask(world, ["*"], future)) == ["EVENTS_LOST"]


async def test_tokens_from_before_forgotten_deletions_are_lost(world, monkeypatch):
    monkeypatch.setattr(history, "DELETIONS_KEPT", 1)
    token = await now(world)
    for _ in range(3):
        await world.call("task.destroy", await world.call("task.create", "x", ""))
    assert await refusal(ask(world, ["vm"], token)) == ["EVENTS_LOST"]


def test_token_text():
    assert token_text(7) == "00000000000000000007,00000000000000000007"
    assert parse_token(token_text(7)) == 7


async def test_a_hundred_waiters_are_all_woken(world):
    token = await now(world)
    waiters = [asyncio.ensure_future(ask(world, ["vm"], token)) for _ in range(100)]
    await asyncio.sleep(0)
    await world.call("VM.set_name_label", world.vm, "x")
    for batch in await asyncio.gather(*waiters):
        assert seen(batch) == [("vm", "mod", world.vm)]


async def test_older_way_of_register_and_next(world):
    assert await refusal(world.call("event.next")) == ["SESSION_NOT_REGISTERED", world.root]
    await world.call("event.register", ["VM"])
    await world.call("host.set_name_label", world.host, "x")
    await world.call("VM.set_name_label", world.vm, "y")
    events = await world.call("event.next")
    assert [(e["class"], e["operation"], e["ref"]) for e in events] == [("vm", "mod", world.vm)]
    waiter = asyncio.ensure_future(world.call("event.next"))
    await asyncio.sleep(0.01)
    assert not waiter.done()
    await world.call("VM.set_name_label", world.vm, "z")
    assert len(await waiter) == 1
    await world.call("event.unregister", ["vm"])
    assert await refusal(world.call("event.next")) == ["SESSION_NOT_REGISTERED", world.root]
