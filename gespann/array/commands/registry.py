"""All commands there are, in one list: what is not here does not exist."""

from gespann.array.commands import (
    access,
    account,
    changes,
    chapuser,
    collection,
    general,
    grpparams,
    later,
    lease,
    member,
    pool,
    schedule,
    settings,
    snapshot,
    template,
    volume,
    volume_settings,
)
from gespann.array.commands.declare import Command, Node, build_tree
from gespann.array.commands.help import help_command

COMMANDS: list[Command] = [
    *volume.COMMANDS,
    *volume_settings.COMMANDS,
    *snapshot.COMMANDS,
    *changes.COMMANDS,
    *template.COMMANDS,
    *schedule.COMMANDS,
    *collection.COMMANDS,
    *access.COMMANDS,
    *lease.COMMANDS,
    *pool.COMMANDS,
    *member.COMMANDS,
    *chapuser.COMMANDS,
    *grpparams.COMMANDS,
    *account.COMMANDS,
    *settings.COMMANDS,
    *general.COMMANDS,
    *later.COMMANDS,
    help_command,
]

ROOT: Node = build_tree(COMMANDS)
