"""Words against the tree of commands: a command with its arguments, an object to select, a request for help, or
BadInput. Any unambiguous beginning of a keyword stands for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gespann.array.commands.declare import Command, Flag, Node, Option, Parameter
from gespann.array.commands.kinds import KINDS, choices, read_value
from gespann.array.commands.words import BadInput, Word
from gespann.array.control import Control

WORDS_IN_A_HINT = 8


@dataclass(frozen=True)
class Selected:
    """One level of context: the object that further lines are about."""

    node: Node
    parameter: Parameter
    value: Any

    def now(self, control: Control) -> Any:
        return KINDS[self.parameter.kind].again(control, self.value)

    def label(self, control: Control) -> str:
        return f"{self.node.selected}_{KINDS[self.parameter.kind].label(self.value)}"


@dataclass
class Parsed:
    """``command`` none: the line selects what ``selected`` ends with."""

    command: Command | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    selected: list[Selected] = field(default_factory=list)
    help_at: Node | None = None


class Parser:
    """One line, from one start node."""

    def __init__(self, control: Control, words: list[Word], around: Mapping[str, Any] | None = None) -> None:
        """``around``: what the session has selected."""
        self._control = control
        self._around = around or {}
        self._words = words
        self._at = 0

    def parse(self, node: Node) -> Parsed:
        parsed = Parsed()
        while self._at < len(self._words):
            word = self._words[self._at]
            if word.text == "?" and not word.quoted:
                parsed.help_at = node
                return parsed
            child = self._step(node, word, parsed)
            if child is None:
                break
            node = child
        if node.command:
            parsed.command = node.command[0]
            if not parsed.command.rest:
                self._options(parsed.command, parsed.arguments)
        elif node.selected and self._at == len(self._words):
            return parsed
        elif self._at < len(self._words):
            raise _unknown(node, self._words[self._at].text)
        else:
            raise BadInput(f"The command is not complete. {_hint(follow(node))}")
        return parsed

    def _step(self, node: Node, word: Word, parsed: Parsed) -> Node | None:
        """The node that ``word`` leads to; none if it leads nowhere and options may follow."""
        keyword = None if word.quoted else find_word(list(node.words), word.text)
        if keyword is not None:
            self._at += 1
            return node.words[keyword]
        if not node.parameter:
            return None
        parameter, child = node.parameter[0]
        if not word.quoted and child.command and any(option.word == word.text for option in child.command[0].options):
            self._option(child.command[0], parsed.arguments)  # "size no-snap 200GB": both orders are in use
            return node
        value = read_value(self._control, parameter.kind, word.text, {**self._around, **parsed.arguments})
        self._at += 1
        parsed.arguments[parameter.key] = value
        if child.selected:
            parsed.selected.append(Selected(child, parameter, value))
        return child

    def _options(self, command: Command, arguments: dict[str, Any]) -> None:
        while self._at < len(self._words):
            self._option(command, arguments)

    def _option(self, command: Command, arguments: dict[str, Any]) -> None:
        word = self._words[self._at]
        known = {option.word: option for option in command.options}
        found = None if word.quoted else find_word(list(known), word.text)
        if found is None:
            raise _not_an_option(word.text, list(known))
        self._at += 1
        option = known[found]
        if option.key in arguments:
            raise BadInput(f"{option.word} contradicts or repeats what was said before.")
        arguments[option.key] = option.value if isinstance(option, Flag) else self._value(option, arguments)

    def _value(self, option: Option, arguments: Mapping[str, Any]) -> Any:
        if self._at == len(self._words):
            raise BadInput(f"A value is missing after {option.word}.")
        self._at += 1
        around = {**self._around, **arguments}
        return read_value(self._control, option.kind, self._words[self._at - 1].text, around)


def find_word(words: list[str], text: str) -> str | None:
    """The word that ``text`` is or unambiguously begins; BadInput if it begins several."""
    if text in words:
        return text
    lowered = text.lower()
    fitting = [word for word in words if word.lower().startswith(lowered)]
    if len(fitting) > 1:
        same = [word for word in fitting if word.lower() == lowered]
        if same:
            return same[0]
        raise BadInput(f'"{text[:40]}" is ambiguous: {", ".join(sorted(fitting))}.')
    return fitting[0] if fitting else None


def follow(node: Node) -> list[str]:
    """What can come next, for messages."""
    words = sorted(word for word, child in node.words.items() if not any(one.hidden for one in child.command))
    for parameter, _ in node.parameter:
        words += choices(parameter.kind) or [f"<{parameter.key}>"]
    for command in node.command:
        words += [option.word for option in command.options]
    return words


def _unknown(node: Node, text: str) -> BadInput:
    return BadInput(f'Unknown word "{text[:40]}". {_hint(follow(node))}')


def _not_an_option(text: str, known: list[str]) -> BadInput:
    if not known:
        return BadInput(f'Nothing can follow here, but "{text[:40]}" does.')
    return BadInput(f'Unknown word "{text[:40]}". {_hint(sorted(known))}')


def _hint(words: list[str]) -> str:
    if len(words) > WORDS_IN_A_HINT:
        return "A question mark in its place lists what can stand there."
    return f"It can be: {', '.join(words)}."
