"""One CLI session: a shell channel without a terminal (so the array does not echo), one command at a time."""

import asyncio
import logging

import asyncssh

from gespann.sr.equal import words
from gespann.sr.equal.dialogue import Dialogue, Reply, Unintelligible
from gespann.sr.equal.words import Line

log = logging.getLogger(__name__)

SYNCHRONISE_TRIES = 5


class SessionLost(Exception):
    """The session can no longer be used. ``asked`` false: the array never saw the line. ``silent``: it did not end, it
    stopped answering, and so perhaps did everything else on its transport."""

    def __init__(self, why: str, asked: bool = True, silent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.asked = asked
        self.silent = silent


class Session:
    def __init__(
        self, transport: asyncssh.SSHClientConnection, process: "asyncssh.SSHClientProcess[str]", username: str
    ) -> None:
        self.transport = transport
        self._process = process
        self._username = username
        self._dialogue = Dialogue()
        self.usable = True

    @classmethod
    async def start(cls, connection: asyncssh.SSHClientConnection, username: str, timeout_s: float) -> "Session":
        """Waits for the first prompt and sends the prelude. ``SessionLost`` when the array closes at once, as it does
        at its limit of seven sessions; ``Unintelligible`` when no prompt of a group comes."""
        try:
            async with asyncio.timeout(timeout_s):
                process = await connection.create_process(term_type=None, encoding="utf-8", errors="replace")
        except TimeoutError:
            raise SessionLost(f"no session within {timeout_s:g} s", asked=False, silent=True) from None
        session = cls(connection, process, username)
        try:
            async with asyncio.timeout(timeout_s):
                await session._reply()
                await session._prepare()
        except TimeoutError:
            session.close()
            raise Unintelligible(f"no prompt of a group within {timeout_s:g} s") from None
        except BaseException:
            session.close()
            raise
        return session

    async def _prepare(self) -> None:
        for line in words.PRELUDE:
            reply = await self._exchange(line)
            if reply.error:
                log.info("the group does not know %r: %s", line.public, reply.error)
            if reply.spoilt:
                raise SessionLost(f"the group put {line.public!r} back for editing", asked=False)
        await self._synchronise()

    async def _synchronise(self) -> None:
        """Events that came while they were still switched on may have brought extra prompts: ask something whose answer
        is known until it is the answer."""
        for _ in range(SYNCHRONISE_TRIES):
            if self._is_my_name(await self._exchange(words.who_am_i())):
                return
        raise Unintelligible("whoami is not answered with the account's name")

    def _is_my_name(self, reply: Reply) -> bool:
        return bool(reply.lines) and reply.lines[-1].strip() == self._username

    @property
    def alive(self) -> bool:
        return self.usable and not self._process.stdout.at_eof() and not self._process.channel.is_closing()

    async def ask(self, line: Line, timeout_s: float) -> Reply:
        """However this ends other than with a reply, the session is closed: nobody knows what would come next."""
        if not self.alive:
            self.close()
            raise SessionLost("it was closed", asked=False)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._exchange(line)
        except TimeoutError:
            self.close()
            raise SessionLost(f"no answer within {timeout_s:g} s", silent=True) from None
        except asyncssh.ConnectionLost:
            self.close()
            raise SessionLost("it has stopped answering, or the connection was cut") from None
        except (OSError, asyncssh.Error) as failure:
            self.close()
            raise SessionLost(type(failure).__name__) from None
        except BaseException:
            self.close()
            raise
        if reply.spoilt:
            self.close()
        return reply

    async def check(self, timeout_s: float) -> None:
        """The keep-alive: ``SessionLost`` unless the array says who we are."""
        if not self._is_my_name(await self.ask(words.who_am_i(), timeout_s)):
            self.close()
            raise SessionLost("it is out of step")

    async def _exchange(self, line: Line) -> Reply:
        self._dialogue.sent(line)
        self._process.stdin.write(line.text + "\r")
        return await self._reply()

    async def _reply(self) -> Reply:
        while True:
            text = await self._process.stdout.read(65536)
            if not text:
                raise SessionLost("the array closed the session")
            reply = self._dialogue.receive(text)
            if reply is not None:
                return reply
            if self._dialogue.keys:
                self._process.stdin.write(self._dialogue.keys)
                self._dialogue.keys = ""

    def close(self) -> None:
        self.usable = False
        self._process.close()
