"""The models' regular expressions: Java's, compiled for Python, and matched as AWS does, over the whole value."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_ASCII_CLASSES = {
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Lower": "a-z",
    "Upper": "A-Z",
    "Punct": "!-/:-@\\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "ASCII": "\\x00-\\x7f",
    "Space": "\\s",
}
_PROPERTY = re.compile(r"\\p\{(?:Is)?([A-Za-z]+)\}|\\p([A-Z])")
_PAIRS = "\\uD800\\uDC00-\\uDBFF\\uDFFF"
_DASH = re.compile(r"(\\[wdsWDS])-(?!\])")
_ENDS = re.compile(r"\$(\{\d+,\d*\}|[*+?])")
_SAFE = {
    r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?": r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    r"https://([.\-_a-zA-Z0-9]+/?){3,1016}": (
        r"https://(?=(?:/?[.\-_a-zA-Z0-9]){3})[.\-_a-zA-Z0-9]+(?:/[.\-_a-zA-Z0-9]+)*/?"
    ),
    r"^[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*$": r"[a-z0-9*]+(?:[._\-/][a-z0-9*]+)*",
    r"^[ \t]*[^\x00-\x1F:\x7F]+([ \t]+[^\x00-\x1F:\x7F]+)*[ \t]*$": (
        r"\t*(?:[^\x00-\x1F:\x7F](?:(?:[^\x00-\x1F:\x7F]|\t)*[^\x00-\x1F:\x7F])?)\t*"
    ),
    r"^[ \t]*[\x20-\x7E]+([ \t]+[\x20-\x7E]+)*[ \t]*$": (r"\t*[\x20-\x7E](?:[\x20-\x7E\t]*[\x20-\x7E])?\t*"),
}
"""Patterns that a short hostile text could keep busy for years, and others of the same language that it cannot."""
_LETTERS_END = 0x33480
"""Above this there are no letters, marks, numbers or symbols; only tags, private use and nothing."""


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str] | None:
    """Gives a pattern for fullmatch; None for one that Python cannot compile, which then refuses nothing."""
    text = _SAFE.get(pattern, pattern).replace(_PAIRS, "\\U00010000-\\U0010FFFF").replace("\\z", "\\Z")
    text = _ENDS.sub("$", _DASH.sub(r"\1\\-", text))
    try:
        return re.compile(_properties(text), re.ASCII)
    except (re.error, OverflowError):
        return None


def _properties(text: str) -> str:
    """Writes \\p{L} and its like out as ranges, in brackets of their own where they stand outside of a class."""
    parts, at = [], 0
    for found in _PROPERTY.finditer(text):
        ranges = _ASCII_CLASSES.get(found.group(1) or "") or _category(found.group(1) or found.group(2))
        parts += [text[at : found.start()], ranges if _within_class(text, found.start()) else f"[{ranges}]"]
        at = found.end()
    return "".join(parts) + text[at:]


def _within_class(text: str, end: int) -> bool:
    inside, at = False, 0
    while at < end:
        if text[at] == "\\":
            at += 1
        elif text[at] == "[":
            inside = True
        elif text[at] == "]":
            inside = False
        at += 1
    return inside


@lru_cache(maxsize=1)
def _runs() -> list[tuple[int, int, str]]:
    """Gives every run of characters of one category, as (first, last, category)."""
    runs, start, held = [], 0, unicodedata.category("\0")
    for code, category in enumerate(map(unicodedata.category, map(chr, range(_LETTERS_END)))):
        if category != held:
            runs.append((start, code - 1, held))
            start, held = code, category
    return [*runs, (start, _LETTERS_END - 1, held)]


@lru_cache(maxsize=32)
def _category(name: str) -> str:
    """Gives the characters of a Unicode category ("L", "Zs") as ranges for a class."""
    merged: list[list[int]] = []
    for first, last, category in _runs():
        if category.startswith(name):
            if merged and merged[-1][1] == first - 1:
                merged[-1][1] = last
            else:
                merged.append([first, last])
    return "".join(_char(a) if a == b else f"{_char(a)}-{_char(b)}" for a, b in merged)


def _char(code: int) -> str:
    return f"\\U{code:08x}"
