"""Three generic tests over every journalled operation: each call to the world outside fails in turn, before its effect
and after it; each step is done twice; the coordinator dies at each of those moments and comes up again.

Whatever happens, the world is as it was before or as the finished operation leaves it, and the next try works.
"""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gespann.pool.plan.shapes import OPERATIONS
from gespann.pool.steps.registry import STEPS, Run
from gespann.seams.xenapi.errors import XenApiError
from gespann.sr.memory import Crash
from tests.unit.pool import scenes
from tests.unit.pool.bond_scenes import BOND_SCENES
from tests.unit.pool.network_scenes import NETWORK_SCENES
from tests.unit.pool.scenes import Scene
from tests.unit.pool.world import World, until

SCENES = {**scenes.SCENES, **NETWORK_SCENES, **BOND_SCENES}


def test_every_operation_has_a_scene() -> None:
    assert {name.partition(" ")[0] for name in SCENES} == OPERATIONS


async def set_up(path: Path, scene: Scene) -> tuple[World, Any]:
    world = await World.begin(path)
    subject = await scene.prepare(world)
    await settle(world)
    world.moments.passed.clear()
    return world, subject


async def settle(world: World) -> None:
    """Guests have booted, and the reconciler has nothing left to say."""
    await until(lambda: all(r.has_address or r.domain.state == "paused" for r in world.running().values()))
    await until(lambda: world.reconciler.quiet and set(world.work._under_way) == set(world.work._stalled))


async def undisturbed(path: Path, scene: Scene) -> tuple[list[str], Any, Any]:
    world, subject = await set_up(path, scene)
    before = world.shape()
    await scene.request(world, subject)
    await settle(world)
    passed, after = list(world.moments.passed), world.shape()
    assert world.work.journal.entries() == []
    world.assert_nothing_orphaned()
    await world.end()
    return passed, before, after


async def check(world: World, scene: Scene, subject: Any, snapshot: Any, before: Any, after: Any, where: str) -> None:
    await settle(world)
    assert world.work.stalled == [], where
    assert world.work.journal.entries() == [], where
    shape = world.shape()
    assert shape in (before, after), where
    if shape == before and before != after:
        assert world.snapshot() == snapshot, where
        await scene.request(world, subject)
        await settle(world)
        assert world.shape() == after, f"{where}, then again"
    world.assert_nothing_orphaned()
    assert await world.reconciler.sweep() == 0, where


@pytest.mark.parametrize("name", sorted(SCENES))
async def test_each_call_fails_in_turn(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]
    passed, before, after = await undisturbed(tmp_path / "undisturbed", scene)
    for index, moment in enumerate(passed):
        world, subject = await set_up(tmp_path / str(index), scene)
        snapshot = world.snapshot()
        world.moments.fail_at = index
        with contextlib.suppress(XenApiError):
            await scene.request(world, subject)
        assert len(world.moments.passed) > index
        await check(world, scene, subject, snapshot, before, after, f"{name}, failed {moment}")
        await world.end()


@pytest.mark.parametrize("name", sorted(SCENES))
async def test_the_coordinator_dies_at_each_call_in_turn(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]
    passed, before, after = await undisturbed(tmp_path / "undisturbed", scene)
    for index, moment in enumerate(passed):
        world, subject = await set_up(tmp_path / str(index), scene)
        snapshot = world.snapshot()
        world.moments.fail_at, world.moments.crash = index, True
        with pytest.raises(Crash):
            await scene.request(world, subject)
        assert_no_secret_is_written(world)
        await world.power_cut()
        await world.boot()
        await check(world, scene, subject, snapshot, before, after, f"{name}, dead {moment}")
        await world.end()


@pytest.mark.parametrize("name", sorted(SCENES))
async def test_each_step_done_twice_is_harmless(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SCENES[name]
    _, _, after = await undisturbed(tmp_path / "undisturbed", scene)
    world, subject = await set_up(tmp_path / "twice", scene)
    done: list[str] = []
    for step in STEPS.values():
        monkeypatch.setattr(step, "do", _twice(step.do, done))
    await scene.request(world, subject)
    await settle(world)
    assert world.shape() == after
    assert done
    await world.end()


@pytest.mark.parametrize("name", sorted(SCENES))
async def test_each_step_undone_twice_is_harmless(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SCENES[name]
    passed, before, after = await undisturbed(tmp_path / "undisturbed", scene)
    for step in STEPS.values():
        monkeypatch.setattr(step, "undo", _twice(step.undo, []))
    for index, moment in enumerate(passed):
        world, subject = await set_up(tmp_path / str(index), scene)
        snapshot = world.snapshot()
        world.moments.fail_at = index
        with contextlib.suppress(XenApiError):
            await scene.request(world, subject)
        await check(world, scene, subject, snapshot, before, after, f"{name}, failed {moment}")
        await world.end()


def assert_no_secret_is_written(world: World) -> None:
    """Whatever the array has open now: the database's file knows its name, and not its secret."""
    written = "\n".join(world.db.sqlite.iterdump())
    for sr in world.storage.srs.values():
        for volume in sr.volumes.values():
            for opening in volume.openings.values():
                assert opening.chap_secret not in written


def _twice(action: Callable[[Run], Awaitable[None]], done: list[str]) -> Callable[[Run], Awaitable[None]]:
    async def both(run: Run) -> None:
        await action(run)
        await action(run)
        done.append(run.operation_id)

    return both
