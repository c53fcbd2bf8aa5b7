"""The registry of what is implemented: one handler for each message that is not generic.

Handlers register when their module is imported; ``gespann.pool.api.api`` and ``gespann.pool.classes`` import theirs.

    @implements("VM.start")
    async def start(call: Call, vm: str, start_paused: bool, force: bool) -> None: ...

The dispatcher checks session, role and parameter count, decodes each parameter by its declared type, and calls the
handler with plain Python values. A message without handler answers MESSAGE_METHOD_UNKNOWN, unless it is generic (a
getter, a setter of a RW field, get_record, get_all, ...), which the dispatcher answers from the datamodel itself.

    @on_set("VDI.sm_config")     called instead of the plain write by every setter, adder and remover of that field
    async def set_sm_config(call: Call, vdi: str, value: dict[str, str]) -> None: ...
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gespann.pool.api.caller import Caller
from gespann.seams.xenapi import datamodel

if TYPE_CHECKING:
    from gespann.pool.api.tasks import Task
    from gespann.pool.pool import Pool

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Call:
    """Who asks, and for what: passed to every handler."""

    pool: "Pool"
    session: str  # ref of the session; "" for calls that need none
    task: "Task"  # every call has one; shown to clients only if Async, or when it reports progress
    method: str
    caller: Caller = field(default_factory=Caller)  # the connection it came by


HANDLERS: dict[str, Handler] = {}
SETTERS: dict[str, Handler] = {}


def implements(method: str) -> Callable[[Handler], Handler]:
    class_name, name = method.split(".")
    if name not in datamodel.classes()[class_name].messages:
        raise ValueError(f"the XenAPI has no message {method}")

    def register(handler: Handler) -> Handler:
        if method in HANDLERS:
            raise ValueError(f"{method} has a handler already")
        HANDLERS[method] = handler
        return handler

    return register


def on_set(field: str) -> Callable[[Handler], Handler]:
    class_name, name = field.split(".")
    if name not in datamodel.classes()[class_name].fields:
        raise ValueError(f"the XenAPI has no field {field}")

    def register(handler: Handler) -> Handler:
        if field in SETTERS:
            raise ValueError(f"{field} has a setter already")
        SETTERS[field] = handler
        return handler

    return register
