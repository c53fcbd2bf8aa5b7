"""The agent's door for other machines: TLS 1.3, both certificates pinned. It is shut while nobody is expected.

The coordinator gets the lines of seam 5, and the sockets of consoles and images below RUN. Another host gets libvirt's
socket, for as long as a ticket says that a machine is to arrive from it.
"""

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gespann.host.membership import Membership, NotLeading
from gespann.seams.host_membership import FIRST_LINE_BYTES, Open
from gespann.seams.host_succession import Refusal
from gespann.seams.json_lines import LINE_LIMIT_BYTES
from gespann.system.mutual_tls import fingerprint, notice_silence, peer_fingerprint, server_context
from gespann.system.streams import join

log = logging.getLogger(__name__)

FIRST_LINE_S = 10.0
DROP_AFTER_S = 1.0  # an answer that is on its way may still leave


@dataclass(frozen=True)
class Ticket:
    """A machine may come from the host of this certificate (PEM) by this socket."""

    certificate: str
    socket: Path


class Door:
    def __init__(
        self, membership: Membership, agent_socket: Path, address: str, port: int, *, wide: bool = False
    ) -> None:
        """``wide``: at every address of the host, whatever ``address`` says."""
        self._wide = wide
        self._membership = membership
        self._agent_socket = agent_socket
        self._run_dir = agent_socket.parent
        self._address, self._port = address, port
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tickets: dict[str, Ticket] = {}
        self._joined: dict[asyncio.Task[None], tuple[str, str]] = {}  # -> fingerprint, ticket
        self._led_by: dict[asyncio.Task[None], int] = {}  # -> the epoch of the coordinator that came

    async def open(self) -> None:
        """OSError if the port cannot be had."""
        self._sock = self._listening()
        self._membership.door_port = self._port = self._sock.getsockname()[1]
        self._membership.on_change = self._guests_changed
        await self._guests_changed()

    def _listening(self) -> socket.socket:
        if not self._wide:
            family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
            sock = socket.create_server((self._address, self._port), family=family)
        elif socket.has_dualstack_ipv6():
            sock = socket.create_server(("::", self._port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            sock = socket.create_server(("", self._port))
        sock.setblocking(False)
        return sock

    async def spread(self, wide: bool) -> None:
        """To every address of the host, or back to the one that it was told. What is connected stays. OSError: it is
        as it was."""
        if wide == self._wide:
            return
        if self._server is not None:
            self._server.close()  # the port is one, and cannot be had twice
        assert self._sock is not None
        self._sock.close()
        self._wide = wide
        try:
            self._sock = self._listening()
        except OSError:
            self._wide = not wide
            self._sock = self._listening()
            raise
        finally:
            await self._guests_changed()

    async def close(self) -> None:
        self._membership.on_change = None
        if self._server is not None:
            self._server.close()
        if self._sock is not None:
            self._sock.close()
        await self._drop(list(self._joined))

    async def admit(self, ticket: str, given: Ticket) -> None:
        self._tickets[ticket] = given
        await self._guests_changed()

    async def dismiss(self, ticket: str) -> None:
        """No machine comes by this ticket any more: what it has opened is closed when this returns."""
        if self._tickets.pop(ticket, None) is not None:
            await self._drop([task for task, (_, by) in self._joined.items() if by == ticket])
            await self._guests_changed()

    # --- who is expected

    def _expected(self) -> set[str]:
        expected = {given.certificate for given in self._tickets.values()}
        return expected | {self._membership.coordinator_certificate} - {""}

    async def _guests_changed(self) -> None:
        """The list of certificates belongs to the listening server, so there is a new one; what is connected stays,
        unless it is expected no longer."""
        assert self._sock is not None
        expected = self._expected()
        context = server_context(self._membership.identity, expected)
        server = await asyncio.start_server(
            self._serve, sock=self._sock.dup(), ssl=context, limit=LINE_LIMIT_BYTES, ssl_handshake_timeout=FIRST_LINE_S
        )
        if self._server is not None:
            self._server.close()
        self._server = server
        allowed = {fingerprint(certificate) for certificate in expected}
        unwanted = [task for task, (shown, _) in self._joined.items() if shown not in allowed]
        unwanted += [task for task, epoch in self._led_by.items() if epoch < self._membership.leader[0]]
        if unwanted:
            loop = asyncio.get_running_loop()
            loop.call_later(DROP_AFTER_S, lambda: [task.cancel() for task in unwanted])

    async def _drop(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        shown = peer_fingerprint(writer)
        self._joined[task] = (shown, "")
        notice_silence(writer)
        try:
            async with asyncio.timeout(FIRST_LINE_S):
                line = await reader.readuntil(b"\n")
            if len(line) > FIRST_LINE_BYTES:
                raise ValueError("too long a first line")
            wanted = msgspec.json.decode(line, type=Open)
            path = self._path_for(shown, wanted)
            if wanted.what != "libvirt":
                await self._membership.heed(wanted.epoch, wanted.coordinator_address)
            self._joined[task] = (shown, wanted.ticket)
            near = await asyncio.open_unix_connection(str(path), limit=LINE_LIMIT_BYTES)
        except NotLeading as error:
            epoch, address = self._membership.leader
            self._refuse(writer, task, Refusal(error=str(error), epoch=epoch, coordinator_address=address))
            return
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self._refuse(writer, task, Refusal(error=str(error) or type(error).__name__))
            return
        writer.write(b'{"ok":true}\n')
        if wanted.what != "libvirt":
            self._led_by[task] = wanted.epoch
        if wanted.what == "agent":
            self._membership.coordinator_came()
        try:
            await join((reader, writer), near)
        finally:
            self._joined.pop(task, None)
            self._led_by.pop(task, None)
            if wanted.what == "agent":
                self._membership.coordinator_went()

    def _refuse(self, writer: asyncio.StreamWriter, task: asyncio.Task[None], refusal: Refusal) -> None:
        log.warning("the door opens nothing: %s", refusal.error)
        writer.write(msgspec.json.encode(refusal) + b"\n")
        writer.close()
        self._joined.pop(task, None)

    def _path_for(self, shown: str, wanted: Open) -> Path:
        """ValueError: not for this one."""
        coordinator = self._membership.coordinator_certificate
        if wanted.what == "libvirt":
            given = self._tickets.get(wanted.ticket)
            if given is None or fingerprint(given.certificate) != shown:
                raise ValueError("no machine is expected from there")
            return given.socket
        if not coordinator or fingerprint(coordinator) != shown:
            raise ValueError("only for the coordinator")
        if wanted.what == "agent":
            return self._agent_socket
        path = Path(os.path.realpath(wanted.path))
        if not path.is_relative_to(os.path.realpath(self._run_dir)) or path == self._agent_socket:
            raise ValueError("not one of the agent's sockets")
        return path
