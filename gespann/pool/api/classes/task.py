"""XenAPI class task. Clients may make tasks themselves, for work that is theirs; those they also finish themselves."""

from typing import Any

from gespann.pool.api.generic import check_size
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.pool.api.values import datetime_text
from gespann.pool.model.database import new_ref
from gespann.seams.xenapi.errors import XenApiError

FINAL = frozenset({"success", "failure", "cancelled"})


def _check_owner(call: Call, ref: str) -> None:
    api = api_of(call)
    api.tasks.assert_own(ref, api.sessions.use(call.session), call.method)


def _set(call: Call, ref: str, **fields: Any) -> None:
    call.pool.db.get("task", ref)
    _check_owner(call, ref)
    with call.pool.db.transaction() as tx:
        tx.set("task", ref, **fields)


@implements("task.create")
async def create(call: Call, label: str, description: str) -> str:
    api = api_of(call)
    task = api.tasks.begin(label, call.session, api.sessions.use(call.session).user)
    task.is_for_transfer = True
    api.tasks.show(task, description)
    return task.ref


@implements("task.destroy")
async def destroy(call: Call, self: str) -> None:
    """A running one goes on, unseen."""
    call.pool.db.get("task", self)
    _check_owner(call, self)
    api_of(call).tasks.forget(self)


@implements("task.cancel")
async def cancel(call: Call, task: str) -> None:
    record = call.pool.db.get("task", task)
    _check_owner(call, task)
    running = api_of(call).tasks.find(task)
    if running is None or record["status"] in FINAL:
        return  # too late to matter
    if not running.cancellable:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["This task cannot be cancelled"])
    # the key is shown to everybody: never the session's ref, which is as good as a password
    operations = {**record["current_operations"], new_ref(): "cancel"}
    with call.pool.db.transaction() as tx:
        tx.set("task", task, status="cancelling", current_operations=operations)
    running.ask_cancel()


@implements("task.set_status")
async def set_status(call: Call, self: str, value: str) -> None:
    record = call.pool.db.get("task", self)
    if record["status"] in FINAL:
        raise XenApiError("OPERATION_NOT_ALLOWED", [f"The task has ended ({record['status']})"])
    if value in FINAL:
        _set(call, self, status=value, finished=datetime_text(call.pool.clock.now()), allowed_operations=[])
        api_of(call).tasks.note_finished(self)
    else:
        _set(call, self, status=value)


@implements("task.set_progress")
async def set_progress(call: Call, self: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise XenApiError("INVALID_VALUE", ["progress", str(value)])
    _set(call, self, progress=value)


@implements("task.set_result")
async def set_result(call: Call, self: str, value: str) -> None:
    _set(call, self, result=value)


@implements("task.set_error_info")
async def set_error_info(call: Call, self: str, value: list[str]) -> None:
    _set(call, self, error_info=value)


@implements("task.set_other_config")
async def set_other_config(call: Call, self: str, value: dict[str, str]) -> None:
    check_size("other_config", value)
    _set(call, self, other_config=value)


@implements("task.add_to_other_config")
async def add_to_other_config(call: Call, self: str, key: str, value: str) -> None:
    record = call.pool.db.get("task", self)
    if key in record["other_config"]:
        raise XenApiError("MAP_DUPLICATE_KEY", ["task", "other_config", record["uuid"], key])
    check_size("other_config", {**record["other_config"], key: value})
    _set(call, self, other_config={**record["other_config"], key: value})


@implements("task.remove_from_other_config")
async def remove_from_other_config(call: Call, self: str, key: str) -> None:
    left = {k: v for k, v in call.pool.db.get("task", self)["other_config"].items() if k != key}
    _set(call, self, other_config=left)
