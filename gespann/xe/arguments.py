"""The argument grammar of ``xe``: a command name, then ``key=value``, ``--flag`` and the four switches.

``--name`` means ``name=true``. ``-u``, ``-pw``, ``-s``/``-h`` and ``-p`` take the next word. Everything else is split
at its first ``=``; without one the value is empty. A key may repeat: the first counts for a lookup, all of them for
maps and filters.
"""

import re
from dataclasses import dataclass
from typing import TypeVar

from gespann.xe.failures import CommandFailure, ParameterMissing, SyntaxFailure

Default = TypeVar("Default")

SWITCHES = {"-u": "username", "-pw": "password", "-s": "server", "-h": "server", "-p": "port"}
STANDARD_KEYS = frozenset(
    ["server", "password", "port", "username", "minimal", "force", "multiple", "all", "message-priority", "trace"]
)
TRUE_WORDS = frozenset(["true", "t", "yes", "y", "1"])
FALSE_WORDS = frozenset(["false", "f", "no", "n", "0"])
BOOLEAN_WORDS = "'true','t','yes','y','1','false','f','no','n','0'"
_SIZE = re.compile(r"([+-]?\d+)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_SIZE_POWERS = {"": 0, "b": 0, "bytes": 0}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_POWERS |= dict.fromkeys((_letter, f"{_letter}b", f"{_letter}ib"), _power)
INT64_MAX = 2**63 - 1


def parse_boolean(key: str, value: str) -> bool:
    word = value.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise CommandFailure(f"Failed to parse parameter '{key}': Expected {BOOLEAN_WORDS} got {value}")


def parse_integer(key: str, value: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", value, re.ASCII) or abs(int(value)) > INT64_MAX:
        raise CommandFailure(f"Failed to parse parameter '{key}': expecting an integer")
    return int(value)


def parse_size(key: str, value: str) -> int:
    """Bytes. Suffixes are powers of 1024 whatever their spelling: k, kb and kib are the same."""
    match = _SIZE.fullmatch(value.strip())
    if match and match[2].lower() in _SIZE_POWERS:
        size_bytes: int = int(match[1]) * 1024 ** _SIZE_POWERS[match[2].lower()]
        if abs(size_bytes) <= INT64_MAX:
            return size_bytes
    raise CommandFailure(
        f"Failed to parse field '{key}': expecting an integer (possibly with suffix KiB, MiB, GiB, TiB), got '{value}'"
    )


@dataclass(frozen=True)
class Arguments:
    """One command line. ``repr`` shows no value: values may be secrets."""

    command: str
    pairs: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Arguments({self.command!r}, keys={[key for key, _ in self.pairs]})"

    def __contains__(self, key: str) -> bool:
        return any(found == key for found, _ in self.pairs)

    def get(self, key: str, default: Default) -> str | Default:
        return next((value for found, value in self.pairs if found == key), default)

    def text(self, key: str, default: str = "") -> str:
        return self.get(key, default)

    def required(self, key: str) -> str:
        value = self.get(key, None)
        if value is None:
            raise ParameterMissing(key)
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self.get(key, None)
        return default if value is None else parse_boolean(key, value)

    def integer(self, key: str, default: int | None = None) -> int:
        if default is not None and key not in self:
            return default
        return parse_integer(key, self.required(key))

    def size(self, key: str, default: int | None = None) -> int:
        if default is not None and key not in self:
            return default
        return parse_size(key, self.required(key))

    def words(self, key: str) -> list[str]:
        """A comma-separated value; none or an empty one is no word at all."""
        return [word for word in self.text(key).split(",") if word]

    def mapping(self, name: str) -> dict[str, str]:
        """``name:key=value`` of all repetitions; the older spelling ``name-key=value`` counts too."""
        found: dict[str, str] = {}
        for key, value in self.pairs:
            if len(key) > len(name) + 1 and key.startswith(name) and key[len(name)] in ":-":
                found.setdefault(key[len(name) + 1 :], value)
        return found

    @property
    def minimal(self) -> bool:
        return self.boolean("minimal")

    def filters(self, *own_keys: str) -> list[tuple[str, str]]:
        """What is left for selecting objects: neither standard nor among the command's own keys."""
        maps = tuple(key for key in own_keys if key.endswith(":"))
        ignored = STANDARD_KEYS.union(own_keys)
        return [(k, v) for k, v in self.pairs if k not in ignored and not (maps and k.startswith(maps))]


def parse_arguments(words: list[str]) -> Arguments:
    """SyntaxFailure: no command name, an unknown switch, or a switch without its word."""
    if not words or not words[0] or "=" in words[0]:
        raise SyntaxFailure("")
    pairs: list[tuple[str, str]] = []
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            pairs.append((key, value if equals else "true"))
        elif word.startswith("-") and "=" not in word:
            pairs.append(_switch(word, next(rest, None)))
        else:
            key, _, value = word.partition("=")
            pairs.append((key, value))
    return Arguments(words[0], tuple(pairs))


def _switch(switch: str, value: str | None) -> tuple[str, str]:
    if switch not in SWITCHES:
        raise SyntaxFailure(f"Unknown switch {switch}")
    if value is None:
        raise SyntaxFailure(f"Switch {switch} needs a value")
    return SWITCHES[switch], value
