"""A line in, lines out: the one place where refusals become the CLI's words."""

import logging
from dataclasses import dataclass, field

from gespann.array.commands.declare import Lines, Node
from gespann.array.commands.help import help_lines
from gespann.array.commands.parser import Parsed, Parser, find_word
from gespann.array.commands.registry import ROOT
from gespann.array.commands.session import Session
from gespann.array.commands.words import BadInput, Word, split_words
from gespann.array.model.refusals import Conflict, Mistake, Refusal
from gespann.seams.json_lines import SeamError, SeamLost

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    lines: Lines = field(default_factory=list)
    failed: bool = False
    bad_input: bool = False  # not a command at all


async def execute(session: Session, untrusted_line: str) -> Outcome:
    """Runs one line. Never raises for what a line or the data plane can do."""
    try:
        words = split_words(untrusted_line)
        if not words:
            return Outcome()
        parsed = _parse(session, _asked_for_help(words))
        return Outcome(await _run(session, parsed))
    except BadInput as refusal:
        return Outcome([_error(refusal.text)], failed=True, bad_input=True)
    except Refusal as refusal:
        return Outcome([_error(refusal.text)], failed=True)
    except SeamLost as lost:
        log.warning("data plane: %s", lost)
        return Outcome([_error("The data plane does not answer. Try again later.")], failed=True)
    except SeamError as refused:
        log.warning("data plane: %s", refused)
        return Outcome([_error(f"The data plane refused: {refused.message}.")], failed=True)
    except Exception:  # ours: the session goes on, the log has the details, the user gets none
        log.exception("command failed")
        return Outcome([_error("Internal error. The log of the group has the details.")], failed=True)


def _error(text: str) -> str:
    return f"% Error - {text}"


def _parse(session: Session, words: list[Word]) -> Parsed:
    """In a context its own words come first; what does not begin there is read as from the top."""
    control = session.control
    around = {level.parameter.key: level.value for level in session.context}
    if session.context:
        here = session.context[-1].node
        first = words[0]
        if first.text == "?" or (not first.quoted and _begins(here, first.text)):
            return Parser(control, _turned(here, words), around).parse(here)
        if not first.quoted and first.text.lower() == "show" and len(words) > 1 and _begins(here, words[1].text):
            return Parser(control, _turned(here, words), around).parse(here)
    return Parser(control, _turned(ROOT, words)).parse(ROOT)


def _asked_for_help(words: list[Word]) -> list[Word]:
    """``help volume`` is ``volume ?``."""
    if words[0].quoted or not "help".startswith(words[0].text.lower()):
        return words
    return [*words[1:], Word("?")]


def _begins(node: Node, text: str) -> bool:
    return find_word(list(node.words), text) is not None


def _turned(node: Node, words: list[Word]) -> list[Word]:
    """``show volume`` is ``volume show``, wherever the second spelling exists."""
    if len(words) < 2 or words[0].quoted or words[1].quoted or not "show".startswith(words[0].text.lower()):
        return words
    if len(words[0].text) < 2:
        return words
    shown = node.words.get("show")
    if shown is not None and find_word(list(shown.words), words[1].text) is not None:
        return words
    noun = find_word([word for word, child in node.words.items() if "show" in child.words], words[1].text)
    return words if noun is None else [words[1], Word("show"), *words[2:]]


async def _run(session: Session, parsed: Parsed) -> Lines:
    if parsed.help_at is not None:
        return help_lines(parsed.help_at)
    command = parsed.command
    if command is None:
        session.context = [*_kept_context(session, parsed), *parsed.selected]
        return []
    account = session.account
    if not account.enabled:
        raise Conflict(f"Account {account.name} is disabled.")
    if command.changes and account.read_only:
        raise Conflict(f"Account {account.name} is read-only.")
    arguments = dict(parsed.arguments)
    for level in session.context:
        if level.parameter in command.path and level.parameter.key not in arguments:
            arguments[level.parameter.key] = level.now(session.control)
    missing = [step.key for step in command.path if not isinstance(step, str) and step.key not in arguments]
    if missing:
        raise Mistake(f"Nothing is selected for <{missing[0]}>.")
    return await command.run(session, **arguments)


def _kept_context(session: Session, parsed: Parsed) -> list:  # type: ignore[type-arg]
    """A selection inside the present context goes one level deeper; one from the top replaces it."""
    below = session.context[-1].node if session.context else None
    first = parsed.selected[0].node
    return session.context if below is not None and _is_below(below, first) else []


def _is_below(node: Node, wanted: Node) -> bool:
    children = [*node.words.values(), *(child for _, child in node.parameter)]
    return any(child is wanted or _is_below(child, wanted) for child in children)
