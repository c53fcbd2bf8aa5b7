"""What the conformance suite runs against: a driver, an array that it drives, and a look at the array from the side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine, LoginRefused
from gespann.array.data_plane.link import HELLO, EngineClient
from gespann.array.group import Group
from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import SrDriver
from gespann.sr.equal import EqualDriver, Timing
from gespann.sr.equal.openings import ISCSI_PORT
from gespann.sr.memory import MemoryDriver, MemoryStorage
from gespann.system.clock import SystemClock
from gespann.system.json_lines import JsonLinesClient
from tests.conftest import ENGINE
from tests.own_nets import free_port
from tests.seams.array_cli_client.fake_array import FakeArray

PASSWORD = "eql-Secret-7"
TIMING = Timing(
    connect_timeout_s=120.0,
    session_timeout_s=120.0,
    command_timeout_s=120.0,
    read_timeout_s=120.0,
    alive_every_s=40.0,
    drain_poll_s=0.005,
)

Source = IscsiSource | FileSource


@dataclass(frozen=True)
class Bench:
    """``log_in`` is what QEMU would do: true if the array lets it in. ``connections`` counts who is in.
    ``left`` names everything on the array that is not there when it is new."""

    driver: SrDriver
    device_config: dict[str, str]
    log_in: Callable[[Source], Awaitable[bool]]
    connections: Callable[[], Awaitable[int]]
    left: Callable[[], Awaitable[list[str]]]
    fresh_driver: Callable[[], SrDriver]  # as after a restart of the coordinator


Make = Callable[[Path], contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Bench]:
    storage = MemoryStorage()
    inside: list[Source] = []

    async def log_in(source: Source) -> bool:
        admitted = storage.admits(source)
        if admitted:
            inside.append(source)
        return admitted

    async def connections() -> int:
        return sum(storage.admits(source) for source in inside)

    async def left() -> list[str]:
        return storage.leftovers()

    config = {"target": "nowhere", "username": "grpadmin", "password": "grpadmin", "storagepool": "default"}
    yield Bench(MemoryDriver(storage), config, log_in, connections, left, lambda: MemoryDriver(storage))


def drivers() -> contextlib.AbstractAsyncContextManager[Callable[[], EqualDriver]]:
    return drivers_at(ISCSI_PORT)


@contextlib.asynccontextmanager
async def drivers_at(iscsi_port: int) -> AsyncIterator[Callable[[], EqualDriver]]:
    made: list[EqualDriver] = []

    def make() -> EqualDriver:
        made.append(EqualDriver(timing=TIMING, iscsi_port=iscsi_port))
        return made[-1]

    yield make
    for driver in made:
        await driver.shut_down()


@contextlib.asynccontextmanager
async def fake_array(_: Path) -> AsyncIterator[Bench]:
    """The third party: a group as its public transcripts show it, with a volume that drains slowly."""
    array = FakeArray(accounts={"grpadmin": PASSWORD})
    array.state.slow_drain = 2

    async def log_in(source: Source) -> bool:
        assert isinstance(source, IscsiSource)
        return array.state.login(source.target, source.initiator, source.chap_user, source.chap_secret)

    async def connections() -> int:
        return array.state.connections()

    async def left() -> list[str]:
        snapshots = [f"snapshot {name}" for volume in array.state.volumes.values() for name in volume.snapshots]
        return [*array.state.volumes, *array.state.chap_users, *array.state.collections, *snapshots]

    async with array.serve(), drivers() as make:
        yield Bench(make(), array.device_config(), log_in, connections, left, make)


@contextlib.asynccontextmanager
async def our_group(tmp_path: Path) -> AsyncIterator[Bench]:
    """Our own group control over SSH, in this process, above an engine without blocks."""
    engine = FakeEngine(total_bytes=2**40)

    async def log_in(source: Source) -> bool:
        assert isinstance(source, IscsiSource)
        try:
            engine.login(source.target, source.initiator, chap_user=source.chap_user, secret=source.chap_secret)
        except LoginRefused:
            return False
        return True

    async with group_over(engine, tmp_path) as (group, config), drivers() as make:
        yield Bench(make(), config, log_in, lambda: connections_of(group), lambda: left_in(group), make)


@contextlib.asynccontextmanager
async def our_group_and_engine(tmp_path: Path) -> AsyncIterator[Bench]:
    """The whole array: group control, the engine's own process, and QEMU as the initiator."""
    port = free_port()
    client = JsonLinesClient(tmp_path / "engine.sock", hello=HELLO)
    initiators: list[asyncio.subprocess.Process] = []

    async def log_in(source: Source) -> bool:
        assert isinstance(source, IscsiSource)
        return await qemu_opens(source, initiators)

    async with (
        running_engine(tmp_path, port),
        group_over(client, tmp_path) as (group, config),
        drivers_at(port) as make,
    ):
        try:
            yield Bench(make(), config, log_in, lambda: connections_of(group), lambda: left_in(group), make)
        finally:
            for initiator in initiators:
                await ended(initiator)


@contextlib.asynccontextmanager
async def running_engine(tmp_path: Path, port: int) -> AsyncIterator[None]:
    words = ["--data", tmp_path / "engine", "--socket", tmp_path / "engine.sock", "--portal", f"127.0.0.1:{port}"]
    with (tmp_path / "engine.log").open("wb") as told:
        process = await asyncio.create_subprocess_exec(ENGINE, *words, stdout=told, stderr=told)
    try:
        yield
    finally:
        await ended(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def qemu_opens(source: IscsiSource, initiators: list[asyncio.subprocess.Process]) -> bool:
    """QEMU's iSCSI driver, as a guest's disk has it; it stays connected, and connects again when it is dropped."""
    image = f"driver=iscsi,transport=tcp,portal={source.host}:{source.port},target={source.target},lun=0"
    image += f",user={source.chap_user},password-secret=chap,initiator-name={source.initiator}"
    words = ["--object", f"secret,id=chap,data={source.chap_secret}", "--read-only", "--image-opts", image]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("qemu-io", *words, stdin=pipe, stdout=pipe, stderr=pipe)
    initiators.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"length\n")
    said = b""
    async with asyncio.timeout(120):
        while b"iB" not in said and b"bytes" not in said:
            piece = await process.stdout.read(4096)
            if not piece:
                return False
            said += piece
    return True


@contextlib.asynccontextmanager
async def group_over(engine: EngineClient, tmp_path: Path) -> AsyncIterator[tuple[Group, dict[str, str]]]:
    group = Group(tmp_path / "group", engine, SystemClock(), ssh=("127.0.0.1", 0))
    group.set_up("lab", PASSWORD, "127.0.0.1")
    await group.start(wait_for_engine_s=120.0)
    config = {"target": "127.0.0.1", "port": str(group.ssh_port), "username": "grpadmin", "password": PASSWORD}
    try:
        yield group, {**config, "storagepool": "default"}
    finally:
        await group.stop()


async def connections_of(group: Group) -> int:
    return len(await group.control.sessions())


async def left_in(group: Group) -> list[str]:
    control = group.control
    records = [f"record of {v.name}" for v in control.volumes.rows() for _ in control.access.of(v.id)]
    users = [user.name for user in control.chap_users.all()]
    users += [collection.name for collection in control.collections.all()]
    return [*(v.name for v in control.volumes.rows()), *records, *users, *await control.inventory()]


# Every SR type that there is, with the arrays it is tried on. A new line in the registry needs one here.
BENCHES: dict[str, dict[str, Make]] = {
    "memory": {"memory": memory},
    "equal": {"fake-array": fake_array, "our-group": our_group, "our-group-and-engine": our_group_and_engine},
}
WITH_ENGINE = {our_group_and_engine}
# Types that cannot keep all of the promises, and have a file of their own: of ``iso`` the disks are made by hand, and
# on the one LUN of ``lvmoiscsi`` nobody can be shut out alone.
OTHER_TYPES = {"iso": "test_iso.py", "lvmoiscsi": "test_lvmoiscsi.py"}
