"""Fake machines that move between agents' processes, by the way of real ones: from the source's agent over mutual
TLS through the destination's door to a socket there, where ``libvirtd`` would listen.

    prepare    the destination logs in to the disks; from here on both have them open
    finish     the machine's state: it stands there, paused, and outlives its agent
    (answered) the source's machine ends

A connection that is cut before ``finish`` leaves nothing at the destination. If it is cut after that, both have the
machine, as with libvirt: who may go on with it the array and the coordinator decide.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.host.fake import FakeHypervisor
from gespann.host.fake.guest import FakeDomain
from gespann.host.fake.landing import STOOD_STILL_S
from gespann.host.fake.mirrors import Copy, FakeMirrors
from gespann.host.fake.storage import FakeStorage, holder_of
from gespann.host.hypervisor import Told
from gespann.seams.host_agent import DomainSpec
from gespann.seams.host_migration import Landing, MigrateSend
from gespann.seams.json_lines import LINE_LIMIT_BYTES, SeamError
from gespann.system.json_lines import bind_unix
from tests.product.whole.held_disk import BAND, BANDS, HeldDisk

SEEN_BY_OTHERS, SERVED = "landing", "landing.real"  # sockets of RUN; between them there is a test's door
PREPARE, FINISH = "landing.prepare", "landing.finish"
LANDING_OPS = frozenset({PREPARE, FINISH})


class Line(msgspec.Struct):
    id: int
    op: str
    ticket: str
    machine: FakeDomain | None = None


class Answer(msgspec.Struct):
    id: int
    error: str = ""


class HeldMirrors(FakeMirrors):
    """Of disks that are sessions. A copy ends with the agent, as one ends in QEMU when its target goes."""

    def __init__(self, storage: FakeStorage, disk: Callable[[str], HeldDisk]) -> None:
        super().__init__(storage)
        self._disk = disk

    async def _copy_all(self, running: FakeDomain, device: int, copy: Copy) -> None:
        await asyncio.to_thread(self._copy_bands, self._disk(holder_of(running.domain, device)), copy)

    def _copy_bands(self, disk: HeldDisk, copy: Copy) -> None:
        """All that these disks hold; what has just been made holds nothing else."""
        for start in BANDS:
            self._disk(copy.holder).write(start, disk.read(start, BAND))


class MovingHypervisor(FakeHypervisor):
    """``run_dir`` is needed: what has arrived must outlive the process."""

    def __init__(self, *, disk: Callable[[str], HeldDisk], **named: Any) -> None:
        super().__init__(**named)
        self.mirrors = HeldMirrors(self.storage, disk)

    async def open(self, told: Told) -> None:
        assert self.run_dir is not None
        self.migration_socket = self.run_dir / SEEN_BY_OTHERS
        self._expected: dict[str, DomainSpec] = {}  # ticket -> with its disks' secrets
        self._landing: set[str] = set()  # tickets of machines whose disks are open here
        self._landings = await asyncio.start_unix_server(
            self._land, sock=bind_unix(self.run_dir / SERVED, 0o600), limit=LINE_LIMIT_BYTES
        )
        await super().open(told)

    async def close(self) -> None:
        self._landings.close()
        await super().close()

    async def migrate_receive(self, spec: DomainSpec, ticket: str) -> Landing:
        async with self._locks[spec.uuid]:
            self._maybe_fail("migrate_receive")
            if spec.uuid in self._running:
                raise SeamError("EXISTS", f"{spec.uuid} runs here")
            self._check_place(spec)
            self._expected[ticket] = spec
        return Landing(serial_socket="", serial_log="", vnc_socket="")

    async def migrate_send(self, request: MigrateSend, relay: Path | None) -> float | None:
        assert relay is not None
        async with self._locks[request.uuid]:
            self._maybe_fail("migrate_send")
            leaving = self._find(request.uuid)
            if leaving.domain.start_id != request.start_id:
                raise SeamError("NOT_FOUND", f"{request.uuid} start {request.start_id} does not run here")
            try:
                await self._carry(leaving, request, relay)
            except (OSError, EOFError) as lost:
                raise SeamError("HYPERVISOR", f"the connection to the destination is lost: {lost}") from lost
            await self._stop(leaving, "migrated")
        return STOOD_STILL_S

    async def _carry(self, leaving: FakeDomain, request: MigrateSend, relay: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(relay), limit=LINE_LIMIT_BYTES)

        async def ask(line: Line) -> None:
            writer.write(msgspec.json.encode(line) + b"\n")
            answer = msgspec.json.decode(await reader.readuntil(b"\n"), type=Answer)
            if answer.error:
                raise SeamError("HYPERVISOR", answer.error)

        try:
            await ask(Line(1, PREPARE, request.ticket))
            await self._sending.take(request.uuid, self._behaviour(request.uuid).send_s)
            await ask(Line(2, FINISH, request.ticket, leaving))
        finally:
            writer.close()

    async def migrate_end(self, uuid: str, ticket: str) -> None:
        async with self._locks[uuid]:
            await self._give_up(ticket)

    # --- at the destination

    async def _land(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ticket = ""
        try:
            while data := await reader.readline():
                line = msgspec.json.decode(data, type=Line)
                ticket, answer = line.ticket, Answer(line.id)
                try:
                    await self._obey(line)
                except SeamError as error:
                    answer.error = f"{error.code}: {error.message}"
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(KeyError):
                async with self._locks[self._expected[ticket].uuid]:
                    await self._give_up(ticket)

    async def _obey(self, line: Line) -> None:
        spec = self._spec(line.ticket)
        async with self._locks[spec.uuid]:
            spec = self._spec(line.ticket)  # it may have been ended meanwhile
            if line.op == PREPARE:
                async with self._opened(spec):
                    self._landing.add(line.ticket)
                return
            if line.machine is None or line.ticket not in self._landing:
                raise SeamError("BAD_STATE", "nothing was prepared")
            arrived = await self._start(msgspec.structs.replace(spec, paused=True))
            arrived.go_on_from(line.machine)
            self._save()
            self._landing.discard(line.ticket)
            del self._expected[line.ticket]

    def _spec(self, ticket: str) -> DomainSpec:
        if ticket not in self._expected:
            raise SeamError("BAD_STATE", "no machine is expected by this ticket")
        return self._expected[ticket]

    async def _give_up(self, ticket: str) -> None:
        """Of what has not arrived whole nothing stays."""
        spec = self._expected.pop(ticket, None)
        if spec is not None and ticket in self._landing:
            self._landing.discard(ticket)
            for disk in spec.disks:
                await self.storage.close(f"{spec.uuid}/{spec.start_id}/{disk.device}")
