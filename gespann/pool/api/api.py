"""The API of one pool, without any wire: built once per process, or once per test.

api = Api(pool, accounts)
session = api.sessions.begin("root", "pool-admin").ref
await api.call("VM.get_all_records", session)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gespann.pool.api import http_audit
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.audit import AuditLog
from gespann.pool.api.caller import Caller
from gespann.pool.api.classes import auth, event, external_auth, message, role, secret, session, subject, task
from gespann.pool.api.directory import Directory, PamDirectory
from gespann.pool.api.dispatch import Dispatcher, least_roles
from gespann.pool.api.events import Events
from gespann.pool.api.permissions import ensure_roles
from gespann.pool.api.sessions import Sessions
from gespann.pool.api.subjects import Subjects
from gespann.pool.api.tasks import Tasks
from gespann.pool.pool import Pool
from gespann.seams.xenapi.datamodel import ROLES, Type

#: imported for the handlers that they register
HANDLER_MODULES = (auth, event, external_auth, http_audit, message, role, secret, session, subject, task)


class Api:
    """Also to be found by handlers as ``call.pool.services["api"]``."""

    def __init__(self, pool: Pool, accounts: Accounts, directory: Directory | None = None) -> None:
        self.pool = pool
        self.accounts = accounts
        self.audit = AuditLog(accounts.directory / "audit.log", pool.clock)
        self.subjects = Subjects(pool, directory or PamDirectory())
        self.sessions = Sessions(pool, accounts, self.subjects)
        self.tasks = Tasks(pool)
        self.events = Events(pool)
        self.dispatcher = Dispatcher(pool, self.sessions, self.tasks, self.audit)
        pool.services["api"] = self
        ensure_roles(pool.db, least_roles())

    async def call(self, method: str, *params: Any) -> Any:
        """For those inside this process. Plain Python values; XenApiError. Records are live: do not change them."""
        return await self.dispatcher.call(method, *params)

    async def invoke(self, method: str, params: Sequence[Any], caller: Caller) -> tuple[Type, Any]:
        """For the wire: the result with its type."""
        return await self.dispatcher.invoke(method, params, caller)

    def local_session(self, originator: str = "") -> str:
        """A session with every right, for root of this machine."""
        return self.sessions.begin("root", ROLES[-1], originator, is_local_superuser=True).ref

    async def close(self) -> None:
        await self.dispatcher.close()
        self.audit.close()


class CallerApi:
    """The API as one connection's command engine sees it: passwords are checked against guessing by its address, and
    always, even where the far end could have had a session without one."""

    def __init__(self, api: Api, caller: Caller) -> None:
        self._api = api
        self._caller = replace(caller, local_root=False)

    async def call(self, method: str, *params: Any) -> Any:
        _, value = await self._api.invoke(method, params, self._caller)
        return value

    async def local_session(self) -> str:
        """Only for a caller that was found to be root of this machine."""
        return self._api.local_session(self._caller.originator)
