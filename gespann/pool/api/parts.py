"""How a handler reaches the parts of the API."""

from typing import TYPE_CHECKING, cast

from gespann.pool.api.messages import Call

if TYPE_CHECKING:
    from gespann.pool.api.api import Api


def api_of(call: Call) -> "Api":
    return cast("Api", call.pool.services["api"])
