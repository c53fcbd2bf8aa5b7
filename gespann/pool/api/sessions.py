"""Sessions: who may ask for what, and for how long. Kept in memory: a restart of the coordinator ends them."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from gespann.pool.api.accounts import ROOT, Accounts
from gespann.pool.api.audit import track_id
from gespann.pool.api.caller import Caller
from gespann.pool.api.permissions import permission_names
from gespann.pool.api.subjects import Admitted, Subjects
from gespann.pool.api.values import datetime_text
from gespann.pool.pool import Pool
from gespann.seams.xenapi.datamodel import NULL_REF, ROLES
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

IDLE_LIMIT_S = 24 * 3600.0
#: of one user from one originator; the longest unused goes first
SESSIONS_LIMIT = 500
#: last_active in the record follows at most this often
RECORD_EVERY_S = 60.0
#: wrong passwords from one address: each makes the next attempt wait longer
DELAY_FIRST_S, DELAY_MOST_S = 0.25, 8.0
FAILURES_FORGOTTEN_S = 600.0
#: attempts of one address that have queued up for longer are refused at once
QUEUE_MOST_S = 60.0
ADDRESSES_LIMIT = 10_000


@dataclass
class Session:
    ref: str
    user: str
    role: str
    originator: str
    is_local_superuser: bool
    last_used_s: float
    recorded_s: float
    subscriptions: set[str] | None = None  # event.register
    position: int = 0  # generation up to which event.next has told
    admitted: Admitted | None = None  # by a directory; None: an account of the pool's own
    services: dict[str, Any] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # wakes those who wait for events with it

    def who(self) -> list[str]:
        """For the audit log: track id, subject identifier, user name."""
        identifier = self.admitted.identifier if self.admitted else "LOCAL_SUPERUSER"
        return [track_id(self.ref), identifier if self.admitted or self.is_local_superuser else "", self.user]

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass
class _Failures:
    count: int
    not_before_s: float
    last_s: float


class Sessions:
    def __init__(self, pool: Pool, accounts: Accounts, subjects: Subjects) -> None:
        self._pool = pool
        self.accounts = accounts
        self._subjects = subjects
        self._open: dict[str, Session] = {}  # least recently used first
        self._failures: dict[str, _Failures] = {}

    async def login(self, caller: Caller, user: str, password: str, originator: str = "") -> str:
        """A session ref. SESSION_AUTHENTICATION_FAILED after a delay that grows with each failure of the address; or
        as ``Subjects.admit``."""
        originator = originator or caller.originator
        if caller.local_root:
            return self.begin(user or "root", ROLES[-1], originator, is_local_superuser=True).ref
        await self._wait_turn(caller.address, user)
        account = await self.accounts.check(user, password)
        if account is not None:
            self._failures.pop(caller.address, None)
            return self.begin(account.name, account.role, originator, is_local_superuser=account.name == ROOT).ref
        try:
            if user == ROOT or not user or not self._subjects.enabled:
                raise XenApiError("SESSION_AUTHENTICATION_FAILED", [user, "Authentication failure"])
            admitted = await self._subjects.admit(user, password)
        except XenApiError as error:
            self._note_failure(caller.address)
            log.warning("%.64r from %s is not let in: %s", user, caller.address or "the local socket", error.code)
            raise
        self._failures.pop(caller.address, None)
        return self.begin(user, admitted.role, originator, admitted=admitted).ref

    def begin(
        self,
        user: str,
        role: str,
        originator: str = "",
        *,
        is_local_superuser: bool = False,
        admitted: Admitted | None = None,
    ) -> Session:
        now = self._pool.clock.now()
        self._make_room(user, originator)
        host = next(iter(self._pool.db.all("host")), NULL_REF)
        record = {
            "this_host": host,
            "this_user": NULL_REF,
            "last_active": datetime_text(now),
            "validation_time": datetime_text(now),
            "pool": False,
            "is_local_superuser": is_local_superuser,
            "auth_user_name": user,
            "originator": originator,
            "subject": admitted.subjects[0] if admitted else NULL_REF,
            "auth_user_sid": admitted.identifier if admitted else "",
            # as published, only of those who are not root: root has them all
            "rbac_permissions": permission_names(self._pool.db, role) if admitted else [],
        }
        with self._pool.db.transaction() as tx:
            ref = tx.create("session", record)
        used_s = self._pool.clock.monotonic_s()
        session = Session(ref, user, role, originator, is_local_superuser, used_s, used_s, admitted=admitted)
        self._open[ref] = session
        return session

    def use(self, ref: str) -> Session:
        """The session, marked as used now. SESSION_INVALID: never was, ended, or idle for too long."""
        session = self._open.get(ref)
        now_s = self._pool.clock.monotonic_s()
        if session is None:
            raise XenApiError("SESSION_INVALID", [ref])
        if now_s - session.last_used_s > IDLE_LIMIT_S:
            self.end(ref)
            raise XenApiError("SESSION_INVALID", [ref])
        session.last_used_s = now_s
        self._open[ref] = self._open.pop(ref)  # most recently used last
        if now_s - session.recorded_s > RECORD_EVERY_S:
            session.recorded_s = now_s
            with self._pool.db.transaction() as tx:
                tx.set("session", ref, last_active=datetime_text(self._pool.clock.now()))
        return session

    def find(self, ref: str) -> Session | None:
        return self._open.get(ref)

    def end(self, ref: str) -> None:
        session = self._open.pop(ref, None)
        if session is not None:
            session.ended.set()
            with self._pool.db.transaction() as tx:
                tx.destroy("session", ref)

    # -- those who came in by a directory

    def subject_changed(self, subject: str) -> None:
        """Its sessions get the role that is theirs now, or end."""
        for session in list(self._open.values()):
            if session.admitted is not None and subject in session.admitted.subjects:
                role = self._subjects.role_of(session.admitted.subjects)
                if role is None:
                    self.end(session.ref)
                else:
                    session.role = role
                    with self._pool.db.transaction() as tx:
                        tx.set("session", session.ref, rbac_permissions=permission_names(self._pool.db, role))

    def subject_identifiers(self) -> list[str]:
        """Of everybody who has a session by a directory."""
        return sorted({s.admitted.identifier for s in self._open.values() if s.admitted is not None})

    def end_subjects(self, identifier: str | None = None) -> None:
        """The sessions of one user of the directory, or of all."""
        for session in list(self._open.values()):
            if session.admitted is not None and identifier in (None, session.admitted.identifier):
                self.end(session.ref)

    def _make_room(self, user: str, originator: str) -> None:
        now_s = self._pool.clock.monotonic_s()
        for ref in [s.ref for s in self._open.values() if now_s - s.last_used_s > IDLE_LIMIT_S]:
            self.end(ref)
        same = [s.ref for s in self._open.values() if (s.user, s.originator) == (user, originator)]
        for ref in same[: max(0, len(same) - SESSIONS_LIMIT + 1)]:
            log.warning("more than %d sessions of %.64r: the longest unused ends", SESSIONS_LIMIT, user)
            self.end(ref)

    async def _wait_turn(self, address: str, user: str) -> None:
        failures = self._failures.get(address)
        now_s = self._pool.clock.monotonic_s()
        if failures is None:
            return
        if now_s - failures.last_s > FAILURES_FORGOTTEN_S:
            del self._failures[address]
            return
        turn_s = max(now_s, failures.not_before_s)
        if turn_s - now_s > QUEUE_MOST_S:
            text = "Too many wrong passwords from this address; wait a minute"
            raise XenApiError("SESSION_AUTHENTICATION_FAILED", [user, text])
        failures.not_before_s = turn_s + self._delay_s(failures.count)  # attempts side by side queue up
        await self._pool.clock.sleep(turn_s - now_s)

    def _note_failure(self, address: str) -> None:
        now_s = self._pool.clock.monotonic_s()
        failures = self._failures.setdefault(address, _Failures(0, now_s, now_s))
        failures.count += 1
        failures.last_s = now_s
        failures.not_before_s = max(failures.not_before_s, now_s + self._delay_s(failures.count))
        while len(self._failures) > ADDRESSES_LIMIT:
            del self._failures[next(iter(self._failures))]

    @staticmethod
    def _delay_s(count: int) -> float:
        return min(DELAY_MOST_S, DELAY_FIRST_S * float(2 ** min(count - 1, 10)))
