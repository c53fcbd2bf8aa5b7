"""``GET /audit_log``: the audit log as text, oldest line first; ``since`` leaves out what is older."""

from typing import TYPE_CHECKING, cast

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.seams.xenapi.datamodel import ROLES

if TYPE_CHECKING:
    from gespann.pool.api.api import Api

#: sent together: lines are short
PIECE_BYTES = 64 * 1024


@http("GET", "/audit_log", role=ROLES[0])
async def audit_log(request: HttpRequest) -> None:
    api = cast("Api", request.pool.services["api"])
    lines = api.audit.lines(request.query.get("since", ""))
    await request.begin_response(200, {"Content-Type": "text/plain"})
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) > PIECE_BYTES:
            await request.send(bytes(piece))
            piece.clear()
    await request.send(bytes(piece))
