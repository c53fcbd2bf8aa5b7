"""Both ends of the JSON line seam against each other and against hostile bytes."""

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import Event
from gespann.seams.json_lines import LINE_LIMIT_BYTES, SeamError, SeamLost
from gespann.system import json_lines
from gespann.system.json_lines import IN_FLIGHT_LIMIT, IN_FLIGHT_MOST, JsonLinesClient, JsonLinesServer, Watch


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    text: str


class Say(Request):
    op: ClassVar[str] = "say"
    reply: ClassVar[type] = Echo
    text: str = "hi"


class Unserved(Request):
    op: ClassVar[str] = "unserved"
    reply: ClassVar[type] = Empty


class Told(Event):
    event: ClassVar[str] = "told"
    n: int


class Gate:
    """Handlers whose answer the test releases."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = 0
        self.finished = 0

    async def say(self, request: Say) -> Echo:
        self.entered += 1
        if request.text == "wait":
            await self.open.wait()
        if request.text == "refuse":
            raise SeamError("BUSY", "not now")
        if request.text == "crash":
            raise ValueError("hunter2")
        self.finished += 1
        return Echo(text=request.text)


async def until(condition):
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
async def server(tmp_path, gate):
    server = JsonLinesServer(tmp_path / "s", {Say: gate.say})
    await server.start()
    yield server
    await server.stop(grace_s=0)


@pytest.fixture
async def client(server):
    client = JsonLinesClient(server.socket_path)
    yield client
    await client.close()


async def test_call_answers(client):
    assert await client.call(Say(text="ä\n")) == Echo(text="ä\n")


async def test_answers_overtake(client, gate):
    slow = asyncio.create_task(client.call(Say(text="wait")))
    await until(lambda: gate.entered == 1)
    assert (await client.call(Say(text="quick"))).text == "quick"
    gate.open.set()
    assert (await slow).text == "wait"


async def test_refusal_and_crash_and_unknown(client, caplog):
    with pytest.raises(SeamError) as refused:
        await client.call(Say(text="refuse"))
    assert (refused.value.code, refused.value.message) == ("BUSY", "not now")
    with pytest.raises(SeamError) as crashed:
        await client.call(Say(text="crash"))
    assert crashed.value.code == "IO"
    assert "hunter2" not in crashed.value.message
    with pytest.raises(SeamError) as unknown:
        await client.call(Unserved())
    assert unknown.value.code == "BAD_REQUEST"


async def test_deadline_is_lost_and_connection_lives(client, gate):
    with pytest.raises(SeamLost):
        await client.call(Say(text="wait"), timeout_s=0.01)
    gate.open.set()
    assert (await client.call(Say(text="again"))).text == "again"


async def test_nobody_there(tmp_path):
    client = JsonLinesClient(tmp_path / "none")
    with pytest.raises(SeamLost):
        await client.call(Say())
    await client.close()


async def test_server_gone_in_the_middle_then_back(tmp_path, gate):
    first = JsonLinesServer(tmp_path / "s", {Say: gate.say})
    await first.start()
    downs: list[str] = []
    client = JsonLinesClient(tmp_path / "s", on_down=downs.append)
    waiting = asyncio.create_task(client.call(Say(text="wait")))
    await until(lambda: gate.entered == 1)
    await first.stop(grace_s=0)
    with pytest.raises(SeamLost):
        await waiting
    assert len(downs) == 1
    second = JsonLinesServer(tmp_path / "s", {Say: gate.say})
    await second.start()
    assert (await client.call(Say(text="back"))).text == "back"
    await client.close()
    await second.stop()


async def test_events_in_order_and_unknown_events_dropped(server, gate):
    class Odd(Event):
        event: ClassVar[str] = "odd"

    seen: list[int] = []
    client = JsonLinesClient(server.socket_path, events=(Told,), on_event=lambda told: seen.append(told.n))
    await client.call(Say())
    server.broadcast(Odd())
    for n in range(20):
        server.broadcast(Told(n=n))
    await until(lambda: len(seen) == 20)
    assert seen == list(range(20))
    await client.close()


async def test_start_reconnects_for_events(tmp_path, gate):
    seen: list[int] = []
    ups: list[str] = []
    client = JsonLinesClient(
        tmp_path / "s",
        hello=Say(text="hello"),
        events=(Told,),
        on_event=lambda told: seen.append(told.n),
        on_up=lambda reply: ups.append(reply.text),
    )
    client.start()
    for n in range(2):
        server = JsonLinesServer(tmp_path / "s", {Say: gate.say})
        await server.start()
        await until(lambda n=n: len(ups) == n + 1)
        server.broadcast(Told(n=n))
        await until(lambda n=n: seen[-1:] == [n])
        await server.stop()
    await client.close()
    assert ups == ["hello", "hello"]


async def test_handler_finishes_though_its_caller_is_gone(server, gate):
    client = JsonLinesClient(server.socket_path)
    call = asyncio.create_task(client.call(Say(text="wait")))
    await until(lambda: gate.entered == 1)
    await client.close()
    with pytest.raises(SeamLost):
        await call
    gate.open.set()
    await until(lambda: gate.finished == 1)


async def raw(path: Path, data: bytes) -> list[dict]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2 * LINE_LIMIT_BYTES)
    writer.write(data)
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"id":"x","op":"say"}\n', b'{"id":1,"op":"say","args":{"text":3}}\n'],
)
async def test_malformed_lines_are_refused(server, line):
    reader, writer = await asyncio.open_unix_connection(str(server.socket_path))
    writer.write(line)
    assert json.loads(await reader.readline())["error"]["code"] == "BAD_REQUEST"
    writer.write(b'{"id":2,"op":"say"}\n')
    assert json.loads(await reader.readline()) == {"id": 2, "ok": {"text": "hi"}}
    writer.close()


async def test_oversize_line_is_refused_and_closed(server):
    reader, writer = await asyncio.open_unix_connection(str(server.socket_path))
    writer.write(b"x" * (LINE_LIMIT_BYTES + 2))
    assert json.loads(await reader.readline())["error"]["code"] == "BAD_REQUEST"
    assert await reader.read() == b""
    writer.close()


async def test_oversize_request_never_leaves(client):
    with pytest.raises(SeamError) as refused:
        await client.call(Say(text="x" * LINE_LIMIT_BYTES))
    assert refused.value.code == "BAD_REQUEST"
    assert (await client.call(Say())).text == "hi"


async def test_garbage_answer_is_lost_not_a_crash(tmp_path):
    async def babble(reader, writer):
        await reader.readline()
        writer.write(b"\x00\xff not json\n")
        await writer.drain()

    server = await asyncio.start_unix_server(babble, path=str(tmp_path / "s"))
    client = JsonLinesClient(tmp_path / "s")
    with pytest.raises(SeamLost):
        await client.call(Say())
    await client.close()
    server.close()


async def test_socket_mode_and_second_server_refused(server, gate):
    assert stat.S_IMODE(os.stat(server.socket_path).st_mode) == 0o600
    with pytest.raises(OSError, match="another process"):
        await JsonLinesServer(server.socket_path, {Say: gate.say}).start()


async def test_dead_socket_is_replaced(tmp_path, gate):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "s"))
    dead.close()
    server = JsonLinesServer(tmp_path / "s", {Say: gate.say})
    await server.start()
    client = JsonLinesClient(tmp_path / "s")
    assert (await client.call(Say())).text == "hi"
    await client.close()
    await server.stop()


class Hail(Request):
    op: ClassVar[str] = "hail"
    reply: ClassVar[type] = Empty


async def test_much_slow_work_does_not_look_like_silence(tmp_path, gate):
    """More than the server works on at a time: greetings are answered all the same."""
    hailed, downs = [], []

    async def hail(_: Hail) -> Empty:
        hailed.append(gate.entered)
        return Empty()

    server = JsonLinesServer(tmp_path / "s", {Say: gate.say, Hail: hail})
    await server.start()
    client = JsonLinesClient(tmp_path / "s", hello=Hail(), on_down=downs.append, watch=Watch(0.01, 100.0))
    asked = [asyncio.create_task(client.call(Say(text="wait"))) for _ in range(IN_FLIGHT_LIMIT + 50)]
    await until(lambda: gate.entered == IN_FLIGHT_MOST)
    before = len(hailed)
    await until(lambda: len(hailed) > before + 1)
    gate.open.set()
    assert {answer.text for answer in await asyncio.gather(*asked)} == {"wait"}
    assert downs == []
    await client.close()
    await server.stop()


async def test_a_peer_that_greets_nobody_is_tried_once_for_all_who_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "HELLO_WITHIN_S", 0.5)
    came = []

    async def silent(reader, writer):
        came.append(writer)
        await reader.read()

    server = await asyncio.start_unix_server(silent, path=str(tmp_path / "s"))
    client = JsonLinesClient(tmp_path / "s", hello=Hail(), watch=Watch(0.01, 100.0))
    said = await asyncio.gather(*(client.call(Say(), 3600.0) for _ in range(20)), return_exceptions=True)
    assert [type(one) for one in said] == [SeamLost] * 20
    assert len(came) == 1
    waiting = asyncio.create_task(client.call(Say()))
    await until(lambda: len(came) == 2)
    await client.close()
    with pytest.raises(SeamLost):
        await waiting
    server.close()
    for writer in came:
        writer.close()
