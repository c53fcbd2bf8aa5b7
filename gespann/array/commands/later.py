"""Words that a PS group knows and this release does not yet: each says so, instead of pretending."""

from gespann.array.commands.declare import Command, Lines, command
from gespann.array.commands.session import Session
from gespann.array.model.refusals import Conflict

_LATER = {
    "volume select <volume> replica": "Replication is",
    "volume select <volume> replication": "Replication is",
    "volume select <volume> bind": "Binding to members is",
    "volume select <volume> unbind": "Binding to members is",
    "volume select <volume> lost-blocks": "Lost block handling is",
    "alerts": "Alert configuration is",
    "diag": "Diagnostics are",
    "partner": "Replication is",
    "ping": "Ping is",
    "replicant": "Replication is",
    "restart": "Restarting from the command line is",
    "save-config": "Saving the configuration is",
    "shutdown": "Shutting down from the command line is",
    "support": "Support commands are",
    "tag": "Tags are",
    "update": "Updating from the command line is",
}


def _later(path: str, what: str) -> Command:
    async def run(session: Session, **_: object) -> Lines:
        raise Conflict(f"{what} not available in this release.")

    return command(path, "Not available in this release.", changes=False, hidden=True, rest=True)(run)


COMMANDS: list[Command] = [_later(path, what) for path, what in _LATER.items()]
