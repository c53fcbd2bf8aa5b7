"""Help and completion, derived from the declarations."""

from gespann.array.commands.declare import Command, Flag, Lines, Node, Option, command
from gespann.array.commands.kinds import KINDS, choices
from gespann.array.commands.words import Word
from gespann.array.control import Control

TOPICS = {
    "access": "Access control records of the volume",
    "account": "Accounts of the group",
    "chapuser": "CHAP users",
    "cli-settings": "Settings of the command line, kept with the account",
    "collection": "Collections: volumes whose snapshots are of one instant",
    "convert-to": "Makes the volume a template, or a template a volume",
    "grpparams": "Settings of the group",
    "member": "Members of the group",
    "pool": "Storage pools",
    "publickey": "Public keys of the account",
    "recentevents": "Events",
    "schedule": "Schedules: snapshots that are made by themselves",
    "select": "Names the object that further words are about",
    "snapshot": "Snapshots of the volume",
    "stty": "Settings of the terminal, for this session",
    "usersession": "Sessions of the command line",
    "volume": "Volumes",
}


def commands_below(node: Node) -> list[Command]:
    found = list(node.command)
    for child in [*(node.words[word] for word in sorted(node.words)), *(child for _, child in node.parameter)]:
        found += commands_below(child)
    return [declared for declared in found if not declared.hidden]


def help_lines(node: Node) -> list[str]:
    """What can come next here, a line each."""
    rows = [
        (word, _word_help(word, node.words[word])) for word in sorted(node.words) if commands_below(node.words[word])
    ]
    for parameter, child in node.parameter:
        words = choices(parameter.kind)
        text = " or ".join(words) if words else KINDS[parameter.kind].help
        rows.append((str(parameter), f"{text}{'' if child.command else ', and more'}"))
    for declared in node.command:
        rows.append(("<Enter>", declared.help))
        rows += [(str(option), _option_help(option)) for option in declared.options]
    width = max((len(word) for word, _ in rows), default=0)
    return [f"{word:<{width}}  {text}".rstrip() for word, text in rows]


def _word_help(word: str, node: Node) -> str:
    if node.command:
        return node.command[0].help
    below = commands_below(node)
    return below[0].help if len(below) == 1 else TOPICS.get(word, "")


def _option_help(option: Option | Flag) -> str:
    if option.help or isinstance(option, Flag):
        return option.help
    return "" if choices(option.kind) else KINDS[option.kind].help


def complete(control: Control, node: Node, words: list[Word], beginning: str) -> list[str]:
    """The words that can stand where ``beginning`` has been typed after ``words``."""
    options: list[str] = []
    for word in words:
        if options or node.command:
            options = [option.word for declared in node.command for option in declared.options]
        if word.text in node.words:
            node = node.words[word.text]
        elif len([name for name in node.words if name.startswith(word.text)]) == 1:
            node = next(child for name, child in node.words.items() if name.startswith(word.text))
        elif node.parameter:
            node = node.parameter[0][1]
        elif not node.command:
            return []
    found = list(node.words)
    for parameter, _ in node.parameter:
        found += choices(parameter.kind) or KINDS[parameter.kind].complete(control)
    for declared in node.command:
        found += [option.word for option in declared.options]
    return sorted(word for word in set(found) if word.startswith(beginning))


@command("help", "Lists commands; help and a word lists what can follow it. So does ?.", changes=False, rest=True)
async def help_command(session: object) -> Lines:
    """The dispatcher answers it, because it knows where in the tree the session is."""
    raise AssertionError("answered by the dispatcher")
