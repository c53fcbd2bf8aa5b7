"""When schedules run, what they keep, and what happens when they cannot."""

import asyncio
from datetime import UTC, datetime

import pytest

from gespann.array.model.records import Schedule
from gespann.array.model.schedules import next_due
from gespann.array.model.sizes import GB

NOW = datetime(2010, 2, 16, 9, 30, tzinfo=UTC)  # where the tests' clock begins


def due(after: str, **settings) -> str:
    fields = {"name": "s", "type": "daily", "start_date": "2010-02-16", "start_minute": 60, **settings}
    found = next_due(Schedule(**fields), datetime.fromisoformat(f"{after}+00:00"))
    return "" if found is None else f"{found:%d %H:%M}"


@pytest.mark.parametrize(
    ("after", "settings", "expected"),
    [
        ("2010-02-16T00:59", {}, "16 01:00"),
        ("2010-02-16T01:00", {}, "17 01:00"),
        ("2010-02-10T12:00", {}, "16 01:00"),
        ("2010-02-28T23:00", {}, "01 01:00"),
        ("2010-02-16T01:00", {"every_minutes": 30, "end_minute": 120}, "16 01:30"),
        ("2010-02-16T01:30", {"every_minutes": 30, "end_minute": 120}, "17 01:00"),  # the end is exclusive
        ("2010-02-16T23:59", {"type": "hourly", "every_minutes": 60}, "17 01:00"),
        ("2010-02-16T13:00", {"type": "hourly", "every_minutes": 60}, "16 14:00"),
        ("2010-02-16T00:00", {"type": "once"}, "16 01:00"),
        ("2010-02-16T01:00", {"type": "once"}, ""),
        ("2010-02-16T00:00", {"type": "weekly", "weekdays": 0b10}, "16 01:00"),  # a Tuesday
        ("2010-02-16T01:00", {"type": "weekly", "weekdays": 0b10}, "23 01:00"),
        ("2010-02-16T01:00", {"type": "weekly", "weekdays": 0b1010001}, "19 01:00"),
        ("2010-02-19T01:00", {"type": "weekly", "weekdays": 0b1010001}, "21 01:00"),
        ("2010-02-16T01:00", {"type": "weekly", "weekdays": 0b10, "every_minutes": 30, "end_minute": 120}, "16 01:30"),
    ],
)
def test_next_time(after, settings, expected):
    assert due(after, **settings) == expected


@pytest.fixture
async def volume(group):
    lifecycle = group.control.lifecycle
    return await lifecycle.create(lifecycle.draft("v", GB, 1, thin=True))


async def run_for(group, hours: int) -> None:
    """Time goes on hour by hour, and the runner looks once each."""
    for _ in range(hours):
        group.clock.advance(3600)
        await group.control.run_schedules()


def names(group, volume) -> list[str]:
    return [one.name for one in group.control.snapshots.of(volume.id)]


async def test_keeps_the_last_of_its_own_and_leaves_others_alone(group, volume):
    control = group.control
    await control.snapshot_lifecycle.create(volume, "by-hand")
    control.schedules.create(volume, "s", NOW, type="hourly", start_minute=0, max_keep=3, read_only=True, online=True)
    await run_for(group, 5)
    assert names(group, volume) == ["by-hand", *(f"v-2010-02-16-{hour}:30:00.1" for hour in (12, 13, 14))]
    last = control.snapshots.of(volume.id)[-1]
    assert (last.read_only, last.online) == (True, True)
    await group.cli("volume select v schedule select s max-keep 1")
    assert names(group, volume) == ["by-hand", "v-2010-02-16-14:30:00.1"]
    await group.cli("volume select v schedule delete s")
    await run_for(group, 3)
    assert names(group, volume) == ["by-hand", "v-2010-02-16-14:30:00.1"]


async def test_collection_keeps_whole_sets(group, volume):
    control = group.control
    other = await control.lifecycle.create(control.lifecycle.draft("w", GB, 1, thin=True))
    collection = control.collections.create("c")
    for one in (volume, other):
        control.collections.add(collection, one)
    control.schedules.create(collection, "s", NOW, type="hourly", start_minute=0, max_keep=2)
    await run_for(group, 4)
    assert [snap.name for snap in control.collections.snaps(collection.id)] == [
        f"c-2010-02-16-{hour}:30:00.1" for hour in (12, 13)
    ]
    assert len(names(group, volume)) == len(names(group, other)) == 2
    requests = [one for one in group.engine.requests if one.op == "volume.snapshot"]
    assert [len(one.pairs) for one in requests] == [2] * 4


async def test_runs_by_itself(group, volume):
    group.control.schedules.create(volume, "s", NOW, type="once", start_date="2010-02-16", start_minute=10 * 60)
    async with asyncio.timeout(120):
        while not names(group, volume):
            group.clock.advance(600)
            await asyncio.sleep(0)
    group.clock.advance(86400)
    await group.control.run_schedules()
    assert len(names(group, volume)) == 1


async def test_what_was_missed_is_made_up_for_once(group, volume):
    group.control.schedules.create(volume, "s", NOW, type="hourly", start_minute=0)
    await group.stop()
    group.clock.advance(10 * 3600)
    await group.start()
    await group.control.run_schedules()
    await group.control.run_schedules()
    assert len(names(group, volume)) == 1


async def test_goes_on_after_a_refusal_and_says_why(group, volume):
    control = group.control
    control.schedules.create(volume, "s", NOW, type="hourly", start_minute=0)
    control.volumes.change(volume.id, snap_reserve=0)
    await run_for(group, 1)
    said = [event.text for event in control.events.recent(9) if event.code == "8.8.1"]
    assert said == [
        "Schedule s of volume v: Volume v has no snapshot reserve. Give it some with snap-reserve.",
    ]
    control.volumes.change(volume.id, snap_reserve=100)
    await run_for(group, 1)
    assert len(names(group, volume)) == 1


async def test_disabled_does_not_run(group, volume):
    group.control.schedules.create(volume, "s", NOW, type="hourly", start_minute=0)
    await group.cli("volume select v schedule select s disable")
    await run_for(group, 2)
    assert names(group, volume) == []
    await group.cli("volume select v schedule select s enable")
    await run_for(group, 1)
    assert len(names(group, volume)) == 1


async def test_a_weekly_one_by_the_words_of_the_group(group, volume):
    words = "volume select v schedule create"
    await group.cli(f"{words} w type weekly start-time 10:00")
    await group.cli(f"{words} x type weekly weekdays mon,thu start-time 10:00")
    assert "Weekdays: tue" in "\n".join(await group.cli("volume select v schedule show w"))
    assert "Weekdays: mon,thu" in "\n".join(await group.cli("volume select v schedule show x"))
    assert "not days of the week" in (await group.cli(f"{words} y type weekly weekdays mon,xyz"))[0]
    assert "Only a weekly schedule" in (await group.cli(f"{words} y type daily weekdays mon"))[0]
    await run_for(group, 24 * 7)
    made = [one.name for one in group.control.snapshots.of(volume.id)]
    assert [name[:13] for name in made] == ["v-2010-02-16-", "v-2010-02-18-", "v-2010-02-22-"], made
