"""The process ``xe``: reads its options, keeps secrets out of the process list, and talks to the pool.

Users wait for this process at every command, so everything that not every command needs is imported where it is needed.
"""

from __future__ import annotations

import os
import sys

from gespann.xe.client.options import Options, UsageError, read_options, without_secrets

_HANDED_OVER = "GESPANN_XE_ARGUMENTS_FD"
_SETTINGS_LIMIT_BYTES = 65536

USAGE = """\
Usage:
  xe <command>
    [ -s <server> ]            Host that runs the pool; this host if not given
    [ -p <port> ]              Port to use there
    [ -u <user> -pw <password> ] or [ -pwf <file> ]
                               User and password; the file has one on each of its first two lines
    [ --nossl ]                Without TLS
    [ --debug ]                Show what the server tells for debugging
    [ <other arguments> ]      Command-specific options

A full list of commands can be obtained by running
  xe help -s <server> -p <port>
"""


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    try:
        options = read_options(arguments, dict(os.environ), _settings_file())
        if not options.words and not options.wants_version:
            options.wants_help = True
        if options.wants_help:
            sys.stderr.write(USAGE)
            return 0
        if options.wants_version:
            return _show_version()
        _find_password(options)
    except UsageError as error:
        sys.stderr.write(f"{error}\n{USAGE}")
        return 1
    except OSError as error:
        sys.stderr.write(f"Error: {error.filename}: {error.strerror}\n")
        return 1
    for word in options.words:
        if "\n" in word:  # on the wire it would be two arguments, and the second an order that nobody gave
            key = word.partition("=")[0].partition("\n")[0]
            sys.stderr.write(f"Error: an argument cannot contain a line break: {key}\n")
            return 1
    return _converse(options)


def _arguments() -> list[str]:
    """The command line. If it holds secrets this process starts itself anew without them and gets them by a pipe:
    anybody on a machine can read the command lines of all its processes."""
    handed_over = os.environ.pop(_HANDED_OVER, "")
    if handed_over.isdigit():
        with os.fdopen(int(handed_over), "rb") as pipe:
            return [os.fsdecode(word) for word in pipe.read().split(b"\0")[:-1]]
    arguments = sys.argv[1:]
    shown = without_secrets(arguments)
    if shown != arguments:
        _restart(arguments, shown)
    return arguments


def _restart(arguments: list[str], shown: list[str]) -> None:
    """Returns only where it cannot be done; then the secrets stay where the user put them."""
    data = b"".join(os.fsencode(word) + b"\0" for word in arguments)
    reading, writing = os.pipe()
    if len(data) > 65536:  # more than the pipe takes with nobody reading
        os.close(reading)
        os.close(writing)
        return
    os.write(writing, data)
    os.close(writing)
    os.set_inheritable(reading, True)
    interpreter = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    try:
        environment = {**os.environ, _HANDED_OVER: str(reading)}
        os.execve(sys.executable, [*interpreter, *shown], environment)  # noqa: S606  ourselves, not another program
    except OSError:
        os.close(reading)


def _settings_file() -> str:
    try:
        with open(os.path.join(os.path.expanduser("~"), ".xe"), encoding="utf-8", errors="replace") as file:
            return file.read(_SETTINGS_LIMIT_BYTES)
    except OSError:
        return ""


def _find_password(options: Options) -> None:
    """From the file named for it, or, for another host with a person at the terminal, from that person."""
    if options.password_file:
        with open(options.password_file, encoding="utf-8") as file:
            lines = file.read().splitlines()
        if len(lines) < 2:
            raise UsageError(
                f"{options.password_file} must have the user on its first line and the password on its second"
            )
        options.user, options.password = lines[0], lines[1]
    asks = not options.local or options.user
    if asks and not options.password and options.words[:1] != ["help"] and sys.stdin.isatty() and sys.stderr.isatty():
        import getpass

        if not options.user:
            sys.stderr.write("User name: ")
            sys.stderr.flush()
            options.user = sys.stdin.readline().strip()
        options.password = getpass.getpass("Password: ", sys.stderr)


def _show_version() -> int:
    from gespann import __version__

    sys.stderr.write(f"ThinCLI protocol: 0.2, Gespann {__version__}\n")
    return 0


def _converse(options: Options) -> int:
    from gespann.xe.client.connection import ConnectionRefused, WrongServer, connect
    from gespann.xe.client.session import OutputClosed, Session
    from gespann.xe.frames import FrameError

    try:
        with connect(options) as stream:
            return Session(options, stream).run()
    except ConnectionRefused as error:
        sys.stderr.write(f"Error: {error}\n")
    except (WrongServer, FrameError):
        sys.stderr.write(
            "Failed to contact a running management agent.\nTry specifying a server name and port.\n" + USAGE
        )
    except OutputClosed:
        return 141  # as a shell reports SIGPIPE
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"Error: the connection to the server broke: {error.strerror}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
