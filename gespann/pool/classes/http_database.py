"""``GET /pool/xmldbdump``: the pool's whole database as one file, consistent while work goes on.

It is the very file that takes the place of ``pool.db`` while the coordinator is stopped. The path is the original's,
whose database is XML; ours is SQLite. It holds the secrets of the pool: only a pool-admin gets it, and what is on the
disk meanwhile is for its owner alone.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.model.database import GENERATION_BLOCK
from gespann.seams.xenapi.datamodel import ROLES

PIECE_BYTES = 256 * 1024
#: runs that the pool may have between dump and restoration: no event token of theirs comes again after it
RUNS_BETWEEN = 1 << 16


@http("GET", "/pool/xmldbdump", role=ROLES[-1])
async def dump(request: HttpRequest) -> None:
    path = request.pool.db.path
    assert path is not None, "a coordinator has a file"
    with _beside(path) as copy:
        await asyncio.to_thread(_copy, path, copy)
        size = copy.stat().st_size
        await request.begin_response(200, {"Content-Type": "application/vnd.sqlite3", "Content-Length": str(size)})
        with copy.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                await request.send(piece)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    fd, name = tempfile.mkstemp(prefix="pool.db.dump-", dir=path.parent)  # of mode 0600
    os.close(fd)
    try:
        yield Path(name)
    finally:
        Path(name).unlink()


def _copy(path: Path, into: Path) -> None:
    """In a thread, by connections of its own: who writes meanwhile neither waits nor is seen half."""
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(into)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file
        with target:
            ahead = RUNS_BETWEEN * GENERATION_BLOCK
            target.execute("UPDATE meta SET value = CAST(value + ? AS TEXT) WHERE key = 'generation'", (ahead,))
