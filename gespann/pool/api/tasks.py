"""Tasks: work that a client can watch and ask to stop.

    pending ──finish──► success
       ├──fail──────► failure
       └──cancel asked, work stops──► cancelled

Every call has one. It becomes a record that clients see when it was asked for (``Async.``), when it reports progress
or when ``show`` is called; then ``ref`` is its ref. Finished ones are kept for a while, the newest ``FINISHED_KEPT``;
those of calls that somebody waited for go at once.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from gespann.pool.api.sessions import Session
from gespann.pool.api.values import datetime_text
from gespann.pool.pool import Pool
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

FINISHED_KEPT = 1000
ANY_TASK_ROLE = "pool-operator"  # others may touch their own only
#: smaller steps are not told: each is an event for every watcher
PROGRESS_STEP = 0.01


class Task:
    """``label``: shown as name_label. Made by ``Tasks``."""

    def __init__(self, tasks: "Tasks", label: str, session: str = "", owner: str = "") -> None:
        self._tasks = tasks
        self._cancel = asyncio.Event()
        self.label = label
        self.session = session
        self.owner = owner
        self.ref = ""  # of its record, if it is shown
        self.progress = 0.0
        self.cancellable = False
        self.finished = False
        self.error_code = ""
        #: made by a client, which may give it to one transfer over HTTP
        self.is_for_transfer = False

    # -- for the work

    def show(self) -> str:
        """Makes it visible to clients; its ref."""
        if not self.ref:
            self._tasks.show(self)
        return self.ref

    def set_progress(self, fraction: float) -> None:
        """0 to 1; never goes back."""
        fraction = min(1.0, max(self.progress, fraction))
        if self.finished or (fraction - self.progress < PROGRESS_STEP and fraction < 1.0):
            return
        self.progress = fraction
        self.show()
        self._tasks.change(self, progress=fraction)

    def allow_cancel(self) -> None:
        """From now on the work looks at ``check`` or ``cancel_asked`` often, so that it can be stopped."""
        self.cancellable = True
        if self.ref:
            self._tasks.change(self, allowed_operations=["cancel"])

    def forbid_cancel(self) -> None:
        """Past the point of no return."""
        self.cancellable = False
        if self.ref:
            self._tasks.change(self, allowed_operations=[])

    @property
    def cancel_asked(self) -> bool:
        return self._cancel.is_set()

    def check(self) -> None:
        """TASK_CANCELLED if somebody asked for it, and it is still allowed."""
        if self.cancel_asked and self.cancellable:
            raise XenApiError("TASK_CANCELLED", [self.ref or NULL_REF])

    async def wait_cancel_asked(self) -> None:
        await self._cancel.wait()

    # -- for the machinery

    def ask_cancel(self) -> None:
        self._cancel.set()

    def finish(self, result: str) -> None:
        """``result``: XML text of the value, "" for none."""
        self.end("success", result=result, progress=1.0)

    def fail(self, error: XenApiError) -> None:
        if error.code == "TASK_CANCELLED":
            self.end("cancelled", error_info=[error.code, *error.params])
        else:
            self.end("failure", error_info=[error.code, *error.params])

    def end(self, status: str, result: str = "", progress: float = 0.0, error_info: Sequence[str] = ()) -> None:
        if self.finished:
            return
        self.finished = True
        self.error_code = error_info[0] if error_info else ""
        self.progress = max(self.progress, progress)
        self._tasks.end(self, status, result, list(error_info))


class Tasks:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._running: dict[str, Task] = {}
        self._finished: deque[str] = deque()
        self._owners: dict[str, str] = {}  # task -> user, for as long as its record is there

    def begin(self, label: str, session: str = "", owner: str = "") -> Task:
        return Task(self, label, session, owner)

    def find(self, ref: str) -> Task | None:
        """A task that still runs."""
        return self._running.get(ref)

    def for_transfer(self, ref: str, session: Session, method: str) -> Task:
        """The task that a client made for a transfer, once. Work that runs already must not be ended by another's
        request: OPERATION_NOT_ALLOWED; nor may somebody else's task: RBAC_PERMISSION_DENIED."""
        self._pool.db.get("task", ref)
        self.assert_own(ref, session, method)
        task = self._running.get(ref)
        if task is None:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["The task has ended already"])
        if not task.is_for_transfer:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["The task belongs to work that is under way"])
        task.is_for_transfer = False
        return task

    def assert_own(self, ref: str, session: Session, method: str) -> None:
        """RBAC_PERMISSION_DENIED: it is another user's, and this one may not touch any."""
        owner = self._owners.get(ref)
        if owner is not None and owner != session.user and not session.may(ANY_TASK_ROLE):
            text = f"No permission in user session. (Roles with this permission: {ANY_TASK_ROLE}, pool-admin)"
            raise XenApiError("RBAC_PERMISSION_DENIED", [f"{method}/any", text])

    def show(self, task: Task, description: str = "") -> None:
        db = self._pool.db
        record = {
            "name_label": task.label,
            "name_description": description,
            "created": datetime_text(self._pool.clock.now()),
            "status": "pending",
            "resident_on": next(iter(db.all("host")), NULL_REF),
            "progress": task.progress,
            "type": "<none/>",
            "allowed_operations": ["cancel"] if task.cancellable else [],
        }
        with db.transaction() as tx:
            task.ref = tx.create("task", record)
        self._running[task.ref] = task
        self._owners[task.ref] = task.owner

    def change(self, task: Task, **fields: object) -> None:
        if self._pool.db.find("task", task.ref) is not None:
            with self._pool.db.transaction() as tx:
                tx.set("task", task.ref, **fields)

    def end(self, task: Task, status: str, result: str, error_info: list[str]) -> None:
        if not task.ref:
            return
        self._running.pop(task.ref, None)
        now = datetime_text(self._pool.clock.now())
        self.change(
            task,
            status=status,
            result=result,
            error_info=error_info,
            finished=now,
            progress=task.progress,
            allowed_operations=[],
            current_operations={},
        )
        self._finished.append(task.ref)
        self._drop_oldest()

    def note_finished(self, ref: str) -> None:
        """A task that a client made and finished itself."""
        self._finished.append(ref)
        self._drop_oldest()

    def forget(self, ref: str) -> None:
        """Takes the record away. What still runs goes on without one."""
        self._owners.pop(ref, None)
        task = self._running.pop(ref, None)
        if task is not None:
            task.finished = True
        with self._pool.db.transaction() as tx:
            tx.destroy("task", ref)

    def let_go(self, task: Task) -> None:
        """Of a call whose caller has the answer now. It was seen while it took long, and nobody will destroy it."""
        if task.ref and task.finished and self._pool.db.find("task", task.ref) is not None:
            self.forget(task.ref)

    def _drop_oldest(self) -> None:
        while len(self._finished) > FINISHED_KEPT:
            oldest = self._finished.popleft()
            self._owners.pop(oldest, None)
            with self._pool.db.transaction() as tx:
                tx.destroy("task", oldest)
