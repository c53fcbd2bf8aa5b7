"""Random work, random deaths of the coordinator, also while it recovers: afterwards nothing is orphaned, nothing that
was acknowledged is lost, and the pool goes on working. A seed replays a run."""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.memory import Crash
from tests.unit.pool.world import MIB, World, until

DEATHS = 4
CALLS_PER_LIFE = 12


class Administrator:
    """Does this and that, and remembers what was acknowledged."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.kept_vdis: set[str] = set()
        self.kept_vms: set[str] = set()

    def _any(self, class_name: str) -> str:
        refs = [r for r, rec in self.world.db.all(class_name).items() if not rec.get("is_default_template")]
        return self.chance.choice(refs) if refs else ""

    async def something(self) -> None:
        often = [self.create, self.start, self.start, self.stop, self.clone, self.plug, self.unplug]
        action = self.chance.choice([self.create, *often, self.destroy_vdi, self.destroy_vm, self.resize, self.pause])
        try:
            await action()
        except XenApiError as refused:
            if refused.code == "INTERNAL_ERROR":
                raise

    async def create(self) -> None:
        world = self.world
        vm = await world.make_vm(f"vm{self.chance.randrange(1000)}")
        self.kept_vms.add(vm)
        vdi = await world.make_vdi(self._any("SR"))
        self.kept_vdis.add(vdi)
        await world.make_vbd(vm, vdi)

    async def _on(self, class_name: str, act: Callable[[str], Awaitable[object]]) -> None:
        if ref := self._any(class_name):
            await act(ref)

    async def start(self) -> None:
        await self._on("VM", lambda vm: self.world.call("VM.start", vm, False, False))

    async def stop(self) -> None:
        how = self.chance.choice(["VM.hard_shutdown", "VM.clean_shutdown"])
        await self._on("VM", lambda vm: self.world.call(how, vm))

    async def pause(self) -> None:
        how = self.chance.choice(["VM.pause", "VM.unpause"])
        await self._on("VM", lambda vm: self.world.call(how, vm))

    async def clone(self) -> None:
        if vm := self._any("VM"):
            self.kept_vms.add(await self.world.call("VM.clone", vm, "clone"))

    async def plug(self) -> None:
        if vm := self._any("VM"):
            vdi = await self.world.make_vdi(self._any("SR"))
            self.kept_vdis.add(vdi)
            await self.world.call("VBD.plug", await self.world.make_vbd(vm, vdi))

    async def unplug(self) -> None:
        await self._on("VBD", lambda vbd: self.world.call("VBD.unplug", vbd))

    async def resize(self) -> None:
        size = self.chance.choice([45, 60, 90]) * MIB
        await self._on("VDI", lambda vdi: self.world.call("VDI.resize", vdi, size))

    async def destroy_vdi(self) -> None:
        if vdi := self._any("VDI"):
            self.kept_vdis.discard(vdi)
            await self.world.call("VDI.destroy", vdi)

    async def destroy_vm(self) -> None:
        if vm := self._any("VM"):
            self.kept_vms.discard(vm)
            await self.world.call("VM.destroy", vm)


async def settle(world: World) -> None:
    await until(lambda: world.reconciler.quiet and not world.work._under_way)


def check(world: World, kept: Administrator) -> None:
    db = world.db
    assert (world.work.stalled, world.work.journal.entries()) == ([], [])
    on_array = {uuid for sr in world.storage.srs.values() for uuid in sr.volumes}
    assert on_array == {vdi["uuid"] for vdi in db.all("VDI").values()}
    world.assert_nothing_orphaned()
    assert kept.kept_vdis <= set(db.all("VDI"))
    assert kept.kept_vms <= set(db.all("VM"))


async def rise_again(world: World, chance: random.Random) -> None:
    """It may die again on the way, more than once."""
    for _ in range(chance.randrange(3)):
        try:
            await world.boot(crash_at=chance.randrange(6))
        except Crash:
            await world.power_cut()
        else:
            return
    await world.boot()


@pytest.mark.parametrize("seed", range(20))
async def test_deaths_at_any_time(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    world = await World.begin(tmp_path)
    await world.make_sr()
    administrator = Administrator(world, chance)
    died = 0
    while died < DEATHS:
        world.moments.fail_at = len(world.moments.passed) + chance.randrange(4 * CALLS_PER_LIFE)
        world.moments.crash = True
        try:
            for _ in range(CALLS_PER_LIFE):
                await administrator.something()
        except Crash:
            died += 1
            await world.power_cut()
            await rise_again(world, chance)
        await settle(world)
        check(world, administrator)
    await world.end()
