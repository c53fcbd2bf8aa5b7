"""``xe help``: the list of commands, and what one command takes."""

import json
import textwrap
from functools import cache
from pathlib import Path

from gespann.xe.arguments import STANDARD_KEYS, Arguments
from gespann.xe.command_table import CommandSpec
from gespann.xe.printer import Printer
from gespann.xe.registry import commands

_DESCRIPTIONS = Path(__file__).parent / "facts" / "descriptions.json"
WIDTH = 74
INDENT = "    "
_SELECTORS = ("vm-selectors", "host-selectors", "sr-selectors")
_GENERATED = {
    "list": "Lists all objects of this class that match the given fields; 'map-field:key=value' looks into a map.",
    "param-list": "Shows every parameter of the object with this uuid.",
    "param-get": "Shows one parameter of the object; with param-key=<key> one entry of a map.",
    "param-set": "Sets parameters of the object; 'map-param:key=value' sets one entry of a map.",
    "param-add": "Adds to a set with param-key=<member>, to a map with 'key=value' pairs.",
    "param-remove": "Removes a member from a set or an entry from a map.",
    "param-clear": "Empties a set or map, or sets a parameter to nothing.",
}
USAGE = """\
Usage:
  xe <command>
    [ -s <server> ]            Host that runs the pool; this host if not given
    [ -p <port> ]              Port to use there
    [ -u <user> -pw <password> ] or [ -pwf <file> ]
                               User and password, or a file that holds them
    [ --nossl ]                Without TLS
    [ <other arguments> ]      Command-specific options
"""


@cache
def _descriptions() -> dict[str, str]:
    return dict(json.loads(_DESCRIPTIONS.read_text(encoding="utf-8")))


def description(command: str) -> str:
    """One sentence, or an empty text where nobody wrote one."""
    if command in _descriptions():
        return _descriptions()[command]
    return next((text for verb, text in _GENERATED.items() if command.endswith(f"-{verb}")), "")


async def print_help(arguments: Arguments, printer: Printer) -> None:
    """``help``, ``help --all``, ``help <command>...``; with ``--minimal`` just names."""
    named = [key for key, value in arguments.pairs if key not in STANDARD_KEYS and value == ""]
    shown_all = arguments.boolean("all")
    if named:
        await _print_commands(named, printer)
    elif printer.minimal:
        await printer.values(_names(shown_all))
    else:
        await printer.remark(_overview(shown_all))


def _names(shown_all: bool) -> list[str]:
    visible = {name: spec for name, spec in commands().items() if not spec.hidden}
    return [name for name, spec in visible.items() if shown_all or "standard" in spec.flags]


async def _print_commands(names: list[str], printer: Printer) -> None:
    for name in names:
        if name in commands():
            await printer.table([_command_record(commands()[name])])
        elif name == "help":
            await printer.remark("help: shows the commands, or what a command takes: xe help [<command>] [--all]")
        else:
            await printer.remark(f"Responding to help for command {name}: there is no such command.")


def _command_record(spec: CommandSpec) -> list[tuple[str, str]]:
    selectors = [f"<{flag}>" for flag in _SELECTORS if flag in spec.flags]
    return [
        ("command name        ", spec.name),
        ("reqd params     ", ", ".join(spec.required)),
        ("optional params ", ", ".join([*spec.optional, *selectors])),
        ("description     ", description(spec.name)),
    ]


def _overview(shown_all: bool) -> str:
    if not shown_all:
        return "\n".join([USAGE, "Common command list", _wrapped(_names(False)), "", _MORE])
    names = _names(True)
    hosts = [name for name in names if name.startswith("host-")]
    vms = [name for name in names if name.startswith("vm-")]
    others = [name for name in names if not name.startswith(("host-", "vm-"))]
    parts = [USAGE]
    for title, group in (("Host command list", hosts), ("VM command list", vms), ("Other command list", others)):
        parts += [title, _wrapped(group), ""]
    return "\n".join(parts)


_MORE = "For all commands run: 'xe help --all'; for one of them: 'xe help <command>'"


def _wrapped(names: list[str]) -> str:
    return textwrap.fill(
        ", ".join(names),
        WIDTH,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
