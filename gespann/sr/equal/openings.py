"""Who may use a volume or a snapshot of one: one access record and one CHAP user per opening, with the opening's id in
the user's name, so that what is in force is always read from the array. The records of snapshots are records of their
volume that apply to snapshots; the user's name says to which one, by its uuid's first 20 hex digits.

    closed: offline, no record ──grant──► chap user ► record ► online: open
      ▲                                                                  │
      └── record gone ◄ chap user gone ◄ no connection left ◄ offline ◄──┘ revoke

The record is made after its user and removed after it: while anything of an opening could still be used, ``openings``
lists it. Going offline is what drops sessions; removing a record would leave them alive. A group has no way to drop one
session of a volume, so when several read-only openings share it, closing one interrupts the others until their
initiators log in again. A record for snapshots admits to every snapshot of the volume that is online
(docs/decisions/vm-snapshots.md says why that is acceptable).

A machine that moves between hosts has two openings for a while. A group that knows leases lets only the initiator of
the first write, and from ``hand_over`` on only that of the second; to one that does not (a PS group) both are alike,
and ``hand_over`` ends the first. When the first is closed and the group tells that only the second has a connection,
nobody is interrupted.
"""

import logging
import re
from dataclasses import dataclass
from typing import Literal

from gespann.seams.host_agent import IscsiSource
from gespann.seams.sr_driver import Opening, SrError
from gespann.sr.equal import errors, output, words
from gespann.sr.equal.connection import Timing
from gespann.sr.equal.group import AccessRecord, ArraySnapshot, ArrayVolume, Group
from gespann.sr.equal.words import Door
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

ISCSI_PORT = 3260  # RFC 7143 section 4.2.6; a real group has no other
Mode = Literal["RO", "RW"]

_OPENING_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,50}\Z")
_CHAP_USER = re.compile(r"gespann-(?P<mode>rw|ro)(-|\.(?P<snapshot>[0-9a-f]{20})\.)(?P<opening_id>.+)\Z")
_UUID_DIGITS = 20  # of a snapshot, at the end of its name
_USER_CHARS = 63


@dataclass(frozen=True)
class Held:
    opening_id: str
    mode: Mode
    record: AccessRecord


def chap_user(door: Door, opening_id: str, mode: Mode) -> str:
    """At most 63 characters, all of the alphabet of volume names."""
    which = f".{door.snapshot[-_UUID_DIGITS:]}." if door.snapshot else "-"
    user = f"gespann-{mode.lower()}{which}{opening_id}"
    if not _OPENING_ID.match(opening_id) or len(user) > _USER_CHARS:
        most = _USER_CHARS - len(user) + len(opening_id)
        why = f"Not an opening id: up to {min(most, 51)} letters, digits, '-', '.' and ':'"
        raise SrError(errors.BAD_ARGUMENT, why, opening_id[:80])
    return user


def held(records: list[AccessRecord], door: Door) -> tuple[list[Held], list[AccessRecord]]:
    """The openings of this door among the records, and the records that let somebody else in by it."""
    kind, which = ("snapshot", door.snapshot[-_UUID_DIGITS:]) if door.snapshot else ("volume", None)
    ours: list[Held] = []
    foreign: list[AccessRecord] = []
    for record in records:
        found = _CHAP_USER.match(record.chap_user)
        if found is None:
            foreign += [record] if record.apply_to in (kind, "both") else []
        elif found["snapshot"] == which:
            ours.append(Held(found["opening_id"], "RW" if found["mode"] == "rw" else "RO", record))
    return ours, foreign


def refuse_conflict(records: list[AccessRecord], opening: Opening, door: Door) -> None:
    ours, foreign = held(records, door)
    if foreign:
        who = ", ".join(f"record {r.id} ({r.initiator or r.chap_user or 'anybody'})" for r in foreign)
        raise SrError(
            errors.VDI_IN_USE, "The volume is open to somebody else: remove the record on the array first", who
        )
    others = [one for one in ours if one.opening_id not in (opening.opening_id, opening.beside)]
    if others and (opening.mode == "RW" or any(one.mode == "RW" for one in others)):
        raise SrError(errors.VDI_IN_USE, "The VDI is in use", ", ".join(sorted(one.opening_id for one in others)))


class Openings:
    def __init__(self, group: Group, clock: Clock, timing: Timing, iscsi_port: int = ISCSI_PORT) -> None:
        self._group = group
        self._iscsi_port = iscsi_port
        self._clock = clock
        self._timing = timing

    async def grant(self, door: Door, seen: ArrayVolume | None, opening: Opening, host: str) -> IscsiSource:
        """``seen``: a volume as the group has just shown it."""
        user = chap_user(door, opening.opening_id, opening.mode)
        create_user = words.chap_user_create(user, opening.chap_secret)
        create_record = words.access_create(door, opening.initiator, user)
        records = await self._group.access_records(door.volume)
        refuse_conflict(records, opening, door)
        ours, _ = held(records, door)
        repeated = any(one.opening_id == opening.opening_id for one in ours)
        volume = await (self._group.look(door) if ours else self.shut(door, seen))
        if volume is None:
            raise SrError(errors.VDI_MISSING, "The volume has gone from the group", _name(door))
        try:
            if opening.beside:
                await self._keep_right(door, opening, ours)
            await self._prepare(door, volume, opening.mode, shared=bool(opening.beside))
            await self._make_chap_user(user, opening.chap_secret, create_user)
            if not repeated:
                await self._group.run(create_record)
                refuse_conflict(await self._group.access_records(door.volume), opening, door)
            if not volume.online:
                await self._group.run(words.door_set(door, "online"))
        except (SrError, errors.CliRefusal):
            if not repeated:
                await self._undo(door, opening.opening_id)
            raise
        return IscsiSource(
            host=host,
            port=self._iscsi_port,
            target=volume.target,
            initiator=opening.initiator,
            chap_user=user,
            chap_secret=opening.chap_secret,
        )

    async def _keep_right(self, door: Door, opening: Opening, ours: list[Held]) -> None:
        """Who is there goes on writing, and nobody else. Repeated after the right has moved it changes nothing."""
        before = [one.record.initiator for one in ours if (one.opening_id, one.mode) == (opening.beside, "RW")]
        if before and not door.snapshot and not any(one.opening_id == opening.opening_id for one in ours):
            await self._lease(door, before[0])

    async def _lease(self, door: Door, initiator: str, instead_of: str = "") -> bool:
        """False: this group has no leases."""
        try:
            await self._group.run(words.lease_grant(door.volume, initiator, instead_of))
        except errors.CliRefusal as refusal:
            if not refusal.unknown:
                raise
            log.debug("%s: the group has no leases", door.volume)
            return False
        return True

    async def hand_over(self, door: Door, opening_id: str, to_opening_id: str) -> None:
        ours, _ = held(await self._group.access_records(door.volume), door)
        there = {one.opening_id: one for one in ours}
        if to_opening_id not in there:
            raise SrError(errors.VDI_UNAVAILABLE, "The volume is not open to who is to have it", to_opening_id)
        ends, goes_on = there.get(opening_id), there[to_opening_id]
        if ends is not None and (ends.mode, goes_on.mode) == ("RO", "RO"):
            return
        if ends is None or not await self._lease(door, goes_on.record.initiator, instead_of=ends.record.initiator):
            await self.revoke(door, opening_id)

    async def revoke(self, door: Door, opening_id: str, seen: ArrayVolume | None = None) -> None:
        users = {chap_user(door, opening_id, "RW"), chap_user(door, opening_id, "RO")}
        volume = seen or await self._group.look(door)
        if volume is None:
            await self._revoke_what_is_gone(door, opening_id, users)
            return
        ours, _ = held(await self._group.access_records(door.volume), door)
        ended = [one for one in ours if one.opening_id == opening_id]
        others = [one for one in ours if one.opening_id != opening_id]
        if ended and others and await self._hand_over(door, ended, others):
            return
        if ended or not others:
            await self.shut(door, volume)
        for user in sorted({one.record.chap_user for one in ended} or users):
            await self._group.run_unless_missing(words.chap_user_delete(user))
        await self._delete_records(door, ended)
        if others and (ended or not volume.online):
            if all(one.mode == "RW" for one in others):
                await self._group.run(words.door_set(door, "multihost-access", "disable"))
            await self._group.run(words.door_set(door, "online"))
        elif [one.mode for one in others] == ["RW"] and volume.multihost_access:  # an earlier try ended before this
            await self._group.run(words.door_set(door, "multihost-access", "disable"))

    async def _hand_over(self, door: Door, ended: list[Held], others: list[Held]) -> bool:
        """A writable volume changes hands without an interruption: nobody can log in under the old name any more, and
        nobody is logged in under it. False: somebody is, or the group does not tell; he has to be dropped."""
        if door.snapshot or any(one.mode != "RW" for one in [*ended, *others]):
            return False
        for one in ended:
            await self._group.run_unless_missing(words.chap_user_delete(one.record.chap_user))
        volume, connected = await self._group.look(door), await self._group.connected_initiators(door.volume)
        if volume is None or connected is None or len(connected) != volume.connections:
            return False
        if not set(connected) <= {one.record.initiator for one in others}:
            return False
        await self._delete_records(door, ended)
        await self._group.run(words.door_set(door, "multihost-access", "disable"))
        return True

    async def _revoke_what_is_gone(self, door: Door, opening_id: str, users: set[str]) -> None:
        """The records of a snapshot outlive it; those of a volume do not."""
        for user in sorted(users):
            await self._group.run_unless_missing(words.chap_user_delete(user))
        if door.snapshot and await self._group.volume(door.volume) is not None:
            ours, _ = held(await self._group.access_records(door.volume), door)
            await self._delete_records(door, [one for one in ours if one.opening_id == opening_id])

    async def _delete_records(self, door: Door, ended: list[Held]) -> None:
        for one in ended:
            await self._group.run_unless_missing(words.access_delete(door.volume, one.record.id))

    async def revoke_all(self, door: Door, seen: ArrayVolume | None = None) -> None:
        """Before it is deleted, or kept for its snapshots only."""
        await self.shut(door, seen)
        ours, _ = held(await self._group.access_records(door.volume), door)
        for one in ours:
            await self._group.run_unless_missing(words.chap_user_delete(one.record.chap_user))
        await self._delete_records(door, ours)

    async def in_force(self, door: Door) -> list[str]:
        return sorted({one.opening_id for one in held(await self._group.access_records(door.volume), door)[0]})

    async def shut(
        self, door: Door, seen: ArrayVolume | ArraySnapshot | None = None
    ) -> ArrayVolume | ArraySnapshot | None:
        """Offline, and answered only when the array counts no connection any more. ``offline`` is sent also to a volume
        that shows itself offline: an earlier try may have been refused while commands were still under way. None: there
        is no such volume. ``seen``: as the group has just shown it; if nobody was in it, that is not asked again."""
        try:
            await self._group.run(words.door_set(door, "offline"))
        except errors.CliRefusal as refusal:
            if refusal.missing:
                return None
            volume = await self._group.look(door)
            if volume is None or volume.online or "already" not in refusal.text:
                raise
        else:
            if seen is not None and not seen.online and seen.connections == 0:
                return seen
        deadline_s = self._clock.monotonic_s() + self._timing.drain_timeout_s
        while (volume := await self._group.look(door)) is not None and (volume.online or volume.connections > 0):
            if self._clock.monotonic_s() >= deadline_s:
                raise SrError(
                    errors.VDI_UNAVAILABLE,
                    "The volume was set offline and the array still counts connections to it",
                    f"{_name(door)}: {volume.connections} after {self._timing.drain_timeout_s:g} s",
                )
            await self._clock.sleep(self._timing.drain_poll_s)
        return volume

    async def _prepare(self, door: Door, volume: ArrayVolume | ArraySnapshot, mode: Mode, *, shared: bool) -> None:
        """The array itself refuses writes to a read-only opening, and a second initiator to a writable one, unless it
        is to be ``shared``: on its way from one host to another."""
        wanted_read_only = mode == "RO"
        if volume.read_only != wanted_read_only:
            await self._group.run(words.door_set(door, "read-only" if wanted_read_only else "read-write"))
        if (wanted_read_only or shared) and not volume.multihost_access:
            await self._group.run(words.door_set(door, "multihost-access", "enable"))
        elif not (wanted_read_only or shared) and volume.multihost_access:
            await self._group.run(words.door_set(door, "multihost-access", "disable"))

    async def _make_chap_user(self, user: str, secret: str, create: words.Line) -> None:
        """A user of that name is from an earlier try of the same opening; if the array shows its password and it is
        another one, it is made anew."""
        try:
            await self._group.run(create)
            return
        except errors.CliRefusal as refused:
            shown = await self._password_of(user)
            if shown is None:
                raise refused
        if shown in ("", secret) or set(shown) == {"*"}:
            return
        await self._group.run_unless_missing(words.chap_user_delete(user))
        await self._group.run(create)

    async def _password_of(self, user: str) -> str | None:
        """As far as the group shows it; none: there is no such user."""
        try:
            reply = await self._group.connection.run(words.chap_user_show(user))
        except errors.CliRefusal as refusal:
            if not refusal.missing:
                raise
            return None
        return output.detail(reply.lines).get("Password", "")

    async def _undo(self, door: Door, opening_id: str) -> None:
        """The first error is what the caller hears. What could not be undone is found by the records or by repeating
        ``open`` or ``close``."""
        try:
            await self.revoke(door, opening_id)
        except (SrError, errors.CliRefusal) as failure:
            log.warning("opening %s of %s could not be undone: %s", opening_id, _name(door), failure)


def _name(door: Door) -> str:
    return door.snapshot or door.volume
