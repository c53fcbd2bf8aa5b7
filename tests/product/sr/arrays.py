"""What the conformance suite runs against: a driver, an array that it drives, and a look at the array from the side."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine, LoginRefused
from gespann.array.group import Group
from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import SrDriver
from gespann.sr.equal import EqualDriver, Timing
from gespann.sr.memory import MemoryDriver, MemoryStorage
from gespann.system.clock import SystemClock
from tests.seams.array_cli_client.fake_array import FakeArray

PASSWORD = "eql-Secret-7"
TIMING = Timing(connect_timeout_s=20.0, command_timeout_s=60.0, drain_poll_s=0.005)

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
    restores_defaults: bool = True


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


@contextlib.asynccontextmanager
async def drivers() -> AsyncIterator[Callable[[], EqualDriver]]:
    made: list[EqualDriver] = []

    def make() -> EqualDriver:
        made.append(EqualDriver(timing=TIMING))
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
        return sum(v.connections for v in array.state.volumes.values() if v.online or v.draining)

    async def left() -> list[str]:
        return [*array.state.volumes, *array.state.chap_users]

    async with array.serve(), drivers() as make:
        yield Bench(make(), array.device_config(), log_in, connections, left, make)


@contextlib.asynccontextmanager
async def our_group(tmp_path: Path) -> AsyncIterator[Bench]:
    """Our own group control over SSH, in this process, above an engine without blocks."""
    engine = FakeEngine(total_bytes=2**40)
    group = Group(tmp_path / "group", engine, SystemClock(), ssh=("127.0.0.1", 0))
    group.set_up("lab", PASSWORD, "127.0.0.1")
    await group.start()

    async def log_in(source: Source) -> bool:
        assert isinstance(source, IscsiSource)
        try:
            engine.login(source.target, source.initiator, chap_user=source.chap_user, secret=source.chap_secret)
        except LoginRefused:
            return False
        return True

    async def connections() -> int:
        return len(engine.sessions)

    async def left() -> list[str]:
        control = group.control
        records = [f"record of {v.name}" for v in control.volumes.rows() for _ in control.access.of(v.id)]
        users = [user.name for user in control.chap_users.all()]
        return [*(v.name for v in control.volumes.rows()), *records, *users, *engine.volumes]

    config = {"target": "127.0.0.1", "port": str(group.ssh_port), "username": "grpadmin", "password": PASSWORD}
    try:
        async with drivers() as make:
            yield Bench(make(), {**config, "storagepool": "default"}, log_in, connections, left, make)
    finally:
        await group.stop()


# Every SR type that there is, with the arrays it is tried on. A new line in the registry needs one here.
BENCHES: dict[str, dict[str, Make]] = {
    "memory": {"memory": memory},
    "equal": {"fake-array": fake_array, "our-group": our_group},
}
