"""The filters of ``get_all_records_where``:

    field "is_a_snapshot" = "false" and not (field "SR" = "OpaqueRef:..." or field "type" = "suspend")

Words: ``true``, ``false``, ``field "name"``, quoted texts, ``=``, ``not``, ``and``, ``or``, brackets. As in the
original's grammar, ``and`` and ``or`` bind alike, from left to right, and ``not`` denies all that follows it within its
brackets: ``not A and B`` is ``not (A and B)``. Values are compared as the texts that stand for them: ``true``, ``12``.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from gespann.seams.xenapi.datamodel import Class

LENGTH_LIMIT_CHARS = 64 * 1024
DEPTH_LIMIT = 100

Test = Callable[[Mapping[str, Any]], bool]
_Term = Callable[[Mapping[str, Any]], str]
_TOKEN = re.compile(r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[A-Za-z_]+)|(?P<sign>[=()]))""")


class BadExpression(Exception):
    """Text for people."""


class TooDeep(BadExpression):
    pass


def parse(text: str, class_: Class) -> Test:
    """A test of records of that class."""
    return _Parser(_tokens(text), class_).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LENGTH_LIMIT_CHARS:
        raise BadExpression(f"longer than {LENGTH_LIMIT_CHARS} characters")
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise BadExpression(f"cannot be read from character {at + 1}")
        kind = found.lastgroup or ""
        value = found[kind]
        tokens.append((kind, re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if kind == "text" else value))
        at = found.end()
    return tokens


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _both(left: Test, right: Test) -> Test:
    return lambda record: left(record) and right(record)


def _either(left: Test, right: Test) -> Test:
    return lambda record: left(record) or right(record)


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], class_: Class) -> None:
        self._tokens = tokens
        self._class = class_
        self._at = 0
        self._depth = 0

    def whole(self) -> Test:
        test = self._expression()
        if self._at != len(self._tokens):
            raise BadExpression(f"unexpected {self._tokens[self._at][1]!r}")
        return test

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end")

    def _take(self, kind: str, value: str | None = None) -> str | None:
        found_kind, found = self._peek()
        if found_kind != kind or (value is not None and found.lower() != value):
            return None
        self._at += 1
        return found

    def _expression(self) -> Test:
        test = self._one()
        while True:
            if self._take("word", "and"):
                test = _both(test, self._one())
            elif self._take("word", "or"):
                test = _either(test, self._one())
            else:
                return test

    def _one(self) -> Test:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise TooDeep(f"nested deeper than {DEPTH_LIMIT}")
        try:
            return self._one_within()
        finally:
            self._depth -= 1

    def _one_within(self) -> Test:
        if self._take("word", "not"):
            inner = self._expression()
            return lambda record: not inner(record)
        if self._take("word", "true"):
            return lambda record: True
        if self._take("word", "false"):
            return lambda record: False
        start = self._at
        if self._take("sign", "("):
            try:
                term = self._rest_of_term()
                return self._equation(term)
            except TooDeep:
                raise
            except BadExpression:  # not a bracketed term: a bracketed expression
                self._at = start + 1
            inside = self._expression()
            self._need(")")
            return inside
        return self._equation(self._term())

    def _equation(self, left: _Term) -> Test:
        self._need("=")
        right = self._term()
        return lambda record: left(record) == right(record)

    def _rest_of_term(self) -> _Term:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise TooDeep(f"nested deeper than {DEPTH_LIMIT}")
        try:
            term = self._term()
        finally:
            self._depth -= 1
        self._need(")")
        return term

    def _term(self) -> _Term:
        if self._take("sign", "("):
            return self._rest_of_term()
        if self._take("word", "field"):
            name = self._take("text")
            if name is None:
                raise BadExpression(f'field "name" expected, not {self._peek()[1]!r}')
            if name not in self._class.fields:
                raise BadExpression(f"{self._class.name} has no field {name!r}")
            return lambda record: _as_text(record[name])
        text = self._take("text")
        if text is None:
            raise BadExpression(f"a quoted text or a field expected, not {self._peek()[1]!r}")
        return lambda record: text

    def _need(self, sign: str) -> None:
        if self._take("sign", sign) is None:
            raise BadExpression(f"{sign!r} expected, not {self._peek()[1]!r}")
