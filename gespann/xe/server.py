"""``POST /cli``: the command engine's front, speaking the thin-CLI protocol to ``xe``.

For whoever serves HTTP on the coordinator: once the headers and the body of a ``POST /cli`` are read, hand the
connection over and write nothing to it, no status line either; the protocol has no HTTP reply ::

    await serve_cli(api, body, reader, writer, local_root=peer_is_root, originator="cli")

``api``: see ``gespann.xe.api.XenApi``. ``reader``/``writer``: the asyncio streams of the connection, at the first byte
after the body. ``local_root``: True only if the peer of a Unix socket is root (SO_PEERCRED). The call returns when the
command is over; the caller closes the connection. It raises only CancelledError.
"""

import asyncio
import logging

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe import failures
from gespann.xe.api import API_VERSION, XenApi
from gespann.xe.arguments import Arguments, parse_arguments
from gespann.xe.call import Call
from gespann.xe.channel import ClientChannel
from gespann.xe.error_texts import describe_refs, error_text
from gespann.xe.frames import FrameError
from gespann.xe.help import print_help
from gespann.xe.printer import Printer
from gespann.xe.registry import commands, handlers

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 204800  # for the HTTP door: a longer body is no command line
_SESSION = "session_id="
USAGE_HINT = "For usage run: 'xe help'\n"


async def serve_cli(
    api: XenApi,
    body: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    local_root: bool,
    originator: str = "cli",
) -> None:
    """Runs the command in ``body`` for the client at the other end of the streams."""
    channel = ClientChannel(reader, writer)
    try:
        await channel.greet()
        await _Door(api, channel, local_root, originator).serve(body)
    except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        log.info("a thin client hung up before its command was over")
    except FrameError as error:
        log.warning("a thin client broke the protocol: %s", error)


def split_body(body: bytes) -> tuple[str | None, list[str]]:
    """The session if the first line names one, and the command line, a word per line."""
    lines = [line.removesuffix("\r") for line in body.decode("utf-8", "replace").split("\n")]
    if lines[0].startswith(_SESSION):
        return lines[0].removeprefix(_SESSION), lines[1:]
    return None, lines


class _Door:
    """One command from its bytes to its exit status."""

    def __init__(self, api: XenApi, channel: ClientChannel, local_root: bool, originator: str) -> None:
        self._api, self._channel = api, channel
        self._local_root, self._originator = local_root, originator

    async def serve(self, body: bytes) -> None:
        """After an error no exit status is sent: the client's own, 1, then stands."""
        try:
            session, words = split_body(body)
            await self._run(parse_arguments(words), session)
        except failures.ExitWith as exit_with:
            await self._channel.exit(exit_with.status)
        except (ConnectionError, asyncio.IncompleteReadError, FrameError):
            raise
        except Exception as error:
            await self._explain(error)
        else:
            await self._channel.exit(0)

    async def _run(self, arguments: Arguments, session: str | None) -> None:
        printer = Printer(self._channel, arguments.minimal)
        if arguments.command == "help":
            await print_help(arguments, printer)
            await printer.flush()
            return
        if arguments.command not in handlers():
            raise failures.UnknownCommand(arguments.command)
        for key in commands()[arguments.command].required:
            arguments.required(key)
        own_session = session is None
        session = session or await self._log_in(arguments)
        log.info("xe %s %s", arguments.command, " ".join(key for key, _ in arguments.pairs))  # values may be secrets
        try:
            call = Call(self._api, session, arguments, printer, self._channel)
            await handlers()[arguments.command](call)
            await printer.flush()
        except XenApiError as error:
            # While the session lives its references can still be named.
            raise XenApiError(error.code, await describe_refs(error, call.tables)) from error
        finally:
            if own_session:
                await self._log_out(session)

    async def _log_in(self, arguments: Arguments) -> str:
        """Root on this host needs no password, but one that is given is checked."""
        user, password = arguments.text("username"), arguments.text("password")
        if not user:
            if self._local_root:
                return await self._api.local_session()
            raise XenApiError("SESSION_AUTHENTICATION_FAILED", ["", "no user name"])
        return str(await self._api.call("session.login_with_password", user, password, API_VERSION, self._originator))

    async def _log_out(self, session: str) -> None:
        try:
            await self._api.call("session.logout", session)
        except XenApiError as error:
            log.debug("session was over already: %s", error.code)

    async def _explain(self, error: Exception) -> None:
        channel = self._channel
        match error:
            case failures.UnknownCommand():
                await channel.print_error(f"Unknown command: {error}\n{USAGE_HINT}")
            case failures.SyntaxFailure():
                await channel.print_error(f"Syntax error: {error}\n{USAGE_HINT}")
            case failures.ParameterMissing():
                await channel.print_error(f"Required parameter not found: {error}\n{USAGE_HINT}")
            case failures.CommandFailure():
                await channel.print_error(f"Error: {error}\n")
            case failures.UnknownField():
                await channel.error("Missing parameter", [str(error)])
            case failures.SeveralFailures():
                for uuid, text in error.failures:
                    await channel.print(f"operation failed on {uuid}: {text}")
                await channel.exit(1)  # nothing on stderr has said so
            case XenApiError(code="SESSION_AUTHENTICATION_FAILED"):
                named = bool(error.params and error.params[0])
                words = "Authentication failed" if named else "Username/password must be specified"
                await channel.print_error(f"{words}\n{USAGE_HINT}")
            case XenApiError():
                await self._explain_refusal(error.code, error.params)
            case _:
                log.exception("the command engine failed")
                await self._explain_refusal("INTERNAL_ERROR", [f"{type(error).__name__} in the command engine"])

    async def _explain_refusal(self, code: str, params: list[str]) -> None:
        text = error_text(code, params)
        if text.sentence is None:
            await self._channel.error(code, params)
            return
        for line in (text.sentence, *text.lines):
            await self._channel.print_error(f"{line}\n")
