"""The text that LVM2 keeps its metadata in (lvm.conf(5) describes the syntax): sections, and keys with numbers, strings
and lists. Pure; what is read may come from any LUN, so everything is checked."""

import re
from collections.abc import Iterator
from typing import Union

Value = Union[int, str, list["int | str"], "Section"]
Section = dict[str, Value]

LIMIT_BYTES = 8 * 1024 * 1024
DEPTH_MOST = 8
_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\]|\\.)*"|-?\d+(?![\w.+-])|[A-Za-z0-9_.+-]+|[={}\[\],])')


class BadText(Exception):
    """Not such a text, or one that has been damaged."""


def parse(text: str) -> Section:
    tokens = _tokens(text)
    return _section(tokens, 0)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            rest = text[at:].strip()
            if rest.startswith("#") and "\n" not in rest:
                return
            raise BadText(f"unexpected {rest[:20]!r}")
        yield found[1]
        at = found.end()


def _section(tokens: Iterator[str], depth: int) -> Section:
    if depth > DEPTH_MOST:
        raise BadText("too deep")
    found: Section = {}
    for name in tokens:
        if name == "}" and depth:
            return found
        if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name) or name in found:
            raise BadText(f"{name[:40]!r} is no name, or stands twice")
        match next(tokens, ""):
            case "{":
                found[name] = _section(tokens, depth + 1)
            case "=":
                found[name] = _value(tokens)
            case other:
                raise BadText(f"{other[:20]!r} behind {name[:40]!r}")
    if depth:
        raise BadText("it ends inside a section")
    return found


def _value(tokens: Iterator[str]) -> Value:
    first = next(tokens, "")
    if first != "[":
        return _plain(first)
    found: list[int | str] = []
    for piece in tokens:
        if piece == "]":
            return found
        if piece != ",":
            found.append(_plain(piece))
    raise BadText("it ends inside a list")


def _plain(token: str) -> int | str:
    if token[:1] == '"':
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    if re.fullmatch(r"-?\d{1,19}", token):
        return int(token)
    raise BadText(f"{token[:40]!r} is no value")


def write(section: Section, indent: str = "") -> str:
    lines = []
    for name, value in section.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{name} {{\n{write(value, indent + '    ')}{indent}}}\n")
        else:
            lines.append(f"{indent}{name} = {_written(value)}\n")
    return "".join(lines)


def _written(value: int | str | list[int | str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
