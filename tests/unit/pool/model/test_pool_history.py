"""Whoever reads the history from where he was knows the world as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.model import history
from gespann.pool.model.history import History, HistoryLost

step = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["touch", "del"]))


def play(steps, kept: int = 10_000):
    """The history, and the world (ref -> generation of its last change) after each generation."""
    told, world, worlds = History(100), {}, {100: {}}
    for ref, what in steps:
        if what == "del" and ref not in world:
            continue
        operation = "del" if what == "del" else ("mod" if ref in world else "add")
        told.write([("VM", ref, operation)])
        world = {k: v for k, v in world.items() if k != ref}
        if what == "touch":
            world[ref] = told.generation
        worlds[told.generation] = world
    return told, worlds


def follow(told: History, known: dict[str, int], position: int) -> dict[str, int]:
    world = dict(known)
    for change in told.since(position):
        if change.operation == "del":
            del world[change.ref]  # only what was known may go away
        else:
            assert (change.ref in world) == (change.operation == "mod")
            world[change.ref] = change.generation
    return world


@given(st.lists(step, max_size=30), st.data())
def test_follower_reaches_the_present_from_anywhere(steps, data):
    told, worlds = play(steps)
    position = data.draw(st.sampled_from(sorted(worlds)))
    assert follow(told, worlds[position], position) == worlds[told.generation]


@given(st.lists(step, max_size=30), st.data())
def test_follower_reaches_the_present_when_the_short_memory_is_full(steps, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CHANGES_KEPT", 3)
        told, worlds = play(steps)
        position = data.draw(st.sampled_from(sorted(worlds)))
        assert follow(told, worlds[position], position) == worlds[told.generation]


def test_what_came_and_went_is_not_told():
    told = History(0)
    told.write([("VM", "a", "add")])
    told.write([("VM", "a", "del")])
    assert told.since(0) == []


def test_deletions_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(history, "DELETIONS_KEPT", 2)
    told = History(0)
    told.write([("VM", ref, "add") for ref in "abcd"])
    for ref in "abcd":
        told.write([("VM", ref, "del")])
    assert [change.ref for change in told.since(3)] == ["c", "d"]
    with pytest.raises(HistoryLost):
        told.since(2)


def test_generations_of_other_runs_are_lost():
    told = History(1000)
    for generation in (0, 999, 1001):
        with pytest.raises(HistoryLost):
            told.since(generation)
    assert told.since(1000) == []
