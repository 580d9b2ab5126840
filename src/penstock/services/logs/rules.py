"""Filter patterns: which events a FilterLogEvents call wants."""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.kernel.errors import ServiceError
from penstock.services.logs import fields

Wanted = Callable[[str], bool]
NOT_SERVED = "Filter patterns of columns and of regular expressions are not served; use terms or JSON fields."
TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))')


def parse(pattern: str | None) -> Wanted:
    """A test of an event's text: all plain terms are in it, none with "-", and one of those with "?" if there are any.

    A pattern of JSON fields (`{ … }`) is another module's.

    Raises: ServiceError (InvalidParameterException) for what is no pattern of words.
    Differs: patterns of columns (`[ … ]`) and of regular expressions (`%…%`) are refused.
    """
    text = (pattern or "").strip()
    if text[:1] == "{":
        return fields.parse(text)
    if text[:1] in ("[", "%"):
        raise ServiceError("InvalidParameterException", NOT_SERVED)
    needed: list[Wanted] = []
    other: list[Wanted] = []
    for sign, quoted, word in TERM.findall(text):
        test = _holds(quoted.replace('\\"', '"') if quoted else word)
        if sign == "?":
            other.append(test)
        elif sign == "-":
            needed.append(_not(test))
        else:
            needed.append(test)
    if other and not needed:
        return lambda line: any(test(line) for test in other)
    return lambda line: all(test(line) for test in needed)


def _holds(term: str) -> Wanted:
    return lambda line: term in line


def _not(test: Wanted) -> Wanted:
    return lambda line: not test(line)


OLDEST_MS, NEWEST_MS = 14 * 86_400_000, 2 * 3_600_000
"""How old an event may be, and how far ahead."""


def in_time(moments_ms: list[int], now_ms: int) -> tuple[int, int]:
    """Of moments in order, where those begin that are not too old, and where those begin that are too new."""
    old = sum(moment < now_ms - OLDEST_MS for moment in moments_ms)
    return old, len(moments_ms) - sum(moment > now_ms + NEWEST_MS for moment in moments_ms)
