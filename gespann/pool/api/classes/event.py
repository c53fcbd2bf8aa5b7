"""XenAPI class event."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gespann.pool.api.events import Subscription, subscription
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.seams.xenapi.errors import XenApiError

T = TypeVar("T")


async def _while_open(call: Call, waiting: Coroutine[Any, Any, T]) -> T:
    """SESSION_INVALID as soon as the session ends: who waits with it would otherwise learn of it only at the end of the
    wait, and hear of nothing in between."""
    work = asyncio.ensure_future(waiting)
    ended = asyncio.ensure_future(api_of(call).sessions.use(call.session).ended.wait())
    try:
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise XenApiError("SESSION_INVALID", [call.session])
        return work.result()
    finally:
        work.cancel()
        ended.cancel()


@implements("event.from")
async def from_(call: Call, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    return await _while_open(call, api_of(call).events.from_(classes, token, timeout))


@implements("event.inject")
async def inject(call: Call, class_name: str, ref: str) -> str:
    return api_of(call).events.inject(class_name, ref)


@implements("event.get_current_id")
async def get_current_id(call: Call) -> int:
    return call.pool.db.generation


@implements("event.register")
async def register(call: Call, classes: list[str]) -> None:
    session = api_of(call).sessions.use(call.session)
    subscription(classes)  # refuses what cannot be read
    if session.subscriptions is None:
        session.subscriptions = set()
        session.position = call.pool.db.generation
    session.subscriptions |= {word.lower() for word in classes}


@implements("event.unregister")
async def unregister(call: Call, classes: list[str]) -> None:
    session = api_of(call).sessions.use(call.session)
    subscription(classes)
    if session.subscriptions is not None:
        session.subscriptions -= {word.lower() for word in classes}
        if not session.subscriptions:
            session.subscriptions = None


@implements("event.next")
async def next_(call: Call) -> list[dict[str, Any]]:
    session = api_of(call).sessions.use(call.session)
    if session.subscriptions is None:
        raise XenApiError("SESSION_NOT_REGISTERED", [call.session])
    wanted: Subscription = subscription(sorted(session.subscriptions))
    events, session.position = await _while_open(call, api_of(call).events.next(wanted, session.position))
    return events
