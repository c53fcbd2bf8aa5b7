"""Schedules of volumes and of collections: when a snapshot is due. All times are UTC.

    once    at its date and time
    daily   each day from its date on at its time and, with a frequency, again and again up to its end time
    hourly  the same with a frequency of an hour, unless it says another
    weekly  as daily, on some days of the week; on that of its date, unless it says which

The end time is exclusive, as in the MIB (eqliscsiVolumeSchedEndTime).
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import Collection, Schedule, Volume
from gespann.array.model.refusals import Conflict, Mistake, not_there

TYPES = ("once", "hourly", "daily", "weekly")
SCHEDULES_MOST = 64  # of one volume or collection
DAY_MINUTES = 24 * 60

Owner = Volume | Collection


def next_due(schedule: Schedule, after: datetime) -> datetime | None:
    """The first time later than ``after``; none: never again. Pure."""
    first_day = date.fromisoformat(schedule.start_date)
    if schedule.type == "once":
        due = _at(first_day, schedule.start_minute)
        return due if due > after else None
    day = max(first_day, after.date())
    for _ in range(8):  # today may be over, and then it may be a week
        for minute in _minutes(schedule) if _runs_on(schedule, day) else ():
            if _at(day, minute) > after:
                return _at(day, minute)
        day += timedelta(days=1)
    return None


def _runs_on(schedule: Schedule, day: date) -> bool:
    return schedule.type != "weekly" or bool(schedule.weekdays >> day.weekday() & 1)


def _minutes(schedule: Schedule) -> range:
    """Minutes of the day at which it runs."""
    if schedule.every_minutes == 0:
        return range(schedule.start_minute, schedule.start_minute + 1)
    return range(schedule.start_minute, schedule.end_minute, schedule.every_minutes)


def _at(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minute)


class Schedules:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Schedule]:
        return self._database.records(Schedule, "SELECT * FROM schedule ORDER BY id")

    def of(self, owner: Owner) -> list[Schedule]:
        sql = f"SELECT * FROM schedule WHERE {_key(owner)} = ? ORDER BY name"  # noqa: S608 - one of two names
        return self._database.records(Schedule, sql, owner.id)

    def get(self, owner: Owner, name: str) -> Schedule:
        for schedule in self.of(owner):
            if schedule.name.lower() == name.lower():
                return schedule
        raise not_there("Schedule", name)

    def get_by_id(self, schedule_id: int, name: str) -> Schedule:
        found = self._database.records(Schedule, "SELECT * FROM schedule WHERE id = ?", schedule_id)
        if not found:
            raise not_there("Schedule", name)
        return found[0]

    def name_of(self, schedule_id: int | None) -> str:
        rows = self._database.rows("SELECT name FROM schedule WHERE id = ?", schedule_id)
        return str(rows[0]["name"]) if rows else ""

    def due(self, now: datetime) -> list[Schedule]:
        sql = "SELECT * FROM schedule WHERE enabled AND due_at != '' AND due_at <= ? ORDER BY due_at, id"
        return self._database.records(Schedule, sql, now.isoformat())

    def create(self, owner: Owner, name: str, now: datetime, **settings: Any) -> Schedule:
        names.schedule_name(name)
        present = self.of(owner)
        if any(schedule.name.lower() == name.lower() for schedule in present):
            raise Conflict(f"Schedule {name} already exists.")
        if len(present) >= SCHEDULES_MOST:
            raise Conflict(f"{SCHEDULES_MOST} schedules are the most that there can be of one volume or collection.")
        if isinstance(owner, Volume) and owner.template:
            raise Conflict(f"Volume {owner.name} is a template: it cannot have schedules.")
        settings.setdefault("start_date", now.date().isoformat())
        if settings["type"] == "hourly":
            settings.setdefault("every_minutes", 60)
        if settings["type"] == "weekly":
            settings.setdefault("weekdays", 1 << date.fromisoformat(settings["start_date"]).weekday())
        elif "weekdays" in settings:
            raise Mistake("Only a weekly schedule has days of the week.")
        draft = Schedule(name=name, **{_key(owner): owner.id, **settings})
        if draft.end_minute <= draft.start_minute:
            raise Mistake("The end time must be later in the day than the start time.")
        due = next_due(draft, now)
        if due is None:
            raise Mistake("That time has passed.")
        with self._database.transaction():
            number = self._database.insert("schedule", draft, leave_out=("id",))
            self._database.run("UPDATE schedule SET due_at = ? WHERE id = ?", due.isoformat(), number)
        return self.get_by_id(number, name)

    def change(self, schedule: Schedule, now: datetime, **changes: Any) -> Schedule:
        """When it runs next is found again from ``now``."""
        with self._database.transaction():
            self._database.update("schedule", "id", schedule.id, changes)
            self.run_at(self.get_by_id(schedule.id, schedule.name), now)
        return self.get_by_id(schedule.id, schedule.name)

    def run_at(self, schedule: Schedule, now: datetime) -> None:
        """It has run: notes when it is due again."""
        due = next_due(schedule, now)
        with self._database.transaction():
            text = "" if due is None else due.isoformat()
            self._database.run("UPDATE schedule SET due_at = ? WHERE id = ?", text, schedule.id)

    def delete(self, schedule_id: int) -> None:
        """The snapshots that it made stay."""
        with self._database.transaction():
            self._database.run("UPDATE snapshot SET schedule_id = NULL WHERE schedule_id = ?", schedule_id)
            self._database.run("UPDATE snap_collection SET schedule_id = NULL WHERE schedule_id = ?", schedule_id)
            self._database.run("DELETE FROM schedule WHERE id = ?", schedule_id)


def _key(owner: Owner) -> str:
    return "volume_id" if isinstance(owner, Volume) else "collection_id"
