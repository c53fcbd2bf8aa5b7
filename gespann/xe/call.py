"""One running command: its arguments, the pool as it sees it, and the client that waits for the answer."""

import html
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF, Record, XenApi
from gespann.xe.arguments import Arguments
from gespann.xe.failures import CommandFailure
from gespann.xe.printer import Lines, Printer
from gespann.xe.tables import Tables

EVENT_TIMEOUT_S = 30.0
SPINNER = "|/-\\"
_RESULT = re.compile(r"<value>(.*)</value>", re.DOTALL)


class Client(Lines, Protocol):
    """What commands may ask of the thin client; ``gespann.xe.channel.ClientChannel`` is the real one."""

    @property
    def gone(self) -> bool: ...

    async def prompt(self) -> str: ...

    async def load(self, path: str) -> bytes: ...

    async def http_get(self, path: str, url: str) -> bool: ...

    async def http_put(self, path: str, url: str) -> bool: ...

    async def http_connect(self, url: str) -> bool: ...


@dataclass
class Call:
    """``request`` is one XenAPI call in this command's session."""

    api: XenApi
    session: str
    arguments: Arguments
    printer: Printer
    client: Client
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.request)

    def __repr__(self) -> str:
        return f"Call({self.arguments!r})"

    async def request(self, method: str, *params: Any) -> Any:
        return await self.api.call(method, self.session, *params)

    async def ref_of(self, class_name: str, uuid: str) -> str:
        """XenApiError UUID_INVALID if there is none."""
        return str(await self.request(f"{class_name}.get_by_uuid", uuid))

    async def uuid_of(self, class_name: str, ref: str) -> str:
        return str(await self.request(f"{class_name}.get_uuid", ref))

    async def only_pool(self) -> str:
        """The pool's reference; there is exactly one."""
        return str((await self.request("pool.get_all"))[0])

    async def run_task(self, method: str, *params: Any) -> str:
        """``Async.<method>``, waited for. The result is the plain text inside the task's ``<value>``.

        The task is destroyed afterwards. XenApiError: what the task failed with, TASK_CANCELLED if it was cancelled.
        """
        task = str(await self.request(f"Async.{method}", *params))
        try:
            return await self.wait_for_task(task)
        finally:
            await self.request("task.destroy", task)

    async def wait_for_task(self, task: str) -> str:
        show = self._show_progress if "progress" in self.arguments else None
        record = await self._finished_task(task, show)
        match record["status"]:
            case "success":
                return task_result(str(record["result"]))
            case "failure" if record["error_info"]:
                raise XenApiError(record["error_info"][0], record["error_info"][1:])
            case "failure":
                raise XenApiError("INTERNAL_ERROR", ["the task failed without saying why"])
            case _:
                raise XenApiError("TASK_CANCELLED", [task])

    async def _finished_task(self, task: str, show: Callable[[Record], Awaitable[None]] | None) -> Record:
        token = ""
        while True:
            batch = await self.request("event.from", [f"task/{task}"], token, EVENT_TIMEOUT_S)
            token = batch["token"]
            for event in batch["events"]:
                if event["ref"] != task:
                    continue
                if event["operation"] == "del":
                    raise XenApiError("HANDLE_INVALID", ["task", task])
                if show is not None:
                    await show(event["snapshot"])
                if event["snapshot"]["status"] not in ("pending", "cancelling"):
                    return dict(event["snapshot"])

    async def _show_progress(self, task: Record) -> None:
        done = min(max(float(task["progress"]), 0.0), 1.0)
        percent = int(done * 100)
        line = f"\r {percent:3d}% {SPINNER[percent % 4]} {'#' * int(done * 70)}"
        if task["status"] not in ("pending", "cancelling"):
            line += "\n"
        if not self.printer.minimal:
            await self.client.print_error(line)

    async def default_sr(self) -> str | None:
        """The pool's default SR if it has one that exists."""
        sr = str(await self.request("pool.get_default_SR", await self.only_pool()))
        return sr if sr != NULL_REF and sr in await self.tables.all("SR") else None

    async def confirmed(self) -> bool:
        """Asks the user to type ``yes``; says so if they typed something else."""
        await self.client.print("Type 'yes' to continue")
        typed = await self.client.prompt()
        if typed.strip().lower() == "yes":
            return True
        await self.client.print(f"Aborted (you typed: '{typed}')")
        return False

    def must_be_forced(self) -> None:
        if not self.arguments.boolean("force"):
            raise CommandFailure(
                "This operation is dangerous and may cause data loss. This operation must be forced (use --force)."
            )


def task_result(text: str) -> str:
    """The plain text of a task's result: references and strings come as escaped XML, nothing at all for void."""
    match = _RESULT.fullmatch(text.strip())
    return html.unescape(match[1]) if match else text


Handler = Callable[[Call], Awaitable[None]]
