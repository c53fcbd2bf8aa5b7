"""Every command that this engine has, by name: the one map from a word to what does it."""

from functools import cache

from gespann.xe.call import Handler
from gespann.xe.command_table import CommandSpec, declared_commands
from gespann.xe.commands import (
    console,
    diagnostics,
    events,
    host_care,
    hosts,
    messages,
    networks,
    pools,
    secrets,
    snapshot_schedules,
    snapshots,
    storage,
    subjects,
    transfers,
    vm_devices,
    vm_install,
    vm_lifecycle,
    vm_memory,
    vm_migrate,
    vm_uninstall,
)
from gespann.xe.commands.plain_calls import plain_commands
from gespann.xe.object_commands import generated_commands

_WRITTEN = (
    *(console, diagnostics, events, hosts, networks, pools, secrets, snapshots, storage, subjects, messages, transfers),
    *(snapshot_schedules, host_care),
    *(vm_devices, vm_install, vm_lifecycle, vm_memory, vm_migrate, vm_uninstall),
)


@cache
def handlers() -> dict[str, Handler]:
    """What can be run. ``help`` is not among them: it needs no session."""
    found = {name: run for name, run in generated_commands().items() if name in declared_commands()}
    found |= plain_commands()
    for module in _WRITTEN:
        found |= module.COMMANDS
    return dict(sorted(found.items()))


@cache
def commands() -> dict[str, CommandSpec]:
    """The declarations of the commands that there are, in alphabetical order."""
    return {name: declared_commands()[name] for name in handlers()}


def missing_commands() -> list[str]:
    """Commands of the original that this engine does not have."""
    return sorted(set(declared_commands()) - set(handlers()))
