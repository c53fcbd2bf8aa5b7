"""A lab with the engine on the array and the agent on host1: what the tests of real machines stand on."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gespann.lab import Lab, Node
from gespann.seams import engine_socket as engine_seam
from gespann.seams import host_agent as seam
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system import processes
from gespann.system.json_lines import JsonLinesClient

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / "build/engine/release/gespann-engine"
ROOT_VOLUME = "a" * 32
WAIT_S = 240.0


def guest_image() -> Path:
    ready = ROOT / "var/cache/guest.img"
    if ready.exists():
        return ready
    own = ROOT / "var/cache/guest-of-tests.img"
    processes.run([str(ROOT / "guest/build-tiny"), str(own)], timeout_s=600)
    return own


def apart(work: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine from a fixture that is not one, with a loop of its own."""

    async def run() -> T:
        return await work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(run())).result()


async def until(true: Callable[[], Awaitable[bool]], timeout_s: float = WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not await true():  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.05)


@dataclass
class Site:
    """The lab, and the records that tests give to its volumes."""

    lab: Lab
    targets: dict[str, engine_seam.Target] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> Node:
        return self.lab.node("host1")

    @property
    def array(self) -> Node:
        return self.lab.node("array")

    def up(self) -> None:
        self.lab.up()
        self.array.path("/var/lib/engine").mkdir(parents=True, exist_ok=True)
        self.array.install(
            "engine", [str(ENGINE), "--data", "/var/lib/engine", "--socket", "/run/engine.sock"], cwd="/"
        )
        words = [sys.executable, "-m", "gespann.main.agent", "--run", "/run/gespann", "--data", "/var/lib/gespann"]
        self.host.install("agent", words)

    def agent(self, events: list[seam.Event] | None = None) -> JsonLinesClient:
        return JsonLinesClient(
            self.host.path("/run/gespann/agent.sock"),
            hello=seam.Hello(version=seam.VERSION),
            events=seam.EVENTS,
            on_event=events.append if events is not None else None,
            timeout_s=WAIT_S,
        )

    def engine(self) -> JsonLinesClient:
        hello = engine_seam.Hello(version=engine_seam.VERSION)
        return JsonLinesClient(self.array.path("/run/engine.sock"), hello=hello, timeout_s=WAIT_S)

    # --- volumes and their records

    def target_name(self, volume: str) -> str:
        return f"iqn.2026-01.org.example:{volume}"

    def source(self, volume: str, start: str) -> seam.IscsiSource:
        return seam.IscsiSource(
            host=self.array.address("stor"),
            port=3260,
            target=self.target_name(volume),
            initiator=f"iqn.2026-01.org.example:start-{start}",
            chap_user=f"user-{start}",
            chap_secret=f"secret-of-{start}-0123",
        )

    async def configure(self, engine: JsonLinesClient) -> None:
        chap = [engine_seam.ChapUser(user=user, secret=secret) for user, secret in self.users.items()]
        await engine.call(engine_seam.Configure(targets=list(self.targets.values()), chap_users=chap))

    async def open(self, engine: JsonLinesClient, volume: str, start: str) -> seam.IscsiSource:
        """Gives the volume to this start, and to nobody else."""
        source = self.source(volume, start)
        self.users[source.chap_user] = source.chap_secret
        record = engine_seam.Access(initiator=source.initiator, chap_user=source.chap_user)
        before = self.targets.get(volume)
        self.targets[volume] = engine_seam.Target(
            volume=volume,
            name=self.target_name(volume),
            online=True,
            generation=before.generation + 1 if before else 1,
            access=[record],
        )
        await self.configure(engine)
        return source

    async def sessions(self, engine: JsonLinesClient, volume: str) -> list[engine_seam.Session]:
        reply = await engine.call(engine_seam.SessionList(volume=volume))
        return list(reply.sessions)

    async def ready(self) -> None:
        """Engine and agent answer, and the root volume holds a guest."""
        engine, agent = self.engine(), self.agent()
        try:
            await until(lambda: answers(engine, engine_seam.Space()))
            await until(lambda: answers(agent, seam.DomainList()))
            there = (await engine.call(engine_seam.VolumeList())).volumes
            if ROOT_VOLUME not in {volume.volume for volume in there}:
                await self._fill_root(engine, agent)
        finally:
            await engine.close()
            await agent.close()

    async def _fill_root(self, engine: JsonLinesClient, agent: JsonLinesClient) -> None:
        image = guest_image()
        size = image.stat().st_size
        await engine.call(engine_seam.VolumeCreate(volume=ROOT_VOLUME, size_bytes=size))
        source = await self.open(engine, ROOT_VOLUME, "fill")
        opened = await agent.call(seam.ImageOpen(image_id="fill", source=source))
        nbd = f"nbd+unix:///?socket={self.host.path(opened.socket)}"
        await processes.run_async(["nbdcopy", str(image), nbd], timeout_s=WAIT_S)
        await agent.call(seam.ImageClose(image_id="fill"))


async def answers(client: JsonLinesClient, request: engine_seam.Request) -> bool:
    try:
        await client.call(request, timeout_s=30)
    except (SeamLost, SeamError):
        return False
    return True
