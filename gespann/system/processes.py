"""The one door to other processes.

Commands are lists of words, never a shell line. A secret goes in by ``stdin`` or a file, never as a word: the process
list is public. A failed command is reported as a line that can be pasted.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Word = str | os.PathLike[str]
LongRunning = subprocess.Popen[bytes]  # what ``start_logged`` gives
OUTPUT_SHOWN_CHARS = 2000
DROPPED_BYTES = 65536


@dataclass(frozen=True)
class Result:
    command: str  # as it can be pasted
    exit_code: int  # negative: ended by that signal
    stdout: str
    stderr: str


class CommandFailed(Exception):
    """A command that ended badly, could not be started, or took too long (``exit_code`` None)."""

    def __init__(self, command: str, exit_code: int | None, why: str) -> None:
        super().__init__(f"{command}\n  {why}")
        self.command = command
        self.exit_code = exit_code
        self.why = why


def command_line(words: Sequence[Word]) -> str:
    return shlex.join(os.fspath(word) for word in words)


def run(
    words: Sequence[Word],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Result:
    """Runs to the end. CommandFailed unless it ends with 0 (or ``check`` is off and it ended at all)."""
    command = command_line(words)
    try:
        done = subprocess.run(list(words), input=stdin, capture_output=True, timeout=timeout_s, cwd=cwd, env=env)
    except subprocess.TimeoutExpired:
        raise CommandFailed(command, None, f"not done within {timeout_s:g} s") from None
    except OSError as error:
        raise CommandFailed(command, None, f"cannot be started: {error.strerror}") from error
    return _judge(command, done.returncode, done.stdout, done.stderr, check)


async def run_async(
    words: Sequence[Word],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Result:
    """``run`` without stopping the loop. Cancelled or late, it kills the command and what that started."""
    command = command_line(words)
    process = await start(
        words, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        raise CommandFailed(command, None, f"not done within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            kill_session(process.pid)
            await process.wait()
    return _judge(command, process.returncode or 0, stdout, stderr, check)


async def start(
    words: Sequence[Word],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
) -> asyncio.subprocess.Process:
    """Starts a command in a session of its own, so that it outlives us and our terminal's signals."""
    try:
        return await asyncio.create_subprocess_exec(
            *words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        raise CommandFailed(command_line(words), None, f"cannot be started: {error.strerror}") from error


def start_logged(
    words: Sequence[Word], log_path: Path, *, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a long-running command in a session of its own, its output appended to ``log_path`` (mode 0600)."""
    fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, env=env, start_new_session=True
        )
    except OSError as error:
        raise CommandFailed(command_line(words), None, f"cannot be started: {error.strerror}") from error
    finally:
        os.close(fd)


def start_on_terminal(
    words: Sequence[Word], *, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a command as on a terminal of its own, for programs that insist on one: the process, and the file
    descriptor of the terminal's other end, which the caller reads, writes and closes."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            list(words), stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
    except OSError as error:
        os.close(ours)
        raise CommandFailed(command_line(words), None, f"cannot be started: {error.strerror}") from error
    finally:
        os.close(theirs)
    return process, ours


def kill(pid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """One that has ended meanwhile is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)


def kill_session(pid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Signals a process that ``start`` or ``start_logged`` made, and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kills what ``start`` made, if it still runs, and returns when it is gone. What it has written and nobody has read
    is read and dropped: asyncio tells of a process's end only when its pipes have ended too, and does not read from one
    whose reader has enough."""
    if process.returncode is None:
        kill_session(process.pid)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(RuntimeError, OSError):  # somebody else reads it to its end
                while await stream.read(DROPPED_BYTES):
                    pass
    await process.wait()


def is_running(pid: int) -> bool:
    """Whether a process of that id is there (and not a zombie waiting for its parent)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def _judge(command: str, exit_code: int, stdout: bytes, stderr: bytes, check: bool) -> Result:
    result = Result(command, exit_code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check and exit_code != 0:
        words = (result.stderr.strip() or result.stdout.strip())[-OUTPUT_SHOWN_CHARS:]
        ended = f"exit status {exit_code}" if exit_code > 0 else f"ended by {signal.Signals(-exit_code).name}"
        raise CommandFailed(command, exit_code, f"{ended}: {words}" if words else ended)
    return result
