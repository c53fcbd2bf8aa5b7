"""What the parameters of commands can be: how each is read, what it is called in help, and what completes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gespann.array.commands.words import BadInput
from gespann.array.control import Control
from gespann.array.model import names
from gespann.array.model.refusals import Mistake
from gespann.array.model.sizes import parse_size, parse_volume_size


def _as_it_is(_: Control, value: Any) -> Any:
    return value


def _none(_: Control) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    help: str
    read: Callable[[Control, Any], Any]  # with ``owner``: of the pair (owner, text)
    again: Callable[[Control, Any], Any] = _as_it_is  # a selected object, as it is now
    label: Callable[[Any], str] = str
    complete: Callable[[Control], list[str]] = _none
    owner: str = ""  # the parameter before it that it belongs to


def _number(low: int, high: int) -> Callable[[Control, str], int]:
    def read(_: Control, untrusted: str) -> int:
        if (
            not untrusted.isascii()
            or not untrusted.isdigit()
            or len(untrusted) > len(str(high)) + 8
            or not low <= int(untrusted) <= high
        ):
            raise BadInput(f'"{untrusted[:40]}" is not a number from {low} to {high}.')
        return int(untrusted)

    return read


def _percent(low: int, high: int) -> Callable[[Control, str], int]:
    return lambda _, untrusted: names.percent(untrusted, low, high)


def _plain(check: Callable[[str], str]) -> Callable[[Control, str], str]:
    return lambda _, untrusted: check(untrusted)


def _no_prompt(check: Callable[[str], str]) -> Callable[[Control, str], str]:
    """Clients wait for the prompt anywhere in the output, so no text that is shown later may hold it."""

    def read(control: Control, untrusted: str) -> str:
        prompt = f"{control.parameters.get('name')}>"  # a table puts the blank behind it
        if prompt in untrusted:
            raise Mistake(f'The text cannot contain "{prompt}": programs would take it for the prompt.')
        return check(untrusted)

    return read


def _member(control: Control, untrusted: str) -> str:
    if untrusted.lower() != MEMBER:
        raise Mistake(f"Member {untrusted[:64]} does not exist.")
    return MEMBER


def _schedule(owner: str) -> Kind:
    return Kind(
        f"name of a schedule of the {owner}",
        lambda control, named: control.schedules.get(named[0], named[1]),
        again=lambda control, schedule: control.schedules.get_by_id(schedule.id, schedule.name),
        label=lambda schedule: str(schedule.name),
        owner=owner,
    )


MEMBER = "member1"  # a group has one until engines can be joined

KINDS: dict[str, Kind] = {
    "volume": Kind(
        "name of a volume",
        lambda control, text: control.volumes.get(text),
        again=lambda control, volume: control.volumes.get_by_id(volume.id, volume.name),
        label=lambda volume: str(volume.name),
        complete=lambda control: [volume.name for volume in control.volumes.all()],
    ),
    "new-volume": Kind("name for a volume: 1 to 63 letters, digits, - . :", _plain(names.volume_name)),
    "snapshot": Kind(
        "name of a snapshot of the volume",
        lambda control, named: control.snapshots.get(named[0].id, named[1]),
        again=lambda control, snapshot: control.snapshots.get_by_id(snapshot.id, snapshot.name),
        label=lambda snapshot: str(snapshot.name),
        owner="volume",
    ),
    "new-snapshot": Kind("name for a snapshot: 1 to 128 letters, digits, - . :", _plain(names.snapshot_name)),
    "collection": Kind(
        "name of a collection",
        lambda control, text: control.collections.get(text),
        again=lambda control, collection: control.collections.get_by_id(collection.id, collection.name),
        label=lambda collection: str(collection.name),
        complete=lambda control: [collection.name for collection in control.collections.all()],
    ),
    "new-collection": Kind("name for a collection: 1 to 63 letters, digits, - . :", _plain(names.collection_name)),
    "snap-collection": Kind(
        "name of a snapshot collection",
        lambda control, named: control.collections.get_snap(named[0].id, named[1]),
        owner="collection",
    ),
    "volume-schedule": _schedule("volume"),
    "collection-schedule": _schedule("collection"),
    "new-schedule": Kind("name for a schedule: 1 to 64 letters, digits, _ - .", _plain(names.schedule_name)),
    "time": Kind("time of day, 01:30PM or 13:30", lambda _, text: names.minute_of_day(text)),
    "weekdays": Kind("days of the week, mon,wed", lambda _, text: names.weekdays(text)),
    "date": Kind("date, 2010-02-16", lambda _, text: names.day(text)),
    "minutes": Kind("minutes, 5 to 720", _number(5, 720)),
    "keep": Kind("number from 1 to 512", _number(1, 512)),
    "pool": Kind(
        "name of a storage pool",
        lambda control, text: control.pools.get(text),
        again=lambda control, pool: control.pools.get(pool.name),
        label=lambda pool: str(pool.name),
        complete=lambda control: [pool.name for pool in control.pools.all()],
    ),
    "new-pool": Kind("name for a storage pool: letters, digits, _", _plain(names.pool_name)),
    "size": Kind("number and MB, GB or TB; a bare number is MB", lambda _, text: parse_volume_size(text)),
    "capacity": Kind("number and MB, GB or TB; a bare number is MB", lambda _, text: parse_size(text)),
    "percent": Kind("percentage, 1% to 100%", _percent(1, 100)),
    "reserve": Kind("percentage, 0% or more", _percent(0, 100_000)),
    "text": Kind("text, in quotes if it has blanks", _no_prompt(names.description)),
    "alias": Kind("text of 64 bytes at most", _no_prompt(names.alias)),
    "initiator": Kind("iSCSI name, or * for any", _no_prompt(names.initiator)),
    "address-pattern": Kind("IP address; each of its parts may be *", _plain(names.address_pattern)),
    "address": Kind("IP address", _plain(names.ip_address)),
    "record": Kind("number of an access control record", _number(1, 16)),
    "chap-user": Kind(
        "name of a CHAP user",
        lambda control, text: control.chap_users.get(text),
        again=lambda control, user: control.chap_users.get(user.name),
        label=lambda user: str(user.name),
        complete=lambda control: [user.name for user in control.chap_users.all()],
    ),
    "user-name": Kind("name for a CHAP user", _no_prompt(names.chap_user_name)),
    "secret": Kind("password", _plain(names.chap_secret)),
    "account": Kind(
        "name of an account",
        lambda control, text: control.accounts.get(text),
        again=lambda control, account: control.accounts.get(account.name),
        label=lambda account: str(account.name),
        complete=lambda control: [account.name for account in control.accounts.all()],
    ),
    "new-account": Kind("name for an account", _plain(names.account_name)),
    "password": Kind("password of 3 to 255 characters", lambda _, text: text),
    "group-name": Kind("name for the group", _plain(names.group_name)),
    "member": Kind("name of a member", _member, complete=lambda _: [MEMBER]),
    "event": Kind("number of an event", _number(0, 2**63 - 1)),
    "bytes": Kind("number of bytes", _number(0, 2**63 - 1)),
    "extents": Kind("number from 1 to 10000", _number(1, 10_000)),
    "count": Kind("number from 1 to 1000", _number(1, 1000)),
    "columns": Kind("number from 20 to 1024", _number(20, 1024)),
    "rows": Kind("number from 0 to 1000; 0 is no limit", _number(0, 1000)),
    "public-key": Kind("OpenSSH public key, in quotes", lambda _, text: text),
    "topic": Kind("word of a command", lambda _, text: text),
}


def choices(kind: str) -> list[str]:
    """The words of a kind like ``on|off``; none for any other."""
    return kind.split("|") if "|" in kind else []


def read_value(control: Control, kind: str, untrusted: str, around: Mapping[str, Any]) -> Any:
    """A parameter's value. BadInput or Mistake if it is not one. ``around``: the parameters before it."""
    words = choices(kind)
    if not words:
        owner = KINDS[kind].owner
        return KINDS[kind].read(control, (around[owner], untrusted) if owner else untrusted)
    fitting = [word for word in words if word == untrusted] or [word for word in words if word.startswith(untrusted)]
    if len(fitting) != 1 or not untrusted:
        raise BadInput(f'"{untrusted[:40]}" is none of: {", ".join(words)}.')
    return fitting[0]
