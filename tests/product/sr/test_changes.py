"""What has changed between two snapshots, told by the array: a long row of writes, trims, snapshots and growths against
a plain model. No byte of the disk crosses the network for it."""

import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.array.data_plane.link import HELLO
from gespann.seams.host_agent import IscsiSource
from gespann.seams.sr_driver import SnapshotSpec, Sr, SrDriver, VolumeSpec
from gespann.sr.equal import output, words
from gespann.system.json_lines import JsonLinesClient
from tests.own_nets import free_port
from tests.product.engine.initiator import Initiator
from tests.product.sr.arrays import Bench, drivers, drivers_at, group_over, running_engine
from tests.product.sr.test_conformance import COPY, DISK, MIB, SPEC, opening, refusal

CHUNK = 64 * 1024
PAGE = 15 * MIB
STEPS = 60
UNIT_ATTENTION = 6


class Writer(Protocol):
    """Whole chunks of the disk."""

    def write(self, chunk: int) -> None: ...
    def trim(self, chunk: int) -> None: ...


@dataclass
class Array:
    driver: SrDriver
    sr: Sr
    writer: Callable[[IscsiSource], Writer]
    sessions: Callable[[], Any]  # who is in, and how much each has read and written
    close: list[Callable[[], None]] = field(default_factory=list)


class FakeWriter:
    def __init__(self, engine: FakeEngine, source: IscsiSource) -> None:
        session = engine.login(source.target, source.initiator, chap_user=source.chap_user, secret=source.chap_secret)
        self._engine, self._volume = engine, engine.sessions[session].volume

    def write(self, chunk: int) -> None:
        self._engine.write(self._volume, chunk * CHUNK, CHUNK)

    def trim(self, chunk: int) -> None:
        self._engine.unmap(self._volume, chunk * CHUNK, CHUNK)


class RealWriter:
    def __init__(self, source: IscsiSource) -> None:
        self.initiator = Initiator(source.port, source.initiator)
        self.initiator.login(source.target, user=source.chap_user, secret=source.chap_secret)
        self._serial = 0

    def write(self, chunk: int) -> None:
        self._serial += 1
        data = self._serial.to_bytes(8, "big") * (CHUNK // 8)
        self._twice(lambda: self.initiator.write10(chunk * CHUNK // 512, data))

    def trim(self, chunk: int) -> None:
        descriptor = struct.pack(">QI4x", chunk * CHUNK // 512, CHUNK // 512)
        parameters = struct.pack(">HH4x", len(descriptor) + 6, len(descriptor)) + descriptor
        cdb = struct.pack(">B6xHx", 0x42, len(parameters))

        def send() -> Any:
            self.initiator.command(cdb, write=parameters, immediate=parameters)
            return self.initiator.receive()

        self._twice(send)

    def _twice(self, send: Callable[[], Any]) -> None:
        """A disk that has grown says so once, in place of an answer."""
        answer = send()
        if answer.header[3] and answer.data[4] & 0x0F == UNIT_ATTENTION:
            answer = send()
        assert answer.header[3] == 0


async def made_sr(driver: SrDriver, config: dict[str, str]) -> Sr:
    wanted = Sr("0ff867ef-3121-0e7c-5497-f5c34916727d", config, {}, "Array", "All disks")
    sr = Sr(wanted.uuid, config, await driver.create(wanted, 0), wanted.name_label, wanted.name_description)
    await driver.attach(sr)
    return sr


@contextlib.asynccontextmanager
async def fake(tmp_path: Path) -> AsyncIterator[Array]:
    engine = FakeEngine(total_bytes=2**40)

    async with group_over(engine, tmp_path) as (group, config), drivers() as make:
        driver = make()
        yield Array(
            driver,
            await made_sr(driver, config),
            lambda source: FakeWriter(engine, source),
            lambda: group.control.sessions(),
        )


@contextlib.asynccontextmanager
async def real(tmp_path: Path) -> AsyncIterator[Array]:
    port = free_port()
    client = JsonLinesClient(tmp_path / "engine.sock", hello=HELLO)
    writers: list[RealWriter] = []

    def writer(source: IscsiSource) -> RealWriter:
        writers.append(RealWriter(source))
        return writers[-1]

    async with running_engine(tmp_path, port), group_over(client, tmp_path) as (group, config), drivers_at(port) as new:
        driver = new()
        sr = await made_sr(driver, config)
        yield Array(driver, sr, writer, lambda: group.control.sessions())
        for one in writers:
            one.initiator.close()


@pytest.fixture(params=[fake, pytest.param(real, marks=pytest.mark.engine)], ids=["fake-engine", "engine"])
async def array(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Array]:
    async with request.param(tmp_path) as made:
        yield made


async def changed_chunks(array: Array, older: str, newer: str) -> set[int]:
    found: set[int] = set()
    offset: int | None = 0
    while offset is not None:
        said = await array.driver.volume_changes(array.sr, older, newer, offset)
        assert said is not None
        for start, length in said.extents:
            assert start % CHUNK == 0
            found.update(range(start // CHUNK, -(-(start + length) // CHUNK)))
        offset = said.next_offset
    return found


def _different(one: dict[int, int], other: dict[int, int], size: int) -> set[int]:
    return {chunk for chunk in one.keys() | other.keys() if one.get(chunk) != other.get(chunk) and chunk < size}


async def test_against_a_model(array: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few extents to an answer, so that most comparisons take several. What is told are no less than the chunks that
    hold something else, and no more than those that were touched in between: growing changes nothing."""
    monkeypatch.setattr(words, "EXTENTS_AT_ONCE", 3)
    chance = random.Random(11)
    chunks = 2 * PAGE // CHUNK
    await array.driver.volume_create(array.sr, VolumeSpec(DISK, 2 * PAGE, "d", sm_config={"allocation": "thin"}))
    source = await array.driver.open(array.sr, DISK, opening("a"))
    assert isinstance(source, IscsiSource)
    writer = array.writer(source)
    now: dict[int, int] = {}  # chunk -> when it was written; trimmed: not there
    touched: dict[int, int] = {}  # chunk -> when it was written or trimmed
    states: dict[str, tuple[int, dict[int, int], dict[int, int]]] = {}
    for step in range(STEPS):
        chunk = min(int(chance.expovariate(1 / 60)), chunks - 1)
        match chance.choice(["write"] * 6 + ["trim"] * 2 + ["snapshot", "grow" if step % 3 == 0 else "write"]):
            case "write":
                for one in range(chunk, min(chunk + chance.randrange(1, 4), chunks)):
                    writer.write(one)
                    now[one] = touched[one] = step
            case "trim":
                writer.trim(chunk)
                now.pop(chunk, None)
                touched[chunk] = step
            case "snapshot":
                uuid = f"{len(states):08x}-23c0-4479-a063-f5c34916727d"
                await array.driver.volumes_snapshot(array.sr, [SnapshotSpec(DISK, VolumeSpec(uuid, 0))])
                states[uuid] = (chunks, dict(now), dict(touched))
            case "grow":
                chunks += PAGE // CHUNK
                await array.driver.volume_resize(array.sr, DISK, chunks * CHUNK)
    assert len(states) > 3
    assert chunks > 2 * PAGE // CHUNK
    states[DISK] = (chunks, now, touched)
    before = await array.sessions()
    for older, (_, then, touched_then) in states.items():
        for newer, (size, here, touched_here) in states.items():
            told = await changed_chunks(array, older, newer)
            assert _different(then, here, size) <= told
            assert told <= _different(touched_then, touched_here, size)
    after = await array.sessions()
    assert [(one.session, one.read_bytes, one.written_bytes) for one in after] == [
        (one.session, one.read_bytes, one.written_bytes) for one in before
    ]
    assert await array.driver.openings(array.sr, DISK) == ["a"]


async def test_what_cannot_be_told(bench: Bench, sr: Sr) -> None:
    """By an array that has no word for it, or of disks that have nothing to do with each other."""
    for uuid in (DISK, COPY):
        await bench.driver.volume_create(sr, VolumeSpec(uuid, PAGE, "d", sm_config=SPEC.sm_config))
    (made,) = await bench.driver.volumes_snapshot(sr, [SnapshotSpec(DISK, VolumeSpec(DISK.replace("2", "5"), 0))])
    assert await bench.driver.volume_changes(sr, DISK, COPY) is None
    same = await bench.driver.volume_changes(sr, made.vdi_uuid, made.vdi_uuid)
    assert same is not None
    assert (same.extents, same.next_offset) == ([], None)
    missing = made.vdi_uuid.replace("5", "6")
    assert (await refusal(bench.driver.volume_changes(sr, missing, DISK))).number == 144


ANSWER = """____ Changed Bytes ____
Volume: v
From: monday
To:
Extents: 2
NextOffset: 262144
_______
Offset              Length
------------------- -------------------
65536               65536
196608              65536"""


def test_an_answer_that_is_not_whole_is_none() -> None:
    lines = tuple(ANSWER.splitlines())
    assert output.changes(lines, 0).extents == [(65536, 65536), (196608, 65536)]
    assert output.changes(lines, 65536).next_offset == 262144
    for wrong in (
        lines[:-1],
        lines[:4] + lines[5:],
        lines[:5] + lines[6:],
        (*lines[:-2], lines[-1], lines[-2]),
        (*lines[:-1], "196608              0"),
        (*lines[:-1], "196608              98304"),
        (*lines[:-1], "1966O8              65536"),
    ):
        with pytest.raises((ValueError, KeyError)):
            output.changes(wrong, 0)
    with pytest.raises(ValueError, match="disorder"):
        output.changes(lines, 131072)
