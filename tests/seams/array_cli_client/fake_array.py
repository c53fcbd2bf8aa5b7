"""A fake group behind a real SSH server. Settings live per account, terminal width per session, as on a real array."""

import asyncio
import contextlib
import shlex
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import asyncssh

from tests.seams.array_cli_client.fake_state import Commands, State
from tests.seams.array_cli_client.fake_words import Refused, Unknown, shape

FaultKind = Literal["refuse", "refuse-after", "drop-before", "drop-after", "hang-before", "hang-after", "slow"]
FAULT_KINDS: tuple[FaultKind, ...] = (
    "refuse",
    "refuse-after",
    "drop-before",
    "drop-after",
    "hang-before",
    "hang-after",
)
SESSIONS_MOST = 7
PAGE_ROWS = 23

_KEY = asyncssh.generate_private_key("ecdsa-sha2-nistp256")


@dataclass
class Fault:
    """Strikes the command with number ``at`` (prelude and ``whoami`` do not count) and then ``times - 1`` more."""

    kind: FaultKind
    at: int
    times: int = 1


def pass_time(seconds: float) -> None:
    """Timers of the running loop that are due within so long go off now. Who waits for an answer that never comes may
    then wait as long as an answer could take on a slow machine, and a test does not."""
    loop = asyncio.get_running_loop()
    passed_s = loop.time() - time.monotonic() + seconds
    loop.time = lambda: time.monotonic() + passed_s  # type: ignore[method-assign]


@dataclass
class FakeArray:
    state: State = field(default_factory=State)
    accounts: dict[str, str] = field(default_factory=lambda: {"grpadmin": "eql-Secret-7"})
    faults: list[Fault] = field(default_factory=list)
    unknown_words: set[str] = field(default_factory=set)  # cli-settings that this firmware lacks
    commands: list[str] = field(default_factory=list)  # as received, without prelude
    sessions: int = 0
    sessions_ever: int = 0
    sessions_most: int = SESSIONS_MOST
    port: int = 0
    host_key: asyncssh.SSHKey = field(default_factory=lambda: _KEY)
    settings: dict[str, dict[str, bool]] = field(default_factory=dict)
    prelude: list[str] = field(default_factory=list)
    silence_s: float = 0.0  # passes at once when a command is not answered
    go_on: asyncio.Event = field(default_factory=asyncio.Event)  # a slow command is answered then

    def device_config(self, **more: str) -> dict[str, str]:
        config = {"target": "127.0.0.1", "port": str(self.port), "username": "grpadmin"}
        return {**config, "password": self.accounts["grpadmin"], "storagepool": "default", **more}

    def account_settings(self, account: str) -> dict[str, bool]:
        names = ("events", "paging", "confirmation", "formatoutput", "reprintBadInput", "idlelogout")
        return self.settings.setdefault(account, {**dict.fromkeys(names, True), "displayinMB": False})

    def strike(self) -> FaultKind | None:
        number = len(self.commands) - 1
        for fault in self.faults:
            if fault.at <= number < fault.at + fault.times:
                return fault.kind
        return None

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeArray"]:
        array = self
        connections: set[asyncssh.SSHServerConnection] = set()

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                connections.add(conn)

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return array.accounts.get(username) == password

        acceptor = await asyncssh.create_server(
            Server,
            "127.0.0.1",
            self.port,
            server_host_keys=[self.host_key],
            process_factory=lambda process: FakeSession(array, process).run(),
            encoding="utf-8",
            line_editor=False,
        )
        self.port = acceptor.get_port()
        self._connections = connections
        try:
            yield self
        finally:
            acceptor.close()
            self.cut()
            await acceptor.wait_closed()

    def cut(self) -> None:
        """All connections are gone at once."""
        for connection in self._connections:
            connection.abort()
        self._connections.clear()


class FakeSession:
    def __init__(self, array: FakeArray, process: "asyncssh.SSHServerProcess[str]") -> None:
        self._array = array
        self._process = process
        self._account = process.get_extra_info("username")
        self._settings = array.account_settings(self._account)
        self._stty = {"hardwrap": True, "columns": 80}
        self._commands = Commands(lambda: array.state, self._account, lambda: self._settings["displayinMB"])
        self._pending = ""

    async def run(self) -> None:
        if self._array.sessions >= self._array.sessions_most:
            self._process.exit(0)
            return
        self._array.sessions += 1
        self._array.sessions_ever += 1
        try:
            self._greet()
            while (text := await self._line()) is not None:
                if not await self._serve(text):
                    break
        except (asyncssh.Error, OSError):
            pass
        finally:
            self._array.sessions -= 1
            self._process.exit(0)

    def _write(self, lines: list[str]) -> None:
        self._process.stdout.write("".join(f"{line}\r\n" for line in lines))

    def _prompt(self, rest: str = "") -> None:
        self._process.stdout.write(f"{self._array.state.group}> {rest}")

    def _greet(self) -> None:
        self._write(shape("greeting"))
        self._event()
        self._prompt()

    def _event(self) -> None:
        """Comes in pieces and with a prompt of its own, as it does on a busy console."""
        if self._settings["events"]:
            self._write(["563:2:netmgtd:21-Nov-2023 01:55:08.490002:rcc_util.c:1024:INFO::25.2.9:CLI: Log."])

    async def _character(self) -> str:
        while not self._pending:
            self._pending = await self._process.stdin.read(4096)
            if not self._pending:
                return ""
        first, self._pending = self._pending[0], self._pending[1:]
        return first

    async def _line(self) -> str | None:
        text = ""
        while (char := await self._character()) not in ("\r", "\n"):
            if not char:
                return None
            text += char
        return text

    async def _serve(self, text: str) -> bool:
        words = shlex.split(text)
        if not words:
            self._prompt()
            return True
        if words[0] in ("cli-settings", "stty"):
            self._array.prelude.append(text)
            self._set(text, words)
            return True
        if words != ["whoami"]:
            self._array.commands.append(text)
        return await self._answer(text, words)

    def _set(self, text: str, words: list[str]) -> None:
        name, value = words[1], words[2]
        if name in self._array.unknown_words:
            self._bad(text)
            return
        if words[0] == "stty":
            self._stty[name] = value == "on" if name == "hardwrap" else int(value)
        else:
            self._settings[name] = value == "on"
        self._event()
        self._prompt()

    def _bad(self, text: str) -> None:
        self._write(["% Error - Bad command"])
        self._prompt(text if self._settings["reprintBadInput"] else "")

    async def _answer(self, text: str, words: list[str]) -> bool:
        kind = self._array.strike() if words != ["whoami"] else None
        if kind in ("drop-before", "hang-before"):
            return await self._misbehave(kind)
        try:
            if kind == "refuse":
                raise Refused("Injected refusal.")
            if kind == "slow":
                await self._array.go_on.wait()
            await self._confirm(words)
            lines = self._commands.run(words)
            if kind == "refuse-after":
                raise Refused("Injected refusal that comes too late.")
        except Refused as refusal:
            lines = [f"% Error - {refusal}"]
        except Unknown:
            self._bad(text)
            return True
        if kind in ("drop-after", "hang-after"):
            return await self._misbehave(kind)
        await self._page(self._wrapped(lines))
        self._prompt()
        return True

    async def _misbehave(self, kind: FaultKind) -> bool:
        if kind.startswith("drop"):
            self._process.channel.get_connection().abort()
            return False
        pass_time(self._array.silence_s)
        while await self._process.stdin.read(4096):
            pass  # until the client closes the channel
        return False

    async def _confirm(self, words: list[str]) -> None:
        if self._settings["confirmation"] and words[:2] == ["volume", "delete"]:
            self._process.stdout.write("Do you really want to delete the volume and destroy data? (y/n) [n] ")
            if await self._line() != "y":
                raise Refused("Not deleted.")

    def _wrapped(self, lines: list[str]) -> list[str]:
        width = int(self._stty["columns"])
        if not self._stty["hardwrap"]:
            return lines
        return [line[at : at + width] for line in lines for at in range(0, max(len(line), 1), width)]

    async def _page(self, lines: list[str]) -> None:
        if not self._settings["paging"]:
            self._write(lines)
            return
        for start in range(0, len(lines), PAGE_ROWS):
            self._write(lines[start : start + PAGE_ROWS])
            if start + PAGE_ROWS < len(lines):
                self._process.stdout.write("Press any key to continue (Q to quit)")
                if (await self._character()).lower() == "q":
                    return
                self._process.stdout.write("\r\n")
