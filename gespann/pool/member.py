"""What a host answers that is a member of a pool and not its coordinator: where that is.

Root of this machine may besides ask whether the coordinator is lost, and make this host lead the pool from the copy
that it has.
"""

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from gespann.pool.api.api import Api
from gespann.pool.api.caller import Caller
from gespann.pool.pool import Agent
from gespann.seams.host_membership import Allegiance, AllegianceReply
from gespann.seams.host_succession import CopyAbout, CopyShow, CopyShowReply, PoolMoved, PoolTake, next_epoch
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

#: of the pool that this host was or led before; it must not come up again as if nothing had happened
LEFT_BEHIND = ("pool.db", "pool.db-wal", "pool.db-shm")
#: a coordinator that is connected to this host's agent no longer for so long is lost
LOST_AFTER_S = 10.0
SESSIONS_MOST = 100
COPY_PLUGIN = "pool-copy"  # host.call_plugin, function "show": how old the copy is that this host has

TEXT, BOOL, VOID = Type("string"), Type("bool"), Type("void")


class _WaitingApi(Api):
    """Of a host that leads nothing: root of this machine may log in and ask a little, everybody else is refused."""

    def __init__(self) -> None:
        self._sessions: list[str] = []

    async def call(self, method: str, *params: Any) -> Any:
        self._refuse()

    async def invoke(self, method: str, params: Sequence[Any], caller: Caller) -> tuple[Type, Any]:
        if method == "session.login_with_password" and caller.local_root:
            return TEXT, self.local_session()
        if not params or params[0] not in self._sessions:
            self._refuse()
        return await self._answer(method, params)

    def local_session(self, originator: str = "") -> str:
        self._sessions = [*self._sessions[-SESSIONS_MOST:], f"OpaqueRef:{uuid4()}"]
        return self._sessions[-1]

    async def close(self) -> None:
        return None

    @abstractmethod
    async def _answer(self, method: str, params: Sequence[Any]) -> tuple[Type, Any]:
        """To a session of root's, which is the first of the parameters."""

    @abstractmethod
    def _refuse(self) -> NoReturn:
        """Says whose turn it is."""


class MemberApi(_WaitingApi):
    """Refuses nearly every call with HOST_IS_SLAVE and the coordinator's address, by which clients find their way."""

    def __init__(self, coordinator_address: str, agent: Agent, clock: Clock) -> None:
        self._coordinator_address = coordinator_address
        super().__init__()
        self._agent, self._clock = agent, clock
        self._calls: dict[str, Callable[..., Any]] = {
            "session.logout": self._log_out,
            "session.local_logout": self._log_out,
            "host.is_in_emergency_mode": self._is_in_emergency_mode,
            "host.call_plugin": self._show_copy,
            "pool.emergency_transition_to_master": self._take_over,
            "pool.emergency_reset_master": self._reset_master,
        }

    async def _answer(self, method: str, params: Sequence[Any]) -> tuple[Type, Any]:
        call = self._calls.get(method)
        if call is None:
            self._refuse()
        try:
            answer: tuple[Type, Any] = await call(*params)
        except TypeError:
            raise XenApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", [method, "", str(len(params) - 1)]) from None
        return answer

    def _refuse(self) -> NoReturn:
        raise XenApiError("HOST_IS_SLAVE", [self._coordinator_address])

    async def _log_out(self, session: str) -> tuple[Type, None]:
        self._sessions.remove(session)
        return VOID, None

    # -- when the coordinator is lost

    async def _ask(self, request: Any) -> Any:
        try:
            return await self._agent.call(request, 30.0)
        except SeamError as error:
            raise XenApiError("OPERATION_NOT_ALLOWED", [error.message]) from error
        except SeamLost as error:
            raise XenApiError("OPERATION_NOT_ALLOWED", [f"The agent of this host does not answer: {error}"]) from error

    async def _is_in_emergency_mode(self, session: str) -> tuple[Type, bool]:
        said: AllegianceReply = await self._ask(Allegiance())
        return BOOL, said.state == "member" and said.silent_s >= LOST_AFTER_S

    async def _copy(self) -> tuple[CopyAbout, float]:
        """What this host could lead by, and how old that is."""
        there: CopyShowReply = await self._ask(CopyShow())
        if there.about is None:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["This host has no copy of the pool's database"])
        taken_at = datetime.strptime(there.about.taken_at, "%Y%m%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return there.about, (self._clock.now() - taken_at).total_seconds()

    async def _show_copy(self, session: str, host: str, plugin: str, function: str, args: Any) -> tuple[Type, str]:
        if (plugin, function) != (COPY_PLUGIN, "show"):
            raise XenApiError("XENAPI_MISSING_PLUGIN", [str(plugin)])
        about, age_s = await self._copy()
        return TEXT, json.dumps({"taken_at": about.taken_at, "age_s": round(age_s)})

    async def _take_over(self, session: str) -> tuple[Type, None]:
        """OPERATION_NOT_ALLOWED while the coordinator is there: it would have to be asked."""
        said: AllegianceReply = await self._ask(Allegiance())
        if said.state == "member" and said.silent_s < LOST_AFTER_S:
            text = (
                f"The coordinator at {said.coordinator_address} was connected to this host a moment ago: it can give"
                " the pool to another host (pool-designate-new-master)"
            )
            raise XenApiError("OPERATION_NOT_ALLOWED", [text])
        about, age_s = await self._copy()
        epoch = next_epoch(max(said.epoch, about.epoch))
        log.warning("this host takes the pool over, from a copy of %s (%.0f s old)", about.taken_at, age_s)
        await self._ask(PoolTake(pool_uuid=about.pool_uuid, epoch=epoch, copy_id=about.copy_id, how="emergency"))
        return VOID, None

    async def _reset_master(self, session: str, address: str) -> tuple[Type, None]:
        await self._ask(PoolMoved(coordinator_address=str(address)))
        self._coordinator_address = str(address)
        return VOID, None


class DoubtfulApi(_WaitingApi):
    """Of a coordinator that was about to give the pool away, until the other host says whether it has it."""

    def __init__(self, address: str, keep: Callable[[], None]) -> None:
        """``keep``: this host leads on, whatever the other one may have decided."""
        super().__init__()
        self._address, self._keep = address, keep

    async def _answer(self, method: str, params: Sequence[Any]) -> tuple[Type, Any]:
        if method == "session.logout":
            return VOID, None
        if method == "host.is_in_emergency_mode":
            return BOOL, True
        if method == "pool.emergency_transition_to_master":
            self._keep()
            return VOID, None
        self._refuse()

    def _refuse(self) -> NoReturn:
        text = (
            f"This host was giving the pool to the host at {self._address}, which does not answer: whether it leads is"
            " known as soon as it does. If it is gone for good: xe pool-emergency-transition-to-master on this host"
        )
        raise XenApiError("OPERATION_NOT_ALLOWED", [text])


def put_aside(data: Path) -> None:
    """The database of the pool that this host led, under another name: the last one is kept, to be looked at. The key
    by which agents knew this coordinator is of no use to a member."""
    (data / "agents.pem").unlink(missing_ok=True)
    for name in LEFT_BEHIND:
        path = data / name
        if path.exists():
            path.replace(data / f"{name}.before-joining")
