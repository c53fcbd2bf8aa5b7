"""Who keeps an engine running starts none beside one that only takes long to answer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.data_plane.supervisor import EngineSupervisor
from gespann.seams.engine_socket import Hello, HelloReply
from gespann.system.clock import ManualClock
from gespann.system.json_lines import JsonLinesServer

REFUSED = Path("/bin/false")  # how an engine ends whose data another one has


class Hurried(ManualClock):
    """Every wait is over at once."""

    async def sleep(self, delay_s: float) -> None:
        self.advance(delay_s)
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not true():  # noqa: ASYNC110 - nothing there tells when it changes
            await asyncio.sleep(0.001)


async def test_an_engine_that_was_silent_for_a_while_is_adopted_all_the_same(tmp_path: Path) -> None:
    started: list[str] = []
    clock = Hurried()
    supervisor = EngineSupervisor(
        REFUSED, tmp_path / "data", tmp_path / "s", "127.0.0.1:1", clock, lambda _, text: started.append(text)
    )
    await supervisor.start()
    await until(lambda: len(started) > 1)  # each is refused
    asked_at: list[int] = []
    fake = FakeEngine()

    async def hello(request: Hello) -> HelloReply:
        asked_at.append(len(started))
        return await fake.handlers()[Hello](request)  # type: ignore[return-value]

    server = JsonLinesServer(tmp_path / "s", {Hello: hello})
    await server.start()
    before = len(started)
    await until(lambda: len(asked_at) > 5 or len(started) > before + 5)
    await supervisor.stop()
    await server.stop()
    assert len(asked_at) > 5
    assert len(set(asked_at)) == 1, "none is started while it answers"
