"""How a command can fail, each with the text that the thin client's user sees. All of them end with status 1, except
``ExitWith``. What the XenAPI refuses is ``gespann.seams.xenapi.errors.XenApiError``, worded in ``error_texts``."""


class CommandFailure(Exception):
    """``Error: <text>``: the engine itself refuses."""


class SyntaxFailure(Exception):
    """``Syntax error: <text>``: the command line cannot be read."""


class ParameterMissing(Exception):
    """``Required parameter not found: <name>``."""


class UnknownCommand(Exception):
    """``Unknown command: <name>``."""


class UnknownField(Exception):
    """Printed as ``Error code: Missing parameter``, with the field's name as its parameter."""


class ExitWith(Exception):
    """Ends the command with this exit status and says nothing."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class SeveralFailures(Exception):
    """Under ``--multiple`` some objects failed: (uuid, text) of each, printed on stdout."""

    def __init__(self, failures: list[tuple[str, str]]) -> None:
        super().__init__(failures)
        self.failures = failures
