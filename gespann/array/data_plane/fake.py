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

from gespann.seams import engine_socket as seam
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.files import write_durable

CHUNK_BYTES = 64 * 1024
TB = 1024**4


class FakeVolume(msgspec.Struct):
    size_bytes: int
    thick: bool = False
    chunks: set[int] = msgspec.field(default_factory=set)

    @property
    def allocated_bytes(self) -> int:
        return self.size_bytes if self.thick else len(self.chunks) * CHUNK_BYTES


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
        self.total_bytes = total_bytes
        self.foreign_bytes = 0  # what others occupy on the file system
        self.volumes: dict[str, FakeVolume] = {}
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
        self._state_path = state_path
        if state_path is not None and state_path.exists():
            self.volumes = msgspec.json.decode(state_path.read_bytes(), type=dict[str, FakeVolume])

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
        self._save()
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

    def write(self, volume: str, offset: int, length: int) -> None:
        self.volumes[volume].chunks |= set(range(offset // CHUNK_BYTES, -(-(offset + length) // CHUNK_BYTES)))

    def unmap(self, volume: str, offset: int, length: int) -> None:
        self.volumes[volume].chunks -= set(range(-(-offset // CHUNK_BYTES), (offset + length) // CHUNK_BYTES))

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

    def _save(self) -> None:
        if self._state_path is not None:
            write_durable(self._state_path, msgspec.json.encode(self.volumes), 0o600)

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
                return seam.SpaceReply(total_bytes=self.total_bytes, free_bytes=self._free())
            case seam.SessionList(volume=volume):
                sessions = [s for s in self.sessions.values() if volume in (None, s.volume)]
                return seam.SessionListReply(sessions=sessions)
            case seam.SessionDrop():
                return seam.SessionDropReply(dropped=self._drop(request))
            case seam.VolumeList(volume=volume):
                wanted = self.volumes if volume is None else {volume: self._volume(volume)}
                return seam.VolumeListReply(volumes=[self._info(name) for name in wanted])
            case seam.VolumeCreate() | seam.VolumeResize() | seam.VolumeClone() | seam.VolumeThick():
                return self._change_volume(request)
            case seam.VolumeDelete(volume=volume):
                if volume in self.targets:
                    raise SeamError("BUSY", "a target serves it")
                self.volumes.pop(volume, None)
            case seam.VolumeDrain(volume=volume):
                self._volume(volume)
            case _:
                self._set_policy(request)
        return seam.Empty()

    def _set_policy(self, request: seam.Request) -> None:
        match request:
            case seam.Configure(targets=targets, chap_users=chap_users, mutual=mutual):
                for target in targets:
                    self._volume(target.volume)
                self.targets = {target.volume: target for target in targets}
                self.chap_users = {user.user: user.secret for user in chap_users}
                self.mutual = mutual
                self.configured = True
            case seam.TargetPut(target=target):
                self._volume(target.volume)
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

    def _change_volume(self, request: Any) -> seam.VolumeInfo:
        match request:
            case seam.VolumeCreate(volume=name, size_bytes=size, thick=thick):
                self._make(name, FakeVolume(size_bytes=size, thick=thick))
            case seam.VolumeClone(source=source, volume=name, thick=thick):
                origin = self._volume(source)
                self._make(name, FakeVolume(size_bytes=origin.size_bytes, thick=thick, chunks=set(origin.chunks)))
            case seam.VolumeResize(volume=name, size_bytes=size):
                volume = self._volume(name)
                if volume.thick:
                    self._need(size - volume.size_bytes)
                volume.size_bytes = size
                volume.chunks = {chunk for chunk in volume.chunks if chunk * CHUNK_BYTES < size}
            case seam.VolumeThick(volume=name, thick=thick):
                volume = self._volume(name)
                if thick and not volume.thick:
                    self._need(volume.size_bytes - volume.allocated_bytes)
                volume.thick = thick
        return self._info(request.volume)

    def _make(self, name: str, volume: FakeVolume) -> None:
        there = self.volumes.get(name)
        if there is not None:
            if there.size_bytes != volume.size_bytes:
                raise SeamError("EXISTS", f"{name} has {there.size_bytes} bytes")
            return
        if volume.size_bytes <= 0:
            raise SeamError("BAD_REQUEST", "size_bytes")
        self._need(volume.allocated_bytes)
        self.volumes[name] = volume

    def _need(self, size_bytes: int) -> None:
        if size_bytes > self._free():
            raise SeamError("NO_SPACE", "no space left on device")

    def _free(self) -> int:
        return self.total_bytes - self.foreign_bytes - sum(volume.allocated_bytes for volume in self.volumes.values())

    def _volume(self, name: str) -> FakeVolume:
        if name not in self.volumes:
            raise SeamError("NOT_FOUND", f"no volume {name}")
        return self.volumes[name]

    def _info(self, name: str) -> seam.VolumeInfo:
        volume = self._volume(name)
        return seam.VolumeInfo(
            volume=name, size_bytes=volume.size_bytes, allocated_bytes=volume.allocated_bytes, thick=volume.thick
        )


def _admits(access: seam.Access, initiator: str, chap_user: str, address: str) -> bool:
    octets = zip(access.address.split("."), address.split("."), strict=True)
    return (
        access.initiator.lower() in ("", "*", initiator.lower())
        and access.chap_user == chap_user
        and all(wanted in ("*", found) for wanted, found in octets)
    )
