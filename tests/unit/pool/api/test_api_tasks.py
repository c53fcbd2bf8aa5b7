"""Tasks as clients see them: asked for, watched, stopped, forgotten."""

import asyncio

import pytest

from gespann.pool.api import messages
from gespann.pool.api import tasks as tasks_module
from gespann.seams.xenapi.errors import XenApiError

MISSING = "OpaqueRef:00000000-0000-0000-0000-000000000000"


async def until(condition) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - nothing there tells when it changes
            await asyncio.sleep(0)


def status(world, task: str) -> str:
    return world.api.pool.db.get("task", task)["status"]


@pytest.fixture
def work(world, monkeypatch):
    """``message.destroy_many`` stands for any asynchronous work: it does what ``work.body`` says."""

    class Work:
        body = None

    async def handler(call, refs):
        return await Work.body(call)

    monkeypatch.setitem(messages.HANDLERS, "message.destroy_many", handler)
    world.api.dispatcher._bound.clear()
    return Work


async def test_asynchronous_call_gives_a_task_at_once_and_its_result_later(world):
    task = await world.call("Async.secret.create", {"value": "hush"})
    assert status(world, task) == "pending"
    await until(lambda: status(world, task) == "success")
    record = await world.call("task.get_record", task)
    secret = next(iter(world.api.pool.db.all("secret")))
    assert record["result"] == f"<value>{secret}</value>"
    assert record["progress"] == 1.0
    assert record["name_label"] == "Async.secret.create"
    assert record["finished"] >= record["created"]
    assert record["allowed_operations"] == []


async def test_void_has_an_empty_result(world):
    secret = await world.call("secret.create", {"value": "hush"})
    task = await world.call("Async.secret.destroy", secret)
    await until(lambda: status(world, task) == "success")
    assert world.api.pool.db.get("task", task)["result"] == ""


async def test_failure_is_told_by_the_task(world, work):
    async def fail(call):
        raise XenApiError("SR_FULL", ["10", "5"])

    work.body = fail
    task = await world.call("Async.message.destroy_many", [])
    await until(lambda: status(world, task) == "failure")
    assert world.api.pool.db.get("task", task)["error_info"] == ["SR_FULL", "10", "5"]


async def test_failure_of_ours_hides_its_detail(world, work):
    async def fail(call):
        raise ValueError("secret detail")

    work.body = fail
    task = await world.call("Async.message.destroy_many", [])
    await until(lambda: status(world, task) == "failure")
    assert world.api.pool.db.get("task", task)["error_info"] == ["INTERNAL_ERROR", "ValueError"]


async def test_wrong_parameters_are_refused_before_there_is_a_task(world):
    with pytest.raises(XenApiError, match="HANDLE_INVALID"):
        await world.call("Async.secret.destroy", MISSING)
    assert not world.api.pool.db.all("task")


async def test_synchronous_call_shows_no_task_unless_it_reports(world, work):
    async def quiet(call):
        pass

    seen = []

    async def report(call):
        call.task.set_progress(0.5)
        seen.extend(record["status"] for record in world.api.pool.db.all("task").values())

    async def report_and_fail(call):
        await report(call)
        raise XenApiError("VM_MISSING_PV_DRIVERS", ["x"])

    work.body = quiet
    await world.call("message.destroy_many", [])
    assert not world.api.pool.db.all("task")
    work.body = report
    await world.call("message.destroy_many", [])
    assert seen == ["pending"]
    assert not world.api.pool.db.all("task"), "whoever called has the answer"
    work.body = report_and_fail
    with pytest.raises(XenApiError):
        await world.call("message.destroy_many", [])
    assert seen == ["pending", "pending"]
    assert not world.api.pool.db.all("task")


async def test_progress_rises_and_never_falls(world, work):
    seen = []

    async def report(call):
        for fraction in (0.1, 0.5, 0.3, 2.0):
            call.task.set_progress(fraction)
            seen.append(world.api.pool.db.get("task", call.task.ref)["progress"])

    work.body = report
    task = await world.call("Async.message.destroy_many", [])
    await until(lambda: status(world, task) == "success")
    assert seen == [0.1, 0.5, 0.5, 1.0]


async def test_cancel_stops_work_that_looks(world, work):
    async def loop(call):
        call.task.allow_cancel()
        await call.task.wait_cancel_asked()
        call.task.check()
        raise AssertionError("not reached")

    work.body = loop
    task = await world.call("Async.message.destroy_many", [])
    await until(lambda: world.api.pool.db.get("task", task)["allowed_operations"] == ["cancel"])
    await world.call("task.cancel", task)
    assert status(world, task) == "cancelling"
    operations = world.api.pool.db.get("task", task)["current_operations"]
    assert list(operations.values()) == ["cancel"]
    assert world.root not in operations  # a session's ref is as good as a password
    await until(lambda: status(world, task) == "cancelled")
    assert world.api.pool.db.get("task", task)["error_info"] == ["TASK_CANCELLED", task]


async def test_cancel_is_refused_past_the_point_of_no_return(world, work):
    go = asyncio.Event()

    async def loop(call):
        call.task.allow_cancel()
        call.task.forbid_cancel()
        await go.wait()
        call.task.check()

    work.body = loop
    task = await world.call("Async.message.destroy_many", [])
    await asyncio.sleep(0)
    with pytest.raises(XenApiError, match="OPERATION_NOT_ALLOWED"):
        await world.call("task.cancel", task)
    go.set()
    await until(lambda: status(world, task) == "success")
    await world.call("task.cancel", task)  # too late: no error


async def test_destroyed_task_lets_the_work_go_on(world, work):
    go, done = asyncio.Event(), []

    async def loop(call):
        await go.wait()
        call.task.set_progress(0.5)
        done.append(1)

    work.body = loop
    task = await world.call("Async.message.destroy_many", [])
    await world.call("task.destroy", task)
    go.set()
    await until(lambda: done)
    assert not world.api.pool.db.all("task")
    with pytest.raises(XenApiError, match="HANDLE_INVALID"):
        await world.call("task.destroy", task)


async def test_only_the_newest_finished_ones_are_kept(world, monkeypatch):
    monkeypatch.setattr(tasks_module, "FINISHED_KEPT", 3)
    made = []
    for _ in range(5):
        made.append(await world.call("Async.secret.create", {"value": "hush"}))
        await until(lambda: made[-1] in world.api.pool.db.all("task") and status(world, made[-1]) == "success")
    assert list(world.api.pool.db.all("task")) == made[2:]


async def test_client_makes_and_finishes_its_own(world):
    task = await world.call("task.create", "backup", "by a script")
    await world.call("task.set_progress", task, 0.5)
    await world.call("task.add_to_other_config", task, "a", "1")
    with pytest.raises(XenApiError, match="MAP_DUPLICATE_KEY"):
        await world.call("task.add_to_other_config", task, "a", "1")
    await world.call("task.set_status", task, "success")
    record = await world.call("task.get_record", task)
    assert (record["status"], record["name_description"]) == ("success", "by a script")
    with pytest.raises(XenApiError, match="OPERATION_NOT_ALLOWED"):
        await world.call("task.set_status", task, "pending")
    with pytest.raises(XenApiError, match="INVALID_VALUE"):
        await world.call("task.set_progress", task, 1.5)


async def test_readers_touch_their_own_tasks_only(world):
    task = await world.call("task.create", "root's", "")
    reader = world.session("read-only")
    for method, *params in (("cancel",), ("destroy",), ("set_progress", 0.5), ("set_status", "success")):
        with pytest.raises(XenApiError, match="RBAC_PERMISSION_DENIED"):
            await world.api.call(f"task.{method}", reader, task, *params)
    await world.call("task.set_status", task, "success")
    with pytest.raises(XenApiError, match="RBAC_PERMISSION_DENIED"):
        await world.api.call("task.destroy", reader, task)  # finished, but not his
    own = await world.api.call("task.create", reader, "mine", "")
    await world.api.call("task.destroy", reader, own)
    await world.api.call("task.destroy", world.session("pool-operator", "other"), task)
