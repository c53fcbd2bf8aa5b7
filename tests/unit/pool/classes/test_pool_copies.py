"""VDI.copy and VM.copy: into a new disk, into one that is there, and of differences only."""

import asyncio

import pytest

from gespann.host.fake.nbd import NbdSession
from gespann.pool.api.tasks import Task
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until


async def refusal(world: World, *params: str) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await world.call("VDI.copy", *params)
    return [caught.value.code, *caught.value.params]


async def test_into_a_disk_that_is_there(world: World) -> None:
    sr = await world.make_sr()
    source, target = await world.make_vdi(sr, "source"), await world.make_vdi(sr, "target", virtual_size=45 * MIB)
    world.medium(source).write(7 * MIB, b"the quick brown fox")
    world.medium(target).write(7 * MIB, b"what was there")
    world.medium(target).write(40 * MIB, b"behind the end of the source")
    assert await world.call("VDI.copy", source, NULL_REF, NULL_REF, target) == target
    assert world.medium(target).read(7 * MIB, 19) == b"the quick brown fox"
    assert world.medium(target).read(40 * MIB, 28) == b"behind the end of the source"
    assert world.get("VDI", target)["name_label"] == "target"
    assert world.openings() == []


async def test_only_what_differs_from_the_base(world: World) -> None:
    sr = await world.make_sr()
    source, base, target = [await world.make_vdi(sr, name) for name in ("source", "base", "target")]
    for vdi in (source, base):
        world.medium(vdi).write(2 * MIB, b"same")
    world.medium(source).write(9 * MIB + 5, b"new")
    world.medium(base).write(20 * MIB, b"gone in the source")
    world.medium(target).write(20 * MIB, b"gone in the source")
    world.medium(target).write(25 * MIB, b"own")
    await world.call("VDI.copy", source, NULL_REF, base, target)
    held = world.medium(target)
    assert held.read(2 * MIB, 4) == bytes(4)
    assert held.read(9 * MIB + 5, 3) == b"new"
    assert held.read(20 * MIB, 18) == bytes(18)
    assert held.read(25 * MIB, 3) == b"own"

    fresh = await world.call("VDI.copy", source, sr, base)
    assert world.medium(fresh).read(9 * MIB + 5, 3) == b"new"
    assert world.medium(fresh).read(2 * MIB, 4) == bytes(4)
    assert world.openings() == []


async def test_a_target_that_cannot_take_it(world: World) -> None:
    sr = await world.make_sr()
    source, small = await world.make_vdi(sr, virtual_size=45 * MIB), await world.make_vdi(sr)
    locked = await world.make_vdi(sr, virtual_size=45 * MIB, read_only=True)
    assert await refusal(world, source, NULL_REF, NULL_REF, small) == ["VDI_TOO_SMALL", small, str(45 * MIB)]
    assert await refusal(world, source, NULL_REF, NULL_REF, locked) == ["VDI_READONLY", locked]
    assert await refusal(world, source, NULL_REF, NULL_REF, source) == ["INVALID_VALUE", "into_vdi", source]
    vm = await world.make_vm_with_disk(sr)
    used = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    await world.call("VM.start", vm, False, False)
    assert await refusal(world, small, NULL_REF, NULL_REF, used) == ["VDI_IN_USE", used, "copy"]
    assert await refusal(world, small, NULL_REF, used, source) == ["VDI_IN_USE", used, "copy"]
    assert len(world.openings()) == 1


async def test_a_cancelled_copy_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, two = await vm_with_contents(world)
    before = world.snapshot()
    asked = asyncio.Event()
    command = NbdSession._command

    async def hang(session: NbdSession) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return await command(session)

    monkeypatch.setattr(NbdSession, "_command", hang)
    task = await world.call("Async.VM.copy", vm, "copy", two)
    await asyncio.wait_for(asked.wait(), 120)
    await world.call("task.cancel", task)
    await until(lambda: world.get("task", task)["status"] not in ("pending", "cancelling"))
    assert world.get("task", task)["status"] == "cancelled"
    assert world.snapshot() == before


async def test_progress_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, two = await vm_with_contents(world)
    told: list[float] = []
    monkeypatch.setattr(Task, "set_progress", lambda self, fraction: told.append(fraction))
    task = await world.call("Async.VM.copy", vm, "copy", two)
    await until(lambda: world.get("task", task)["status"] != "pending")
    assert world.get("task", task)["status"] == "success"
    assert told == sorted(told)
    assert len({fraction for fraction in told if 0.1 < fraction < 0.9}) > 2


async def vm_with_contents(world: World) -> tuple[str, str]:
    """A VM with a large disk, and another SR."""
    one, two = await world.make_sr("one"), await world.make_sr("two")
    vm = await world.make_vm()
    disk = await world.make_vdi(one, virtual_size=900 * MIB)
    await world.make_vbd(vm, disk)
    for at in range(0, 900 * MIB, 16 * MIB):
        world.medium(disk).write(at, b"contents")
    return vm, two
