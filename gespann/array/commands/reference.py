"""The reference page of the group CLI, from the declarations."""

from gespann.array.commands.declare import Command, Flag, Option, Parameter
from gespann.array.commands.help import TOPICS
from gespann.array.commands.kinds import KINDS, choices
from gespann.array.commands.registry import COMMANDS

_HEAD = """# Group CLI

Log in with `ssh grpadmin@GROUP`. Any unambiguous beginning of a word stands for it; `show X` is `X show`.
`X select NAME` alone selects the object: further lines are about it until `exit`. Text with blanks or `#` goes into
quotes. `?` lists what can come next. What fails prints a line that begins with `% Error - `; commands given with the
connection (`ssh grpadmin@GROUP "volume show"`) then end with status 1.

This page is made by `python -m gespann.main.array_reference`; do not edit it.
"""


def reference_page() -> str:
    sections = [_HEAD]
    shown = [declared for declared in COMMANDS if not declared.hidden]
    for noun in sorted({str(declared.path[0]) for declared in shown}):
        sections.append(f"## {noun}\n\n{TOPICS[noun]}.\n" if noun in TOPICS else f"## {noun}\n")
        sections += [_entry(declared) for declared in shown if declared.path[0] == noun]
    sections.append(_kinds(shown))
    later = sorted(" ".join(map(str, declared.path)) for declared in COMMANDS if declared.rest and declared.hidden)
    words = "\n".join(f"- `{path}`" for path in later)
    sections.append(
        f"## Not in this release\n\nThese words are known and answer that they are not available:\n\n{words}\n"
    )
    return "\n".join(sections)


def _entry(declared: Command) -> str:
    path = " ".join(map(str, declared.path))
    lines = [f"### `{path}`\n", f"{declared.help}{'' if declared.changes else ' Read-only accounts may.'}\n"]
    if declared.options:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_option(option)}` | {option.help} |" for option in declared.options]
        lines.append("")
    return "\n".join(lines)


def _option(option: Option | Flag) -> str:
    text = str(option)[1:-1]
    return text.replace("|", "\\|")


def _kinds(shown: list[Command]) -> str:
    used: set[str] = set()
    for declared in shown:
        used |= {step.kind for step in declared.path if isinstance(step, Parameter)}
        used |= {option.kind for option in declared.options if isinstance(option, Option)}
    lines = ["## Values\n", "| kind | |", "|---|---|"]
    lines += [f"| {kind} | {KINDS[kind].help} |" for kind in sorted(used) if not choices(kind)]
    return "\n".join([*lines, ""])
