"""The connection to one group: one SSH transport, a few CLI sessions on it, kept alive, made again when lost.

The array has seven sessions for everybody, so this takes at most ``sessions`` of them and only as many as are in use
at once. A line whose answer got lost is sent again only if it just reads; otherwise SrError 176 says so, and the
caller's repeat finds out what happened.

A command may take the array minutes. Whether the array is there at all is asked beside it, by SSH itself, which any
server answers without looking at what its shells are doing: one that hangs is given up, with all that waits for it, a
few seconds later; the next who comes finds out by a new connection.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import errors
from gespann.sr.equal.dialogue import Reply, Unintelligible
from gespann.sr.equal.host_key import KnownGroups, PinningClient, changed_key
from gespann.sr.equal.session import Session, SessionLost
from gespann.sr.equal.words import Line
from gespann.system.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    username: str
    password: str = field(repr=False)
    host_key: str = field(default="", compare=False)  # the fingerprint to insist on, if one is known


@dataclass(frozen=True)
class Timing:
    connect_timeout_s: float = 10.0
    session_timeout_s: float = 20.0  # for the first prompt, and the settings before it can be used
    command_timeout_s: float = 120.0  # creating a clone may take the array a while
    read_timeout_s: float = 45.0  # only telling something does not; it is asked once more
    alive_every_s: float = 5.0  # what has said nothing for so long is asked whether it is there,
    alive_misses: int = 2  # so often; after one more such time it hangs
    keep_alive_s: float = 20.0
    idle_close_s: float = 120.0  # nobody attached and nothing asked: give the sessions back
    drain_timeout_s: float = 60.0  # until a volume that went offline has no connection left
    drain_poll_s: float = 0.2


class GroupConnection:
    """``run`` is the one way in. ``attached`` holds the uuids of the repositories that want it kept."""

    def __init__(self, address: Address, known: KnownGroups, clock: Clock, timing: Timing, sessions: int = 3) -> None:
        self.address = address
        self.attached: set[str] = set()
        self._known = known
        self._clock = clock
        self._timing = timing
        self._free: list[Session] = []
        self._open = 0  # sessions there are, free or in use
        self._most = sessions  # fewer while the array is at its limit; the keep-alive tries again
        self._wanted = sessions
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a session that comes free, or may be opened
        self._connecting = asyncio.Lock()
        self._attempts_failed = 0
        self._last_failure: SrError | None = None
        self._ssh: asyncssh.SSHClientConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last_use_s = clock.monotonic_s()

    async def run(self, line: Line) -> Reply:
        """``errors.CliRefusal`` when the group refuses the line, SrError for everything else."""
        self._last_use_s = self._clock.monotonic_s()
        try:
            reply = await self._ask(line)
        except SessionLost as first:
            if first.asked and not line.reads:
                raise self._cut_short(line, first) from None
            log.info("group %s: %s; asking again: %s", self.address.host, first.why, line.public)
            reply = await self._ask_again(line)
        if reply.error:
            raise errors.CliRefusal(line.public, line.without_secret(reply.error))
        return reply

    async def _ask_again(self, line: Line) -> Reply:
        try:
            return await self._ask(line)
        except SessionLost as second:
            raise self._cut_short(line, second) from None

    def _cut_short(self, line: Line, lost: SessionLost) -> SrError:
        return errors.cut_short(line.public, f"{self.address.host}: {lost.why}")

    async def _ask(self, line: Line) -> Reply:
        session = await self._take()
        try:
            timing = self._timing
            tells = line.reads and not line.works
            return await session.ask(line, timing.read_timeout_s if tells else timing.command_timeout_s)
        except SessionLost as lost:
            if lost.silent:
                self._doubt(session.transport)
            raise
        except Unintelligible as failure:
            raise SessionLost(str(failure)) from None
        finally:
            self._give_back(session)

    async def _take(self) -> Session:
        waited = False
        came = self._attempts_failed
        while True:
            resting = self._resting()
            if resting is not None:
                return resting
            if self._open >= self._most:
                await self._wait(first=waited)
                waited = True
                continue
            self._open += 1
            started: Session | None = None
            try:
                started = await self._start_session(came)
            finally:
                if started is None:
                    self._count_down()
            if started is not None:
                return started

    async def _wait(self, first: bool) -> None:
        """One who waits is woken for each session that comes free; who was woken in vain is the first next time."""
        turn = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake()  # it was meant for somebody who can use it
            raise

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _resting(self) -> Session | None:
        while self._free:
            session = self._free.pop()
            if session.alive:
                return session
            self._count_down()
        return None

    def _count_down(self) -> None:
        self._open -= 1
        self._wake()

    def _give_back(self, session: Session) -> None:
        """Not a coroutine: it must also happen when the caller was cancelled."""
        if session.alive and session.transport is self._ssh:
            self._free.append(session)
            self._wake()
        else:
            session.close()
            self._count_down()

    async def _start_session(self, came: int) -> Session | None:
        """None: the array grants no further session now, but we have others to wait for. ``came``: see below."""
        for last in (False, True):
            ssh = await self._connected(came)
            try:
                return await Session.start(ssh, self.address.username, self._timing.session_timeout_s)
            except (SessionLost, asyncssh.Error, OSError) as failure:
                silent = getattr(failure, "silent", False) or ssh.is_closed()
                if self._open > 1 and not silent:
                    self._most = self._open - 1
                    return None
                # The transport may have died unnoticed since the last command: try once on a new one.
                self._forget_transport(ssh)
                if last:
                    raise (self._unreachable("no answer") if silent else self._refused_at_once(failure)) from None
            except Unintelligible as failure:
                self._forget_transport(ssh)
                raise self._not_a_group(str(failure)) from None
        raise AssertionError("not reached")

    def _refused_at_once(self, failure: Exception) -> SrError:
        why = failure.why if isinstance(failure, SessionLost) else str(failure)
        return SrError(
            errors.CONNECT_FAILED,
            "Failed to connect to Equallogic Array; maximum SSH CLI sessions reached",
            f"{self.address.host}: {why}",
        )

    def _doubt(self, ssh: asyncssh.SSHClientConnection) -> None:
        """What is under way on it goes on; whoever comes next finds out by a new one whether the array is there, and
        does not wait through the silence of each session in turn."""
        if self._ssh is ssh:
            self._ssh = None
            for session in self._free:
                session.close()
            asyncio.get_running_loop().call_later(self._timing.command_timeout_s, ssh.abort)  # no command lasts longer

    def _forget_transport(self, ssh: asyncssh.SSHClientConnection) -> None:
        """Sessions in use on it find out by themselves."""
        if self._ssh is ssh:
            self._ssh = None
        ssh.abort()

    async def _connected(self, came: int) -> asyncssh.SSHClientConnection:
        """An attempt that fails has failed for all who came before it was over: at a group that answers nobody, each
        would otherwise wait through an attempt for everybody before. ``came``: attempts that had failed by then."""
        async with self._connecting:
            if self._ssh is None or self._ssh.is_closed():
                if self._last_failure is not None and self._attempts_failed > came:
                    raise self._last_failure
                try:
                    self._ssh = await self._connect()
                except SrError as failure:
                    self._last_failure, self._attempts_failed = failure, self._attempts_failed + 1
                    raise
                if self._keeper is None or self._keeper.done():
                    self._keeper = asyncio.create_task(self._keep_alive())
            return self._ssh

    async def _connect(self) -> asyncssh.SSHClientConnection:
        address = self.address
        try:
            async with asyncio.timeout(self._timing.connect_timeout_s):
                ssh, _ = await asyncssh.create_connection(
                    lambda: PinningClient(self._known, address.host, address.port),
                    **_ssh_options(address),
                    keepalive_interval=self._timing.alive_every_s,
                    keepalive_count_max=self._timing.alive_misses,
                )
                return ssh
        except socket.gaierror as failure:
            raise SrError(
                errors.DNS, "Incorrect DNS name, unable to resolve.", f"{address.host}: {failure.strerror}"
            ) from None
        except asyncssh.PermissionDenied:
            raise SrError(
                errors.PERMISSION_DENIED,
                "Failed to connect to Equallogic Array, Permission denied;username/password invalid",
                f"{address.username} at {address.host}",
            ) from None
        except asyncssh.HostKeyNotVerifiable:
            raise changed_key(address.host) from None
        except (TimeoutError, OSError) as failure:
            known = os.strerror(failure.errno) if failure.errno else str(failure)  # asyncio adds a Python tuple
            why = known or f"no answer within {self._timing.connect_timeout_s:g} s"
            raise self._unreachable(why) from None
        except asyncssh.ConnectionLost as failure:
            raise self._refused_at_once(failure) from None
        except asyncssh.Error as failure:
            raise self._not_a_group(failure.reason) from None

    def _unreachable(self, why: str) -> SrError:
        return SrError(
            errors.UNREACHABLE, "Unable to logon to Array. Check IP settings.", f"{self.address.host}: {why}"
        )

    def _not_a_group(self, why: str) -> SrError:
        return SrError(
            errors.INVALID_TARGET,
            "Equallogic Target parameter in Dconf string is Invalid, please specify the correct Group IPaddress",
            f"{self.address.host}: {why}",
        )

    async def _keep_alive(self) -> None:
        while self._ssh is not None:
            await self._clock.sleep(self._timing.keep_alive_s)
            idle_s = self._clock.monotonic_s() - self._last_use_s
            if not self.attached and idle_s >= self._timing.idle_close_s:
                self._close_transport()
                return
            await self._check_free_sessions()

    async def _check_free_sessions(self) -> None:
        resting, self._free = self._free, []
        for _ in range(self._wanted - self._most):
            self._wake()
        self._most = self._wanted
        for session in resting:
            try:
                await session.check(self._timing.session_timeout_s)
            except (SessionLost, Unintelligible) as failure:
                log.info("group %s: a resting session is lost: %s", self.address.host, failure)
            self._give_back(session)

    def _close_transport(self) -> None:
        ssh, self._ssh = self._ssh, None
        for session in self._free:
            session.close()
        if ssh is not None:
            ssh.close()

    @property
    def unused(self) -> bool:
        """Nobody wants it and nothing is under way."""
        return not self.attached and self._open == len(self._free)

    @property
    def forgotten(self) -> bool:
        """Never came to be, or closed itself, and has not been asked for since."""
        idle_s = self._clock.monotonic_s() - self._last_use_s
        return self.unused and self._ssh is None and idle_s >= self._timing.idle_close_s

    async def close(self) -> None:
        """Gives all sessions back to the array. ``run`` would open it again."""
        keeper, self._keeper = self._keeper, None
        ssh = self._ssh
        self._close_transport()
        if keeper is not None and keeper is not asyncio.current_task():
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if ssh is not None:
            await ssh.wait_closed()


def _ssh_options(address: Address) -> dict[str, Any]:
    """Nothing of the account that runs the coordinator takes part: no agent, no key files, no configuration. The
    algorithms that a group of 2009 has are added behind the modern ones."""
    return {
        "host": address.host,
        "port": address.port,
        "username": address.username,
        "password": address.password,
        "known_hosts": ([], [], []),
        "client_keys": None,
        "agent_path": None,
        "config": None,
        "preferred_auth": "password,keyboard-interactive",
        "kex_algs": "+diffie-hellman-group14-sha1",
        "server_host_key_algs": "+ssh-rsa",
        "encryption_algs": "+aes128-cbc,3des-cbc",
    }
