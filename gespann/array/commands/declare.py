"""How a command is declared: once, beside the function that runs it. Grammar, help, completion and the reference page
are derived from the declaration.

    @command("volume select <volume> size <size>", "Makes a volume larger.", Flag("no-snap", help="..."))
    async def size(session: Session, volume: Volume, size: int, no_snap: bool = False) -> Lines: ...

A path is words and parameters: ``<kind>`` or ``<key:kind>``, a kind from ``kinds.KINDS`` or words to choose from,
``<state:on|off>``. Everything after ``X select <x>`` also works once ``X select <x>`` alone has been entered.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Lines = list[str]
Run = Callable[..., Awaitable[Lines]]


@dataclass(frozen=True)
class Parameter:
    key: str
    kind: str

    def __str__(self) -> str:
        return f"<{self.key}>" if "|" not in self.kind else f"<{self.kind}>"


@dataclass(frozen=True)
class Option:
    """``word VALUE`` anywhere after the parameters. ``key`` is the argument of the function."""

    word: str
    kind: str
    key: str = ""
    help: str = ""

    def __str__(self) -> str:
        value = self.kind if "|" in self.kind else self.kind.upper()
        return f"[{self.word} {value}]"


@dataclass(frozen=True)
class Flag:
    """``word`` alone: gives ``value`` to the argument ``key``."""

    word: str
    key: str = ""
    value: Any = True
    help: str = ""

    def __str__(self) -> str:
        return f"[{self.word}]"


@dataclass(frozen=True)
class Command:
    path: tuple[str | Parameter, ...]
    help: str
    options: tuple[Option | Flag, ...]
    run: Run
    changes: bool  # read-only accounts may not
    hidden: bool = False  # another spelling, not in help
    rest: bool = False  # whatever follows belongs to it, unread

    def __str__(self) -> str:
        return " ".join([*map(str, self.path), *map(str, self.options)])


@dataclass(frozen=True)
class Node:
    """A place in the tree of all paths."""

    words: dict[str, "Node"] = field(default_factory=dict)
    parameter: list[tuple[Parameter, "Node"]] = field(default_factory=list)  # none or one
    command: list[Command] = field(default_factory=list)  # none or one
    selected: str = ""  # after "X select <x>": X


def command(
    path: str, help: str, *options: Option | Flag, changes: bool = True, hidden: bool = False, rest: bool = False
) -> Callable[[Run], Command]:
    def declared(run: Run) -> Command:
        return Command(_path(path), help, tuple(map(_keyed, options)), run, changes, hidden, rest)

    return declared


def _path(text: str) -> tuple[str | Parameter, ...]:
    return tuple(_step(step) for step in text.split())


def _step(step: str) -> str | Parameter:
    if not step.startswith("<"):
        return step
    key, _, kind = step[1:-1].rpartition(":")
    return Parameter(key or kind.replace("-", "_"), kind)


def _keyed(option: Option | Flag) -> Option | Flag:
    key = option.key or option.word.replace("-", "_")
    if isinstance(option, Flag):
        return Flag(option.word, key, option.value, option.help)
    return Option(option.word, option.kind, key, option.help)


def build_tree(commands: list[Command]) -> Node:
    root = Node()
    for declared in commands:
        node, before = root, ""
        for position, step in enumerate(declared.path):
            if isinstance(step, str):
                node = node.words.setdefault(step, Node())
            else:
                if not node.parameter:
                    noun = str(declared.path[position - 2]) if before == "select" else ""
                    node.parameter.append((step, Node(selected=noun)))
                if node.parameter[0][0] != step:
                    raise ValueError(f"{declared}: {step} and {node.parameter[0][0]} in the same place")
                node = node.parameter[0][1]
            before = str(step)
        if node.command:
            raise ValueError(f"{declared}: declared twice")
        node.command.append(declared)
    return root
