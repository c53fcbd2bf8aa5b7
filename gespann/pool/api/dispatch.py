"""From a method's name and raw parameters to its handler, and from whatever goes wrong to one of the API's errors."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gespann.pool.api import audit, generic, wire_xml
from gespann.pool.api.advertised import CLASSES
from gespann.pool.api.audit import AuditLog
from gespann.pool.api.caller import Caller
from gespann.pool.api.http_handlers import ROUTES
from gespann.pool.api.messages import HANDLERS, Call, Handler
from gespann.pool.api.permissions import denied, permission_name
from gespann.pool.api.record_cache import RecordCache
from gespann.pool.api.sessions import Session, Sessions
from gespann.pool.api.tasks import Tasks
from gespann.pool.api.unforeseen import told_of
from gespann.pool.api.values import Decoder, decoder, wrong_type
from gespann.pool.pool import Pool
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Message, Type
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

STRING_SET = Type("set", inner=Type("string"))
#: handlers whose answer has a shape that the published type does not tell
ODD_RESULTS = {"event.from": Type("events"), "event.next": Type("events")}
#: parameters that need not be refs of live records: the handler answers for them
UNCHECKED_REFS = frozenset({"message.destroy_many"})


@dataclass(frozen=True)
class Bound:
    """A message with what it takes to answer it."""

    method: str  # Class.message
    message: Message
    handler: Handler
    decoders: tuple[tuple[str, Type, Decoder], ...]
    required: int
    result: Type
    audited: bool


def bind(class_name: str, name: str) -> Bound | None:
    """None: not implemented, or not published."""
    class_ = datamodel.classes().get(class_name) if class_name in CLASSES else None
    message = class_.messages.get(name) if class_ else None
    if message is None:
        return None
    method = f"{class_name}.{name}"
    handler = HANDLERS.get(method) or generic.handler_of(message)
    if handler is None:
        return None
    return Bound(
        method=method,
        message=message,
        handler=handler,
        decoders=tuple((p.name, p.type, decoder(p.type)) for p in message.params),
        required=sum(not p.optional for p in message.params),
        result=ODD_RESULTS.get(method, message.result),
        audited=audit.is_told(method),
    )


def implemented() -> list[str]:
    """All methods that answer, sorted."""
    names = (f"{c}.{m}" for c in CLASSES for m in datamodel.classes()[c].messages if bind(c, m))
    return sorted(names)


def least_roles() -> list[tuple[str, str]]:
    """The permissions that there are, each with the least role that has it."""
    found = []
    for method in implemented():
        class_name, _, name = method.partition(".")
        found.append((permission_name(method), datamodel.classes()[class_name].messages[name].least_role))
    return found + sorted((route.permission, route.role) for route in ROUTES)


class Dispatcher:
    """``call`` for those inside this process; ``invoke`` for the wire."""

    def __init__(self, pool: Pool, sessions: Sessions, tasks: Tasks, audit_log: AuditLog) -> None:
        self.pool = pool
        self.sessions = sessions
        self.tasks = tasks
        self.audit = audit_log
        self.records = RecordCache(pool.db.tables)
        self._bound: dict[str, Bound] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def call(self, method: str, *params: Any) -> Any:
        """The result as plain Python values. XenApiError: refused. Records are the live ones: do not change them."""
        _, value = await self.invoke(method, params, Caller())
        return value

    async def invoke(self, method: str, params: Sequence[Any], caller: Caller) -> tuple[Type, Any]:
        """The result and its type. XenApiError whatever goes wrong, except the end of this process."""
        if method.startswith("system."):
            return self._system(method)
        bound, is_async = self.find(method)
        session = self._check_call(bound, params)
        task = self.tasks.begin(
            f"Async.{bound.method}" if is_async else bound.method,
            session.ref if session else "",
            session.user if session else "",
        )
        call = Call(self.pool, session.ref if session else "", task, bound.method, caller)
        values = self._decode(call, bound, params[1:] if bound.message.needs_session else params)
        who = session.who() if session else []
        if not is_async:
            try:
                return bound.result, await self._run_told(call, bound, values, who)
            finally:
                self.tasks.let_go(task)
        task.show()
        background = asyncio.create_task(self._run_async(call, bound, values, who))
        self._background.add(background)
        background.add_done_callback(self._background.discard)
        return Type("ref", "task"), task.ref

    def find(self, method: str) -> tuple[Bound, bool]:
        """MESSAGE_METHOD_UNKNOWN if there is none, or no asynchronous one."""
        known = self._bound.get(method)
        if known is not None:
            return known, method.startswith("Async.")
        plain = method.removeprefix("Async.")
        is_async = plain != method
        for class_name, name in _readings(plain):
            bound = bind(class_name, name)
            if bound is not None and (bound.message.is_async or not is_async):
                self._bound[method] = bound
                return bound, is_async
        raise XenApiError("MESSAGE_METHOD_UNKNOWN", [method])

    async def close(self) -> None:
        """Stops what runs in the background; the journal finishes or undoes it at the next start."""
        for background in list(self._background):
            background.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _system(self, method: str) -> tuple[Type, Any]:
        if method == "system.listMethods":
            return STRING_SET, implemented()
        if method == "system.isAlive":
            return Type("bool"), True
        raise XenApiError("MESSAGE_METHOD_UNKNOWN", [method])

    def _check_call(self, bound: Bound, params: Sequence[Any]) -> Session | None:
        given = len(params) - bound.message.needs_session
        if not bound.required <= given <= len(bound.decoders):
            counts = [str(len(bound.decoders)), str(max(given, 0))]
            raise XenApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", [bound.method, *counts])
        if not bound.message.needs_session:
            return None
        if not isinstance(params[0], str):
            raise wrong_type("session_id")
        session = self.sessions.use(params[0])
        if not session.may(bound.message.least_role):
            self.audit.write(session.who(), False, "RBAC_PERMISSION_DENIED", "API", bound.method)
            raise denied(bound.method, bound.message.least_role)
        return session

    def _decode(self, call: Call, bound: Bound, params: Sequence[Any]) -> list[Any]:
        values: list[Any] = []
        for (name, type_, decode), raw in zip(bound.decoders, params, strict=False):
            value = decode(name, raw)
            if bound.method not in UNCHECKED_REFS:
                generic.check_refs(call, type_, value)
            values.append(value)
        own = bound.decoders[0][1] if bound.decoders else None
        if own is not None and own.kind == "ref" and own.name == bound.message.class_name and values[0] == NULL_REF:
            raise XenApiError("HANDLE_INVALID", [own.name, NULL_REF])  # it would be about no object at all
        for param in bound.message.params[len(values) :]:
            values.append(param.default)
        return values

    async def _run_told(self, call: Call, bound: Bound, values: list[Any], who: list[str]) -> Any:
        """``_run``, with a line in the audit log. What the parameters name is looked up before the call: it may be
        gone after it."""
        if not bound.audited:
            return await self._run(call, bound, values)
        args = audit.arguments(self.pool.db, bound.method, bound.message.params, values)
        error = ""
        try:
            value = await self._run(call, bound, values)
            if not who:  # a log-in: the session is what it has made
                who = self.sessions.use(value).who()
            return value
        except XenApiError as refused:
            error = refused.code
            raise
        except asyncio.CancelledError:
            error = "CANCELLED"
            raise
        finally:
            allowed = bool(who) or not error
            self.audit.write(who or ["", "", ""], allowed, error, "API", bound.method, args)

    async def _run(self, call: Call, bound: Bound, values: list[Any]) -> Any:
        try:
            value = await bound.handler(call, *values)
        except XenApiError as error:
            call.task.fail(error)
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s failed", bound.method)
            told = told_of(error)
            call.task.fail(told)
            raise told from error
        shown = call.task.ref and bound.result.kind != "void"
        call.task.finish(wire_xml.encode(bound.result, value, self.records) if shown else "")
        return value

    async def _run_async(self, call: Call, bound: Bound, values: list[Any], who: list[str]) -> None:
        try:
            await self._run_told(call, bound, values, who)
        except XenApiError:
            pass  # the task tells it
        except asyncio.CancelledError:
            call.task.fail(XenApiError("INTERNAL_ERROR", ["The coordinator stopped before the task ended"]))


def _readings(method: str) -> list[tuple[str, str]]:
    """``Class.message``, or ``Class_message`` where either word may hold underscores itself."""
    if "." in method:
        class_name, _, name = method.partition(".")
        return [(class_name, name)]
    cuts = [at for at, char in enumerate(method[:64]) if char == "_"]
    return [(method[:at], method[at + 1 :]) for at in cuts if method[:at] in CLASSES]
