"""A database as a new pool's coordinator has it once it has written down the roles: they are the same in every pool,
more than a thousand records, and most of what a first start costs."""

import functools
import tempfile
from pathlib import Path

from gespann.pool.api.dispatch import least_roles
from gespann.pool.api.permissions import ensure_roles
from gespann.pool.model.database import Database


@functools.cache
def _with_roles() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pool.db"
        db = Database(path)
        ensure_roles(db, least_roles())
        db.close()
        return path.read_bytes()


def lay_down(path: Path) -> None:
    """The coordinator that starts on it looks at the roles, as at any start, and finds nothing to do."""
    path.touch(mode=0o600)
    path.write_bytes(_with_roles())
