"""An engine without sockets or disk behind seam 4: for tests, and to run the product where no engine is built.

It keeps the seam's promises (closed until configured, idempotent, durable when given a file), counts what initiators
would write, and can be told to fail: ``fail("volume.create", after=True)``.
"""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.array.data_plane.fake_volumes import FakeVolume, FakeVolumes
from gespann.seams import engine_socket as seam
from gespann.seams.json_lines import SeamError, SeamLost

TB = 1024**4


class Fault(msgspec.Struct):
    op: str
    after: bool
    error: Exception | None  # none: no answer ever comes
    reached: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class LoginRefused(Exception):
    """An initiator is not let in."""


class FakeEngine:
    """Serve it on a socket with ``JsonLinesServer(path, engine.handlers())``, or use it in place of a client."""

    def __init__(self, total_bytes: int = TB, state_path: Path | None = None) -> None:
        self.store = FakeVolumes(total_bytes, state_path)
        self.targets: dict[str, seam.Target] = {}
        self.chap_users: dict[str, str] = {}
        self.mutual: seam.ChapUser | None = None
        self.configured = False
        self.boot_id = uuid.uuid4().hex
        self.sessions: dict[int, seam.Session] = {}
        self.requests: list[seam.Request] = []
        self.on_up: Callable[[Any], None] | None = None
        self.on_down: Callable[[str], None] | None = None
        self.away: str | None = None
        self._faults: list[Fault] = []
        self._numbers = itertools.count(1)

    @property
    def volumes(self) -> dict[str, FakeVolume]:
        return self.store.by_name

    # A client's face -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.away is None and self.on_up is not None:
            self.on_up(self._hello())

    async def close(self) -> None:
        self.on_up = self.on_down = None

    async def call(self, request: seam.Request, timeout_s: float | None = None) -> Any:
        await asyncio.sleep(0)  # like a socket: others get their turn
        if self.away is not None:
            raise SeamLost(self.away)
        self.requests.append(request)
        await self._fault(request.op, after=False)
        reply = self._answer(request)
        self.store.save()
        await self._fault(request.op, after=True)
        return reply

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return dict.fromkeys(seam.REQUESTS, self.call)

    # What a test does to it ------------------------------------------------------------------------------------------

    def fail(self, op: str, *, after: bool = False, error: Exception | None = None, hang: bool = False) -> Fault:
        """The next ``op`` fails once, before or after its effect: with ``error``, or losing the answer, or hanging."""
        fault = Fault(op=op, after=after, error=None if hang else error or SeamLost(f"{op}: fault"))
        self._faults.append(fault)
        return fault

    def lose(self, why: str = "engine killed") -> None:
        """It dies: sessions and policy are gone, volumes stay. ``come_back`` starts it again."""
        self.away = why
        self.sessions.clear()
        self.targets.clear()
        self.chap_users.clear()
        self.mutual = None
        self.configured = False
        self.store.forget_limits()
        if self.on_down is not None:
            self.on_down(why)

    def come_back(self) -> None:
        self.away = None
        self.boot_id = uuid.uuid4().hex
        self.start()

    def login(
        self,
        target_name: str,
        initiator: str,
        *,
        chap_user: str = "",
        secret: str = "",
        address: str = "192.0.2.1",
    ) -> int:
        """A session's number, or LoginRefused with the reason."""
        target = next((target for target in self.targets.values() if target.name == target_name), None)
        if not self.configured or target is None or not target.online:
            raise LoginRefused("not found")
        if chap_user and self.chap_users.get(chap_user) != secret:
            raise LoginRefused("authentication")
        if not any(_admits(access, initiator, chap_user, address) for access in target.access):
            raise LoginRefused("authorization")
        others = {session.initiator for session in self.sessions.values() if session.volume == target.volume}
        if not target.multihost and others - {initiator}:
            raise LoginRefused("another initiator is connected")
        number = next(self._numbers)
        self.sessions[number] = seam.Session(
            session=number,
            volume=target.volume,
            initiator=initiator,
            chap_user=chap_user,
            address=address,
            generation=target.generation,
            connected_ms=0,
            idle_ms=0,
            in_flight=0,
            read_bytes=0,
            written_bytes=0,
        )
        return number

    def logout(self, session: int) -> None:
        self.sessions.pop(session, None)

    def write_as(self, session: int, offset: int, length: int) -> bool:
        """False: another initiator has the right to write."""
        one = self.sessions[session]
        writer = self.targets[one.volume].writer
        if writer and writer.lower() != one.initiator.lower():
            return False
        self.store.write(one.volume, offset, length)
        return True

    def write(self, volume: str, offset: int, length: int) -> None:
        self.store.write(volume, offset, length)

    def unmap(self, volume: str, offset: int, length: int) -> None:
        self.store.unmap(volume, offset, length)

    # The engine itself -----------------------------------------------------------------------------------------------

    async def _fault(self, op: str, *, after: bool) -> None:
        for fault in self._faults:
            if fault.op == op and fault.after == after:
                self._faults.remove(fault)
                fault.reached.set()
                if fault.error is None:
                    await asyncio.Event().wait()
                else:
                    raise fault.error

    def _hello(self) -> seam.HelloReply:
        return seam.HelloReply(
            protocol=seam.PROTOCOL,
            version=seam.VERSION,
            engine_version="fake",
            boot_id=self.boot_id,
            configured=self.configured,
            pid=0,
        )

    def _answer(self, request: seam.Request) -> msgspec.Struct:
        match request:
            case seam.Hello():
                return self._hello()
            case seam.Space():
                return self.store.space()
            case seam.SessionList(volume=volume):
                sessions = [s for s in self.sessions.values() if volume in (None, s.volume)]
                return seam.SessionListReply(sessions=sessions)
            case seam.SessionDrop():
                return seam.SessionDropReply(dropped=self._drop(request))
            case seam.VolumeList(volume=volume):
                wanted = list(self.volumes) if volume is None else [volume]
                return seam.VolumeListReply(volumes=[self.store.info(name) for name in wanted])
            case seam.VolumeCreate() | seam.VolumeResize() | seam.VolumeClone() | seam.VolumeThick():
                return self.store.change(request)
            case seam.VolumeRollback(volume=volume):
                self._refuse_in_use(volume)
                return self.store.change(request)
            case seam.VolumeSnapshot():
                return self.store.snapshot(request)
            case seam.VolumeDiff():
                return self.store.differences(request)
            case seam.VolumeAdded(volume=volume, than=than):
                return self.store.added(volume, than)
            case seam.VolumeUsage(volume=volume):
                return self.store.usage(volume)
            case seam.VolumeDelete(volume=volume):
                if volume in self.targets:
                    raise SeamError("BUSY", "a target serves it")
                self.store.remove(volume)
            case seam.VolumeDrain(volume=volume):
                self.store.find(volume)
            case seam.VolumeLimit():
                self.store.limit_volume(request)
            case seam.SpaceLimit():
                self.store.limit = request
            case seam.SpacePools():
                self.store.set_pools(request)
            case _:
                self._set_policy(request)
        return seam.Empty()

    def _refuse_in_use(self, volume: str) -> None:
        target = self.targets.get(volume)
        if (target is not None and target.online) or any(s.volume == volume for s in self.sessions.values()):
            raise SeamError("BUSY", f"{volume} is online or has sessions")

    def _set_policy(self, request: seam.Request) -> None:
        match request:
            case seam.Configure(targets=targets, chap_users=chap_users, mutual=mutual):
                for target in targets:
                    self.store.find(target.volume)
                self.targets = {target.volume: target for target in targets}
                self.chap_users = {user.user: user.secret for user in chap_users}
                self.mutual = mutual
                self.configured = True
            case seam.TargetPut(target=target):
                self.store.find(target.volume)
                self.targets[target.volume] = target
            case seam.TargetRemove(volume=volume):
                self.targets.pop(volume, None)
            case seam.ChapPut(user=user, secret=secret):
                self.chap_users[user] = secret
            case seam.ChapRemove(user=user):
                self.chap_users.pop(user, None)
            case seam.ChapMutual(credential=credential):
                self.mutual = credential
        self._drop_the_barred()

    def _drop_the_barred(self) -> None:
        for number, session in list(self.sessions.items()):
            target = self.targets.get(session.volume)
            if target is None or not target.online or target.generation != session.generation:
                del self.sessions[number]

    def _drop(self, request: seam.SessionDrop) -> int:
        chosen = [
            number
            for number, session in self.sessions.items()
            if session.volume == request.volume
            and request.initiator in (None, session.initiator)
            and (request.below_generation is None or session.generation < request.below_generation)
        ]
        for number in chosen:
            del self.sessions[number]
        return len(chosen)


def _admits(access: seam.Access, initiator: str, chap_user: str, address: str) -> bool:
    octets = zip(access.address.split("."), address.split("."), strict=True)
    return (
        access.initiator.lower() in ("", "*", initiator.lower())
        and access.chap_user == chap_user
        and all(wanted in ("*", found) for wanted, found in octets)
    )
