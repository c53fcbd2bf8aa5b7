"""An engine that was away gets the policy as soon as it is back, whenever it was last tried."""

import asyncio

import pytest

from gespann.array.model.refusals import Failed
from gespann.array.model.sizes import GB


async def test_guests_are_let_in_without_waiting_for_the_next_try(group) -> None:
    control, engine = group.control, group.engine
    await control.lifecycle.create(control.lifecycle.draft("disk", GB, 1), unrestricted=True)
    engine.lose()
    with pytest.raises(Failed):
        await control.lifecycle.set_online(control.volumes.get("disk"), False)
    async with asyncio.timeout(60):
        while control.data_plane._failure is None:  # noqa: ASYNC110 - the keeper tells nobody that it waits
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # it waits for a clock that stands still
        engine.come_back()
        await control.data_plane.current.wait()
    assert engine.configured
