"""The SSH door: who may come in, how many at a time, and a session behind each channel."""

import asyncio
import contextlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import asyncssh

from gespann import __version__
from gespann.array.commands.session import Session
from gespann.array.control import Control
from gespann.array.shell.host_keys import host_keys
from gespann.array.shell.loop import run_exec, run_shell
from gespann.array.shell.terminal import Terminal

log = logging.getLogger(__name__)

FAREWELL_S = 5.0

_Accepted = tuple[asyncssh.SSHServerChannel[bytes], asyncssh.SSHServerSession[bytes]]


@dataclass(frozen=True)
class Limits:
    """``sessions``: a PS group has 7; clients that count on 7 must find them, and an administrator one more."""

    sessions: int = 16
    connections: int = 64
    channels_of_one_connection: int = 10
    login_s: float = 60.0
    login_failures: int = 5
    failure_delay_s: float = 1.0
    keepalive_s: float = 30.0


class SshDoor:
    def __init__(self, control: Control, host: str, port: int, limits: Limits | None = None) -> None:
        self.control = control
        self.limits = limits or Limits()
        self.sessions: dict[int, Session] = {}
        self.logins: dict[asyncssh.SSHServerConnection, _Login] = {}  # a connection each, oldest first
        self.tasks: set[asyncio.Task[None]] = set()
        self.numbers = itertools.count(1)
        self._host = host
        self._port = port
        self._listener: asyncssh.SSHAcceptor | None = None

    @property
    def port(self) -> int:
        assert self._listener is not None
        return int(self._listener.get_port())

    async def start(self) -> None:
        keys = await asyncio.to_thread(host_keys, self.control.data_dir)
        self._listener = await asyncssh.create_server(
            lambda: _Login(self),
            self._host,
            self._port,
            server_host_keys=keys,
            server_version=f"Gespann_{__version__}",
            line_editor=False,
            agent_forwarding=False,
            allow_scp=False,
            login_timeout=self.limits.login_s,
            keepalive_interval=self.limits.keepalive_s,
            host_based_auth=False,
            kbdint_auth=False,
            gss_host=None,
        )

    async def stop(self, grace_s: float = 10.0) -> None:
        """No new session; commands under way end first, if they do so in time."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.logins):
            connection.close()
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def admit(self, connection: asyncssh.SSHServerConnection, login: "_Login") -> bool:
        """Counts a connection in. When all places are taken the oldest that has not logged in gives way, of the address
        that has most of those: who only opens connections keeps nobody out."""
        if len(self.logins) >= self.limits.connections:
            strangers = [(one, other.address) for one, other in self.logins.items() if not other.account]
            if not strangers:
                log.warning("connection from %s refused: %d are open", login.address, len(self.logins))
                return False
            ((crowd, _),) = Counter(address for _, address in strangers).most_common(1)
            oldest = next(one for one, address in strangers if address == crowd)
            log.warning("connection from %s gives way before its login to one from %s", crowd, login.address)
            del self.logins[oldest]
            oldest.abort()
        self.logins[connection] = login
        return True


class _Login(asyncssh.SSHServer):
    """One connection: who it is."""

    def __init__(self, door: SshDoor) -> None:
        self._door = door
        self._connection: asyncssh.SSHServerConnection | None = None
        self._failures = 0
        self.account = ""
        self.address = ""
        self.channels = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self.address = str((conn.get_extra_info("peername") or ("",))[0])
        log.info("connection from %s", self.address)
        if not self._door.admit(conn, self):
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._door.logins.pop(self._connection, None)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        admitted = await self._door.control.accounts.authenticate(username, password)
        if not admitted:
            await self._failed(username)
        return admitted

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        account = self._door.control.accounts.find(username)
        if account is None or not account.enabled:
            return False
        offered = key.export_public_key("openssh").split()[:2]
        return any(line.encode().split()[:2] == offered for line in account.public_keys)

    def auth_completed(self) -> None:
        assert self._connection is not None
        name = str(self._connection.get_extra_info("username"))
        account = self._door.control.accounts.find(name)
        self.account = account.name if account else name
        self._door.control.events.add(
            "INFO", "25.2.9", f"CLI: Login to account {self.account} succeeded, using ssh from {self.address}."
        )

    async def _failed(self, untrusted_name: str) -> None:
        self._failures += 1
        name = re.sub(r"[^A-Za-z0-9_.-]", "?", untrusted_name[:64])  # others read it: no prompt, no escapes in it
        self._door.control.events.add(
            "WARNING", "25.2.10", f"CLI: Login to account {name} failed, from {self.address}."
        )
        await self._door.control.clock.sleep(self._door.limits.failure_delay_s)
        if self._failures >= self._door.limits.login_failures and self._connection is not None:
            self._connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many failures")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def session_requested(self) -> "_Accepted":
        assert self._connection is not None
        if self.channels >= self._door.limits.channels_of_one_connection:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "Too many channels")
        self.channels += 1
        channel = self._connection.create_server_channel(encoding=None)
        return channel, _Channel(self._door, self)


class _Channel(asyncssh.SSHServerSession[bytes]):
    """One channel: a shell, or a command given with it."""

    def __init__(self, door: SshDoor, login: _Login) -> None:
        self._door = door
        self._login = login
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._terminal: Terminal | None = None
        self._command: str | None = None
        self._echo = False
        self._size: tuple[int, int] = (0, 0)
        self._session: Session | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._login.channels -= 1
        if self._terminal is not None:
            self._terminal.gone()

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:
        self._echo = True
        self._size = term_size[:2]
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._session is not None:
            self._set_size((width, height), self._session)

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        assert self._channel is not None
        self._terminal = Terminal(self._write, self._echo)
        self._terminal.hold_input = _holder(self._channel)
        task = asyncio.get_running_loop().create_task(self._run())
        self._door.tasks.add(task)
        task.add_done_callback(self._door.tasks.discard)

    def data_received(self, data: bytes, datatype: object) -> None:
        if self._terminal is None:
            return
        self._terminal.feed(data)

    def eof_received(self) -> bool:
        if self._terminal is not None:
            self._terminal.end()
        return True  # what was asked before is still answered

    def pause_writing(self) -> None:
        if self._terminal is not None:
            self._terminal.has_room(False)

    def resume_writing(self) -> None:
        if self._terminal is not None:
            self._terminal.has_room(True)

    def break_received(self, msec: int) -> bool:
        return True

    def _write(self, data: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                self._channel.write(data)

    async def _run(self) -> None:
        channel, terminal = self._channel, self._terminal
        assert channel is not None
        assert terminal is not None
        if len(self._door.sessions) >= self._door.limits.sessions:
            terminal.write_line("% Error - The maximum number of CLI sessions is reached.")
            terminal.flush()
            channel.exit(1)
            with contextlib.suppress(TimeoutError):  # the line first, then the end of the connection
                await asyncio.wait_for(channel.wait_closed(), FAREWELL_S)
            self._login.close()
            return
        session = self._open()
        status = 1
        try:
            if self._command is None:
                await run_shell(session, terminal)
                status = 0
            else:
                status = await run_exec(session, terminal, self._command)
        except Exception:
            log.exception("session %d", session.number)
        finally:
            del self._door.sessions[session.number]
            terminal.flush()
            if not channel.is_closing():
                channel.exit(status)

    def _open(self) -> Session:
        session = Session(
            control=self._door.control,
            account_name=self._login.account,
            number=next(self._door.numbers),
            address=self._login.address,
            started=self._door.control.clock.now(),
            others=lambda: list(self._door.sessions.values()),
        )
        self._set_size(self._size, session)
        self._session = self._door.sessions[session.number] = session
        return session

    @staticmethod
    def _set_size(size: tuple[int, int], session: Session) -> None:
        columns, rows = size
        if 20 <= columns <= 1024:
            session.screen.columns = columns
        if 0 < rows <= 1000:
            session.screen.rows = rows


def _holder(channel: asyncssh.SSHServerChannel[bytes]) -> Callable[[bool], None]:
    return lambda hold: channel.pause_reading() if hold else channel.resume_reading()
