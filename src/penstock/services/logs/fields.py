"""Filter patterns of JSON fields: `{ ($.level = "ERROR") && ($.took > 3) }`, for events whose text is a JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any

from penstock.kernel.errors import ServiceError

Test = Callable[[Any], bool]
WORD = re.compile(
    r'\s*(?:(?P<mark>&&|\|\||[()]|!=|<=|>=|[=<>])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<field>\$[^\s=!<>&|()]*)|(?P<word>[^\s=!<>&|()"]+))'
)
STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\.?\[(?:'([^']*)'|\"([^\"]*)\")\]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda one, other: one < other, "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other, ">=": lambda one, other: one >= other,
}  # fmt: skip
ABSENT = object()
DEPTH = 50


def parse(pattern: str) -> Callable[[str], bool]:
    """A test of an event's text, which is false for what is no JSON object.

    Raises: ServiceError (InvalidParameterException).
    """
    inner = pattern.strip()
    if not inner.endswith("}"):
        raise _invalid(pattern)
    reader = _Reader(inner[1:-1], pattern)
    test = reader.any_of()
    if reader.words:
        raise _invalid(pattern)

    def wanted(line: str) -> bool:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return False
        return isinstance(event, dict) and test(event)

    return wanted


class _Reader:
    """Reads a pattern, word by word."""

    def __init__(self, text: str, pattern: str):
        self._pattern, self._depth = pattern, 0
        self.words: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = WORD.match(text, at)
            if match is None:
                raise _invalid(pattern)
            self.words.append((str(match.lastgroup), match[str(match.lastgroup)]))
            at = match.end()

    def any_of(self) -> Test:
        """Tests with || between them."""
        tests = [self.all_of()]
        while self._take("||"):
            tests.append(self.all_of())
        return lambda event: any(test(event) for test in tests)

    def all_of(self) -> Test:
        """Tests with && between them."""
        tests = [self._one()]
        while self._take("&&"):
            tests.append(self._one())
        return lambda event: all(test(event) for test in tests)

    def _one(self) -> Test:
        if self._take("("):
            self._depth += 1
            if self._depth > DEPTH:
                raise _invalid(self._pattern)
            test = self.any_of()
            self._depth -= 1
            self._need("mark", ")")
            return test
        return self._comparison(_path(self._need("field"), self._pattern))

    def _comparison(self, path: list[str | int]) -> Test:
        kind, text = self._next()
        if (kind, text.upper()) == ("word", "IS"):
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}.get(self._need("word").upper(), ABSENT)
            if wanted is ABSENT:
                raise _invalid(self._pattern)
            return lambda event: _at(event, path) is wanted
        if (kind, text.upper()) == ("word", "NOT"):
            if self._need("word").upper() != "EXISTS":
                raise _invalid(self._pattern)
            return lambda event: _at(event, path) is ABSENT
        if kind != "mark" or text not in (*ORDERS, "=", "!="):
            raise _invalid(self._pattern)
        return self._value(path, text)

    def _value(self, path: list[str | int], mark: str) -> Test:
        kind, text = self._next()
        if kind not in ("word", "text") or text.startswith("%"):
            raise _invalid(self._pattern)
        number = float(text) if kind == "word" and NUMBER.fullmatch(text) else None
        if mark in ORDERS:
            if number is None:
                raise _invalid(self._pattern)
            return lambda event: _is_number(found := _at(event, path)) and ORDERS[mark](found, number)
        plain = re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "text" else text
        expression = re.compile(translate(plain.replace("[", "[[]").replace("?", "[?]")))

        def same(found: Any) -> bool:
            if _is_number(found):
                return number is not None and bool(found == number)
            return isinstance(found, str) and expression.match(found) is not None

        if mark == "=":
            return lambda event: same(_at(event, path))
        return lambda event: (found := _at(event, path)) is not ABSENT and not same(found)

    def _next(self) -> tuple[str, str]:
        if not self.words:
            raise _invalid(self._pattern)
        return self.words.pop(0)

    def _need(self, kind: str, text: str = "") -> str:
        found = self._next()
        if found[0] != kind or (text and found[1] != text):
            raise _invalid(self._pattern)
        return found[1]

    def _take(self, mark: str) -> bool:
        if self.words[:1] == [("mark", mark)]:
            del self.words[0]
            return True
        return False


def _path(field: str, pattern: str) -> list[str | int]:
    """The steps to a field: `$.a.b[0].c`."""
    steps: list[str | int] = []
    at = 1
    while at < len(field):
        match = STEP.match(field, at)
        if match is None:
            raise _invalid(pattern)
        steps.append(int(match[2]) if match[2] else match[1] or match[3] or match[4] or "")
        at = match.end()
    return steps


def _at(event: Any, path: list[str | int]) -> Any:
    """What lies at the end of a path."""
    for step in path:
        inside = step < len(event) if isinstance(step, int) and isinstance(event, list) else False
        if not inside and not (isinstance(step, str) and isinstance(event, dict) and step in event):
            return ABSENT
        event = event[step]
    return event


def _is_number(found: Any) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool)


def _invalid(pattern: str) -> ServiceError:
    return ServiceError("InvalidParameterException", f"Invalid filter pattern: {pattern}")
