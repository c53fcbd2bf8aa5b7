"""Bodies that no client should send, as calls of each kind of message (reading, writing, making) of every class, over
both ways of writing them: the error that the call deserves, or none at all, and nothing has changed."""

import copy
import json
from typing import Any

from gespann.pool.api import dispatch
from gespann.pool.api.rpc import BODY_LIMIT_BYTES, RpcApp
from gespann.pool.classes import HANDLER_MODULES
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import Message
from tests.unit.pool.world import World

assert HANDLER_MODULES
LONG = "x" * 10_000_000
KINDS = ("getter", "setter", "adder", "remover", "get_record", "get_by_uuid", "constructor")


def kind_of(message: Message) -> str:
    if message.params and message.params[0].type.kind == "record":
        return "constructor"
    return message.kind or message.name.partition("_")[0] + "ter"


def one_of_each_kind() -> list[str]:
    """One message of each kind of each class."""
    found: dict[tuple[str, str], str] = {}
    for method in dispatch.implemented():
        class_name, name = method.split(".")
        message = datamodel.classes()[class_name].messages[name]
        if message.needs_session and message.params and kind_of(message) in KINDS:
            found.setdefault((class_name, kind_of(message)), method)
    return sorted(found.values())


METHODS = one_of_each_kind()


class Client:
    """Sends bodies to the application, without a network."""

    def __init__(self, world: World) -> None:
        self.world, self.app = world, RpcApp(world.api)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("127.0.0.1", 1), "state": {}}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])

    async def xml(self, method: str, inside: bytes, prologue: bytes = b"") -> tuple[int, bytes]:
        params = b"<param><value>%b</value></param><param><value>%b</value></param>" % (
            self.world.session.encode(),
            inside,
        )
        name = method.encode()
        body = b"<methodCall><methodName>%b</methodName><params>%b</params></methodCall>" % (name, params)
        return await self.post("/", prologue + body)

    async def json(self, method: str, inside: bytes) -> tuple[int, bytes]:
        head = json.dumps({"method": method, "id": 1})[:-1].encode()
        return await self.post("/jsonrpc", head + b', "params": ["%b", %b]}' % (self.world.session.encode(), inside))


def picture(world: World) -> Any:
    return copy.deepcopy({name: table for name, table in world.db.tables.items() if name not in ("session", "task")})


def test_every_class_is_tried() -> None:
    assert {method.partition(".")[0] for method in METHODS} >= {"VM", "VDI", "VBD", "SR", "network", "pool", "host"}
    kinds = {kind_of(datamodel.classes()[name].messages[at]) for name, at in (m.split(".") for m in METHODS)}
    assert kinds >= {"getter", "setter", "constructor"}, kinds


async def test_bytes_that_are_no_text(world: World) -> None:
    client, before = Client(world), picture(world)
    for method in METHODS:
        status, answer = await client.xml(method, b"\xff\xfe\xc3(")
        assert (status, b"not XML" in answer) == (400, True), "what is not XML is not answered as a call"
        status, answer = await client.json(method, b'"\xff\xfe\xc3("')
        assert (status, json.loads(answer)["error"][0]) == (200, "INVALID_VALUE"), method
    assert picture(world) == before


async def test_entities_and_depth(world: World) -> None:
    client, before = Client(world), picture(world)
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]>'.encode()
    outside = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e8 SYSTEM "file:///etc/hostname">]>'
    deep = b"<array><data><value>" * 1000 + b"</value></data></array>" * 1000
    for method in METHODS:
        for status, _ in (
            await client.xml(method, b"&e8;", bomb),
            await client.xml(method, b"&e8;", outside),
            await client.xml(method, deep),
            await client.json(method, b"[" * 1000 + b"]" * 1000),
            await client.json(method, b'{"a":' * 1000 + b"1" + b"}" * 1000),
        ):
            assert status == 400, method
    assert picture(world) == before


async def test_ten_million_letters(world: World) -> None:
    client, before = Client(world), picture(world)
    for method in ("VM.get_record", "VM.get_uuid", "secret.create", "VM.create"):
        for _, answer in (await client.xml(method, LONG.encode()), await client.json(method, f'"{LONG}"'.encode())):
            assert b"HANDLE_INVALID" in answer or b"INVALID_VALUE" in answer or b"FIELD_TYPE_ERROR" in answer
            assert len(answer) < 2000
    too_long = b'"%b"' % (b"x" * BODY_LIMIT_BYTES)
    assert (await client.json("VM.get_record", too_long))[0] == 413
    assert picture(world) == before


async def test_no_parameters_at_all(world: World) -> None:
    client = Client(world)
    for method in METHODS:
        body = f"<methodCall><methodName>{method}</methodName><params></params></methodCall>"
        _, answer = await client.post("/", body.encode())
        assert b"MESSAGE_PARAMETER_COUNT_MISMATCH" in answer, method
        _, answer = await client.post("/jsonrpc", json.dumps({"method": method, "params": [], "id": 1}).encode())
        assert json.loads(answer)["error"][0] == "MESSAGE_PARAMETER_COUNT_MISMATCH", method
