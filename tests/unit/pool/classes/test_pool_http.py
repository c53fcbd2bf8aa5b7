"""Images and consoles over the real door."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.unit.pool.door import ask
from tests.unit.pool.world import World

UNKNOWN_LENGTH = 1125899906842624  # what a client says that does not know


def contents(world: World, vdi: str) -> bytes:
    medium = world.hypervisor.storage.media[world.get("VDI", vdi)["uuid"]]  # type: ignore[attr-defined]
    return medium.read(0, medium.size_bytes)


async def test_what_goes_in_comes_out(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    data = bytes(range(256)) * 4096
    size = world.get("VDI", vdi)["virtual_size"]
    assert await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}&format=raw", data) == (200, b"")
    assert contents(world, vdi) == data + bytes(size - len(data))
    uuid = world.get("VDI", vdi)["uuid"]
    assert await ask(door, world, f"GET /export_raw_vdi/?vdi={uuid}") == (200, data + bytes(size - len(data)))
    assert not world.db.all("task"), "nobody has asked for one, and everybody has the answer"
    assert world.openings() == []
    assert world.work.journal.entries() == []
    assert world.hypervisor.storage.open_now == {}  # type: ignore[attr-defined]


async def test_who_has_the_last_byte_may_use_the_disk(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(f"GET /export_raw_vdi?vdi={vdi}&session_id={world.session} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(world.get("VDI", vdi)["virtual_size"])
    assert world.openings() == []
    assert world.get("VDI", vdi)["current_operations"] == {}
    writer.close()


async def test_a_client_that_does_not_know_its_length_may_simply_end(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    status, _ = await ask(door, world, f"PUT /import_raw_vdi/?vdi={vdi}&format=raw", b"x" * 5000, UNKNOWN_LENGTH)
    assert status == 200
    assert contents(world, vdi)[:5001] == b"x" * 5000 + b"\0"


async def test_a_client_that_breaks_off_has_failed(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    await ask_without_answer(door, world, f"PUT /import_raw_vdi?vdi={vdi}", b"x" * 5000, 9000)
    assert [task["error_info"][0] for task in world.db.all("task").values()] == ["CLIENT_ERROR"]
    assert world.openings() == []
    assert world.work.journal.entries() == []
    assert world.get("VDI", vdi)["current_operations"] == {}


async def ask_without_answer(door: Path, world: World, request: str, body: bytes, length: int) -> None:
    with contextlib.suppress(IndexError, ValueError):  # closed without a word: there is nobody to tell
        await ask(door, world, request, body, length)


async def test_more_than_fits_is_refused(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr(), virtual_size=1)
    size = world.get("VDI", vdi)["virtual_size"]
    status, words = await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}", bytes(size + 1))
    assert words.decode() == f"VDI_TOO_SMALL {vdi} {size + 1}\n"
    assert (status, words.split()[0]) == (500, b"VDI_TOO_SMALL")
    assert world.openings() == []


async def test_a_disk_in_use_is_neither_read_nor_written(world: World, door: Path) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    vdi = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    await world.call("VM.start", vm, False, False)
    for request in (f"PUT /import_raw_vdi?vdi={vdi}", f"GET /export_raw_vdi?vdi={vdi}"):
        status, words = await ask(door, world, request, b"x")
        assert (status, words.split()[0]) == (500, b"VDI_IN_USE")
    assert len(world.openings()) == 1


async def test_other_formats_are_refused_before_anything_happens(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    for query in ("format=vmdk", "format=tar", "chunked=perhaps"):
        status, words = await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}&{query}", b"x")
        assert (status, words.split()[0]) == (500, b"VALUE_NOT_SUPPORTED")
    assert world.openings() == []


async def test_an_empty_request_only_looks_where_to_go(world: World, door: Path) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    world.moments.passed.clear()
    assert (await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}"))[0] == 200
    assert world.moments.passed == []


async def test_whoever_does_not_know_its_length_may_look_first_too(world: World, door: Path) -> None:
    """The Node client: its first request promises as much as its second, and is in nobody's way while it ends."""
    vdi = await world.make_vdi(await world.make_sr())
    request = f"PUT /import_raw_vdi?vdi={vdi}"
    reader, writer = await asyncio.open_unix_connection(door)
    promise = f"session_id={world.session} HTTP/1.1\r\nHost: x\r\nContent-Length: {UNKNOWN_LENGTH}\r\n\r\n"
    writer.write(f"{request}&{promise}".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    status, _ = await ask(door, world, request, b"x" * 5000, UNKNOWN_LENGTH)
    assert status == 200
    assert contents(world, vdi)[:5001] == b"x" * 5000 + b"\0"
    passed = list(world.moments.passed)
    writer.close()
    await reader.read()
    assert world.moments.passed == passed


async def test_whoever_only_looks_is_refused_what_would_be_refused(world: World, door: Path) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    vdi = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    await world.call("VM.start", vm, False, False)
    status, words = await ask(door, world, f"PUT /import_raw_vdi?vdi={vdi}", b"", UNKNOWN_LENGTH)
    assert (status, words.split()[0]) == (500, b"VDI_IN_USE")


async def console(
    door: Path, world: World, vm: str, protocol: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    (ref,) = [c for c in world.get("VM", vm)["consoles"] if world.get("console", c)["protocol"] == protocol]
    location = world.get("console", ref)["location"]
    assert location.startswith("https://10.0.0.5/console?uuid=")
    path = location.removeprefix("https://10.0.0.5")
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(f"CONNECT {path}&session_id={world.session} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)
    assert head.startswith(b"HTTP/1.1 200")
    return reader, writer


@pytest.mark.parametrize(("port", "server"), [(443, "10.0.0.5"), (8443, "10.0.0.5:8443")])
async def test_a_console_is_found_where_the_pool_listens(world: World, port: int, server: str) -> None:
    world.pool.tls_port = port
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    (console, *_) = world.get("VM", vm)["consoles"]
    record = world.get("console", console)
    assert record["location"] == f"https://{server}/console?uuid={record['uuid']}"


async def test_the_serial_line_and_the_screen_can_be_reached(world: World, door: Path) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    reader, writer = await console(door, world, vm, "vt100")
    assert b"login:" in await asyncio.wait_for(reader.readuntil(b"login:"), 120)
    writer.write(b"root\r")
    assert b"root" in await asyncio.wait_for(reader.readuntil(b"root"), 120)
    writer.close()
    reader, writer = await console(door, world, vm, "rfb")
    assert (await asyncio.wait_for(reader.readexactly(4), 120)) == b"RFB "
    await world.call("VM.hard_shutdown", vm)
    assert await asyncio.wait_for(reader.read(), 120) == b"003.008\n"  # and then the end
    writer.close()


async def test_nobody_reaches_a_console_without_a_session(world: World, door: Path) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(b"CONNECT /console?uuid=x&session_id=OpaqueRef:wrong HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()
