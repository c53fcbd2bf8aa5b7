"""``schedule``: when snapshots of a volume or of a collection are made by themselves. The same words for both."""

from typing import Any

from gespann.array.commands.declare import Command, Flag, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, table, title
from gespann.array.model.names import WEEKDAYS
from gespann.array.model.records import Schedule
from gespann.array.model.schedules import DAY_MINUTES, TYPES, Owner

COLUMNS = (("Name", 20), ("Type", 6), ("Start", 7), ("Keep", 4), ("Status", 8), ("NextRun", 16))
OWNED_COLUMNS = (("Of", 20), *COLUMNS)
TIMES = (
    Option("start-time", "time", key="start_minute", help="UTC, 01:30PM or 13:30; default 00:00"),
    Option("end-time", "time", key="end_minute", help="of the day; no run begins then or later; default 24:00"),
    Option("start-date", "date", help="the first day, 2010-02-16; default today"),
    Option("weekdays", "weekdays", help="of a weekly one; default the weekday of its start date"),
    Option("repeat-frequency", "minutes", key="every_minutes", help="minutes from run to run; default of hourly: 60"),
    Option("max-keep", "keep", help="how many of its snapshots are kept; default 10"),
    Flag("read-write", key="read_only", value=False, help="the default"),
    Flag("read-only", key="read_only", value=True, help="its snapshots refuse writes"),
    Flag("online", key="online", value=True, help="its snapshots may be connected to"),
    Flag("offline", key="online", value=False, help="the default"),
    Flag("enable", key="enabled", value=True, help="the default"),
    Flag("disable", key="enabled", value=False, help="does not run"),
)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _weekdays(one: Schedule) -> list[str]:
    return [day for number, day in enumerate(WEEKDAYS) if one.weekdays >> number & 1]


def _row(one: Schedule) -> tuple[str, ...]:
    due = one.due_at[:16].replace("T", " ") if one.enabled else ""
    state = "enabled" if one.enabled else "disabled"
    return (one.name, one.type, _clock(one.start_minute), str(one.max_keep), state, due)


def _values(one: Schedule) -> list[tuple[str, str]]:
    return [
        ("Name", one.name),
        ("Type", one.type),
        *([("Weekdays", ",".join(_weekdays(one)))] if one.type == "weekly" else []),
        ("Start-Date", one.start_date),
        ("Start-Time", _clock(one.start_minute)),
        ("End-Time", _clock(one.end_minute)),
        ("Repeat-Frequency", f"{one.every_minutes} minutes" if one.every_minutes else ""),
        ("Max-Keep", str(one.max_keep)),
        ("Permission", "read-only" if one.read_only else "read-write"),
        ("Snapshot-Status", "online" if one.online else "offline"),
        ("Status", "enabled" if one.enabled else "disabled"),
        ("Next-Run", one.due_at[:16].replace("T", " ") if one.enabled else ""),
    ]


def _words(owner: str, schedule: str) -> list[Command]:
    """For ``volume`` or ``collection``. ``schedule``: the kind of a schedule's name there."""
    at = f"{owner} select <{owner}> schedule"

    @command(f"{at} create <name:new-schedule> type <type:{'|'.join(TYPES)}>", "Makes a schedule.", *TIMES)
    async def create(session: Session, name: str, type: str, **given: Any) -> Lines:
        of: Owner = given.pop(owner)
        settings = {"start_minute": 0, "end_minute": DAY_MINUTES, **given, "type": type}
        session.control.schedules.create(of, name, session.control.clock.now(), **settings)
        session.control.events.add("INFO", "8.8.5", f"Schedule {name} of {owner} {of.name} created.")
        return ["Schedule creation succeeded."]

    @command(f"{at} delete <schedule:{schedule}>", "Deletes a schedule; the snapshots that it made stay.")
    async def delete(session: Session, schedule: Schedule, **_: Owner) -> Lines:
        session.control.schedules.delete(schedule.id)
        session.context = [level for level in session.context if level.parameter.key != "schedule"]
        return ["Schedule deletion succeeded."]

    @command(f"{at} show", "Lists the schedules.", changes=False)
    async def show(session: Session, **given: Owner) -> Lines:
        return table(COLUMNS, [_row(one) for one in session.control.schedules.of(given[owner])])

    @command(f"{at} show <schedule:{schedule}>", "Shows a schedule.", changes=False)
    async def show_one(session: Session, schedule: Schedule, **_: Owner) -> Lines:
        values = pairs(_values(schedule), session.settings.formatoutput)
        return [title("Schedule Information"), *values, rule()]

    @command(f"{at} select <schedule:{schedule}> show", "Shows the schedule.", changes=False)
    async def select_show(session: Session, schedule: Schedule, **given: Owner) -> Lines:
        return await show_one.run(session, schedule=schedule, **given)

    @command(f"{at} select <schedule:{schedule}> max-keep <keep>", "How many of its snapshots are kept, from now on.")
    async def max_keep(session: Session, schedule: Schedule, keep: int, **_: Owner) -> Lines:
        control = session.control
        await control.runner.keep(control.schedules.change(schedule, control.clock.now(), max_keep=keep))
        return []

    def switch(word: str) -> Command:
        async def run(session: Session, schedule: Schedule, **_: Owner) -> Lines:
            control = session.control
            control.schedules.change(schedule, control.clock.now(), enabled=word == "enable")
            return []

        help = "Lets the schedule run." if word == "enable" else "The schedule does not run."
        return command(f"{at} select <schedule:{schedule}> {word}", help)(run)

    return [create, delete, show, show_one, select_show, max_keep, switch("enable"), switch("disable")]


@command("schedule show", "Lists the schedules of all volumes and collections.", changes=False)
async def show_all(session: Session) -> Lines:
    control = session.control
    owners: list[Owner] = [*control.volumes.all(), *control.collections.all()]
    rows = [(owner.name, *_row(one)) for owner in owners for one in control.schedules.of(owner)]
    return table(OWNED_COLUMNS, rows)


COMMANDS: list[Command] = [*_words("volume", "volume-schedule"), *_words("collection", "collection-schedule"), show_all]
