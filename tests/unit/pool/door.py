"""A plain HTTP client for the door of a world."""

import asyncio
from pathlib import Path

from tests.unit.pool.world import World


async def ask(
    door: Path, world: World, request: str, body: bytes = b"", length: int | None = None
) -> tuple[int, bytes]:
    """``request``: method and path with query. Gives status and body."""
    method, path = request.split(" ")
    reader, writer = await asyncio.open_unix_connection(door)
    length = len(body) if length is None else length
    head = f"{method} {path}&session_id={world.session} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    if length > len(body):
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    status_line, _, rest = answer.partition(b"\r\n")
    return int(status_line.split()[1]), rest.partition(b"\r\n\r\n")[2]
