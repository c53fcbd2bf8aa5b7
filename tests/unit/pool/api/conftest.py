"""An API over a database in memory, with a pool, two hosts and a machine in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api
from gespann.pool.model import kept_changes
from gespann.pool.model.database import Database
from gespann.pool.pool import Pool
from gespann.system.clock import SystemClock

PASSWORD = "correct horse"


@dataclass
class World:
    api: Api
    root: str  # a session
    pool: str
    host: str
    vm: str
    vdi: str
    vbd: str

    def session(self, role: str, user: str = "someone") -> str:
        return self.api.sessions.begin(user, role).ref

    async def call(self, method: str, *params):
        """As root."""
        return await self.api.call(method, self.root, *params)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    accounts = Accounts(tmp_path)
    accounts.open(PASSWORD)
    api = Api(Pool(Database(None), {}, {}, SystemClock()), accounts)
    kept_changes.prepare_tables(api.pool.db)
    with api.pool.db.transaction() as tx:
        host = tx.create("host", {"name_label": "host1"})
        tx.create("host", {"name_label": "host2"})
        pool = tx.create("pool", {"master": host, "name_label": "p"})
        vm = tx.create("VM", {"name_label": "web1", "memory_static_max": 1 << 30})
        vdi = tx.create("VDI", {"name_label": "disk"})
        vbd = tx.create("VBD", {"VM": vm, "VDI": vdi})
    yield World(api, api.local_session(), pool, host, vm, vdi, vbd)
    await api.close()
    api.pool.db.close()
