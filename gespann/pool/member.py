"""What a host answers that is a member of a pool and not its coordinator: where that is. It keeps nothing."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gespann.pool.api.api import Api
from gespann.pool.api.caller import Caller
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

#: of the pool of one that this host was before it joined; it must not come up again as if nothing had happened
LEFT_BEHIND = ("pool.db", "pool.db-wal", "pool.db-shm")


class MemberApi(Api):
    """Refuses every call with HOST_IS_SLAVE and the coordinator's address, by which clients find their way."""

    def __init__(self, coordinator_address: str) -> None:
        self._coordinator_address = coordinator_address

    async def call(self, method: str, *params: Any) -> Any:
        self._refuse()

    async def invoke(self, method: str, params: Sequence[Any], caller: Caller) -> NoReturn:
        self._refuse()

    def local_session(self, originator: str = "") -> str:
        self._refuse()

    async def close(self) -> None:
        return None

    def _refuse(self) -> NoReturn:
        raise XenApiError("HOST_IS_SLAVE", [self._coordinator_address])


def put_aside(data: Path) -> None:
    """The database of the pool that this host was, under another name: the last one is kept, to be looked at."""
    for name in LEFT_BEHIND:
        path = data / name
        if path.exists():
            path.replace(data / f"{name}.before-joining")
