"""When a snapshot schedule is due, and what may be said in one. Pure. Times are UTC.

    hourly   min                 daily   hour, min             weekly   days ("Monday,Thursday"), hour, min

``min`` is a quarter of an hour, as in the original. What is not said is 0, and Monday.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from gespann.seams.xenapi.errors import XenApiError

RETAINED_LEAST, RETAINED_MOST = 1, 10
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_KEYS = {"hourly": ("min",), "daily": ("hour", "min"), "weekly": ("days", "hour", "min")}
_MINUTES = ("0", "15", "30", "45")
_WEEK = timedelta(days=7)
_QUARTER = timedelta(minutes=15)
#: one that was due longer ago is told of instead of made up for
LATE = timedelta(minutes=15)


def assert_schedule(frequency: str, schedule: Mapping[str, str]) -> None:
    """INVALID_VALUE with the key and what was given for it."""
    for key, value in schedule.items():
        if key not in _KEYS[frequency] or not _fits(key, value):
            raise XenApiError("INVALID_VALUE", [key, value])


def _fits(key: str, value: str) -> bool:
    match key:
        case "min":
            return value in _MINUTES
        case "hour":
            return value in {str(hour) for hour in range(24)}
        case _:
            return bool(value) and set(_days(value)) <= set(DAYS)


def _days(text: str) -> list[str]:
    return [day.strip() for day in text.split(",")]


def assert_retained(count: int) -> None:
    if not RETAINED_LEAST <= count <= RETAINED_MOST:
        raise XenApiError("INVALID_VALUE", ["retained_snapshots", str(count)])


def kept_keys(frequency: str, schedule: Mapping[str, str]) -> dict[str, str]:
    """What of a schedule still means something when its frequency becomes this one."""
    return {key: value for key, value in schedule.items() if key in _KEYS[frequency]}


def latest_due(frequency: str, schedule: Mapping[str, str], now: datetime) -> datetime:
    """The last moment not after ``now`` at which it was due."""
    moment = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    first = moment - _WEEK
    while moment > first and not _is_due(frequency, schedule, moment):
        moment -= _QUARTER
    return moment


def _is_due(frequency: str, schedule: Mapping[str, str], moment: datetime) -> bool:
    if moment.minute != int(schedule.get("min", "0")):
        return False
    if frequency != "hourly" and moment.hour != int(schedule.get("hour", "0")):
        return False
    return frequency != "weekly" or DAYS[moment.weekday()] in _days(schedule.get("days", DAYS[0]))


def surplus(snapshots: Sequence[tuple[str, Mapping[str, Any]]], retained: int) -> list[str]:
    """Of one VM's snapshots (ref, record) the scheduled ones that are too many, oldest first."""
    ours = [(record["snapshot_time"], ref) for ref, record in snapshots if record["is_vmss_snapshot"]]
    return [ref for _, ref in sorted(ours)[: max(0, len(ours) - retained)]]
