"""A person at a guest's serial console: `xe console`, log in, type commands, read what they print."""

import os
import re
import select
import time
from types import TracebackType

from gespann.demo.show import Show
from gespann.demo.site import XE, Access
from gespann.demo.user import CheckFailed
from gespann.system import processes

LOGIN_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 120.0
NUDGE_S = 3.0  # a prompt that was printed before we came: Enter brings another
ACCOUNT = "root"  # the image asks for no password: there is no way in but its console
SHELL = r"# (\x1b\[6n)?$"  # busybox's shell asks the terminal where its cursor is
ESCAPE = b"\x1d"  # Ctrl-]: ends `xe console`


class GuestConsole:
    """``with GuestConsole(show, access, "web1") as guest: guest.run("uname -r")``."""

    def __init__(self, show: Show, access: Access, vm: str) -> None:
        self._show = show
        self._words: list[processes.Word] = [XE, "console", f"vm={vm}"]
        self._env = {**os.environ, "GESPANN_XAPI_SOCKET": str(access.xe_socket)}
        self._read = b""
        self._count = 0

    def __enter__(self) -> "GuestConsole":
        self._process, self._fd = processes.start_on_terminal(self._words, env=self._env)
        try:
            self._log_in()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._write(b"exit\r")
        self.close()

    def close(self) -> None:
        if self._process.poll() is None:
            self._write(ESCAPE)
            deadline = time.monotonic() + 5
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            processes.kill_session(self._process.pid)
        self._process.wait()
        os.close(self._fd)

    def run(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """One shell command in the guest, shown; what it printed. CheckFailed if it ends badly."""
        self._show.command(f"(in the guest) {command}")
        self._count += 1
        begin, end = f"BEGIN-{self._count}-", f"END-{self._count}-"
        # The words are split so that the echo of the line does not look like the marks themselves.
        line = f"echo '{begin[:3]}''{begin[3:]}'; {command}; echo '{end[:3]}''{end[3:]}'$?"
        self._read = b""
        self._write(line.encode() + b"\r")
        with self._show.life.waiting("in the guest"):
            self._expect(rf"{end}\d+\r?\n", timeout_s)
        text = self._read.decode(errors="replace").replace("\r", "")
        found = re.search(rf"{begin}\n(.*?)\n?{end}(\d+)", text, re.DOTALL)
        if not found or found[2] != "0":
            raise CheckFailed(f"in the guest: {command}\n{text}")
        self._show.output(found[1])
        return found[1]

    def _log_in(self) -> None:
        with self._show.life.waiting("the console"):
            self._expect_nudging(rf"login: *$|{SHELL}", LOGIN_TIMEOUT_S)
            if re.search(rb"login: *$", self._read):
                self._read = b""
                self._write(ACCOUNT.encode() + b"\r")
                self._expect(SHELL, LOGIN_TIMEOUT_S)

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError as error:
            raise CheckFailed(f"the console is gone: {error}") from error

    def _expect_nudging(self, pattern: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._expect(pattern, NUDGE_S)
            except CheckFailed:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                self._write(b"\r")

    def _expect(self, pattern: str, timeout_s: float) -> None:
        wanted = re.compile(pattern.encode())
        deadline = time.monotonic() + timeout_s
        while not wanted.search(self._read):
            left_s = deadline - time.monotonic()
            ready = select.select([self._fd], [], [], max(left_s, 0))[0]
            try:
                data = os.read(self._fd, 65536) if ready else b""
            except OSError:  # the other side of the terminal is closed: xe has ended
                data = b""
            if not data:
                tail = self._read.decode(errors="replace")[-500:]
                raise CheckFailed(f"{processes.command_line(self._words)}: expected {pattern}, got:\n{tail}")
            self._read += data
