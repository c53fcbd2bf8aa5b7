"""The page ``docs/reference/xe.md``, made from the declarations of commands and columns."""

import sys

from gespann.xe.command_table import declared_commands
from gespann.xe.help import description
from gespann.xe.not_there import REASONS
from gespann.xe.records.catalog import object_classes
from gespann.xe.registry import commands, missing_commands

_GENERATED = ("list", "param-list", "param-get", "param-set", "param-add", "param-remove", "param-clear")
HEAD = """\
# `xe`: commands

This page is made from the declarations in `gespann/xe`; `python -m gespann.main.xe_reference` prints it anew, and a
test keeps it true. What a command takes is also told by `xe help <command>`.

`*` after a name: the command works on the VMs, hosts or SRs that its arguments select, by `vm=`, `host=`, `sr=`,
`uuid=` or any field of their records. Arguments that end in `:` are maps: `device-config:target=192.0.2.9`.

A command that is there may still be refused by the pool, if the pool does not have the call behind it: the answer is
then `This server has no such call.`
"""


def page() -> str:
    parts = [HEAD, "## Objects", "", _objects(), "", "## Commands", "", _commands(), "", "## Not there", "", _missing()]
    return "\n".join(parts) + "\n"


def _is_generated(name: str) -> bool:
    return any(name == f"{object_class}-{verb}" for object_class in object_classes() for verb in _GENERATED)


def _objects() -> str:
    lines = [
        "Every class has `-list`, `-param-list` and `-param-get`; those with fields that can be changed have",
        "`-param-set`, `-param-add`, `-param-remove` and `-param-clear` as the table says.",
        "",
        "| class | changing commands | columns |",
        "|---|---|---|",
    ]
    for name, object_class in object_classes().items():
        changing = [verb for verb in _GENERATED[3:] if f"{name}-{verb}" in commands()]
        columns = ", ".join(column.name for column in object_class.columns if not column.hidden)
        lines.append(f"| {name} | {', '.join(changing) or '–'} | {columns} |")
    return "\n".join(lines)


def _commands() -> str:
    lines = ["| command | required | optional | what it does |", "|---|---|---|---|"]
    for name, spec in commands().items():
        if _is_generated(name):
            continue
        star = "*" if any(flag.endswith("-selectors") for flag in spec.flags) else ""
        required, optional = ", ".join(spec.required) or "–", ", ".join(spec.optional) or "–"
        lines.append(f"| {name}{star} | {required} | {optional} | {description(name).replace('|', '/')} |")
    return "\n".join(lines)


def _missing() -> str:
    total = len(declared_commands())
    lines = [f"{len(missing_commands())} of the {total} commands of the original are refused as unknown:", ""]
    missing = set(missing_commands())
    for why, names in REASONS.items():
        if shown := sorted(missing & set(names)):
            lines.append(f"* {why}: {', '.join(shown)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
