"""The engine's answer about its volumes comes late: what was made or deleted meanwhile is not forgotten."""

import asyncio
from typing import Any

import pytest

from gespann.array.model.sizes import GB
from gespann.seams.engine_socket import Request, VolumeDrain, VolumeList


class LateList:
    """Holds back the next answer to ``volume.list``: it says how things were when it was asked."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        answer_now = engine.call

        async def call(request: Request, timeout_s: float | None = None) -> Any:
            reply = await answer_now(request, timeout_s)
            if isinstance(request, VolumeList) and not self.asked.is_set():
                self.asked.set()
                await self.go_on.wait()
            return reply

        monkeypatch.setattr(engine, "call", call)


async def test_a_volume_made_while_others_were_listed_is_set_offline_for_good(group, monkeypatch) -> None:
    control = group.control
    late = LateList(group.engine, monkeypatch)
    looking = asyncio.create_task(control.inventory())
    await late.asked.wait()
    made = await control.lifecycle.create(control.lifecycle.draft("new", GB, 1), unrestricted=True)
    late.go_on.set()
    assert made.naa not in await looking
    await control.lifecycle.set_online(control.volumes.get("new"), False)
    assert not group.engine.targets[made.naa].online
    assert any(isinstance(request, VolumeDrain) for request in group.engine.requests)


async def test_a_volume_deleted_while_all_were_listed_is_gone(group, monkeypatch) -> None:
    control = group.control
    made = await control.lifecycle.create(control.lifecycle.draft("old", GB, 1, online=False))
    late = LateList(group.engine, monkeypatch)
    looking = asyncio.create_task(control.inventory())
    await late.asked.wait()
    await control.lifecycle.delete(control.volumes.get("old"))
    late.go_on.set()
    await looking
    assert made.naa not in control.data_plane.present
